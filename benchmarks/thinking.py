"""Processes that think when they are told to (`programs/thinker.py`, `programs/batched.py`): the peers of a jar's own thinking."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from brainjar.supervisor import zygotes


def environment() -> dict[str, str]:
    """What brainjar gives its own zygotes, so that nothing but the arrangement differs."""
    return zygotes.environment() | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class Thinkers:
    """`count` of them at once. Waits until their models are loaded."""

    def __init__(self, program: str, words: Sequence[str | int | Path], *, count: int = 1, plain: bool = False) -> None:
        """`plain`: in the environment as it is, as anybody would start them."""
        env = dict(os.environ) if plain else environment()
        argv = [sys.executable, "-m", f"benchmarks.programs.{program}", *map(str, words)]
        self._all = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(count)]
        try:
            for one in self._all:
                self._answer(one, "ready")
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._all]

    def rate(self, seconds: float, *, past: int | None = None, heard: Sequence[int] | int = 0) -> float:
        """Tokens that all of them generate per second, thinking at the same time. `heard`: what each reads between two thoughts."""
        heards = [heard] * len(self._all) if isinstance(heard, int) else heard
        for one, words in zip(self._all, heards, strict=True):
            self._tell(one, f"{seconds} {'-' if past is None else past} {words}")
        for one in self._all:
            self._answer(one, "set")
        for one in self._all:
            self._tell(one, "")
        answers = [self._answer(one).split() for one in self._all]
        return sum(int(count) / float(took) for count, took in answers)

    def _tell(self, one: subprocess.Popen[str], line: str) -> None:
        assert one.stdin is not None
        one.stdin.write(line + "\n")
        one.stdin.flush()

    def _answer(self, one: subprocess.Popen[str], wanted: str | None = None) -> str:
        assert one.stdout is not None
        line = one.stdout.readline().strip()
        if not line or wanted not in (None, line):
            raise RuntimeError(
                f"{' '.join(map(str, one.args[2:4]) if isinstance(one.args, list) else '')} said {line!r} and ended: {one.poll()}"
            )
        return line

    def close(self) -> None:
        for one in self._all:
            one.kill()
            one.communicate()
