"""A zygote without a model whose workers can be told how to end: by a signal that stands for an exit status, or at birth.

The prompt of a persona says what it is: `THINK n` thinks (`benchmarks.programs.hollow`), `SLOW s` takes up to s seconds to be READY,
`FAILS n` fails each n-th of its starts. All births and walls are the real ones.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from benchmarks.programs import hollow
from brainjar import zygote
from brainjar.engine.vocab import EngineError

EXITS = {signal.SIGUSR1: 3, signal.SIGUSR2: 0, signal.SIGALRM: 1, signal.SIGVTALRM: 127}
"""Signal -> the exit status that it stands for."""
RAISES = {signal.SIGPROF: RuntimeError("on purpose"), signal.SIGXCPU: MemoryError("on purpose")}
"""Signal -> what is raised where it finds the worker."""


class Faulty(hollow.Hollow):
    def prepare(self) -> None:
        kind, _, much = self.birth.prompt.strip().partition(" ")
        if kind == "SLOW":
            time.sleep(float(much) * (hash((self.birth.birth, "slow")) % 100) / 100)
        if kind == "FAILS" and self.birth.birth % int(much) == 0:
            raise EngineError("a start that fails on purpose")
        for number, status in EXITS.items():
            signal.signal(number, lambda *_, status=status: os._exit(status))
        for number, error in RAISES.items():
            signal.signal(number, lambda *_, error=error: _raise(error))
        super().prepare()

    def live(self) -> None:
        if self.birth.prompt.startswith("THINK"):
            super().live()
        while True:
            self._listen(200)  # hears SIGTERM soon


def _raise(error: BaseException) -> None:
    raise error


def main() -> None:
    given: Any = {"Life": Faulty, "_load": hollow._load}
    vars(zygote).update(given)
    zygote.main()


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[func-returns-value]
