"""Make the plan of a config: headers read, one dry run for each model file in a process that is thrown away, the host's memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from brainjar import gguf, models
from brainjar import plan as plans
from brainjar.errors import BrainjarError, UsageError
from brainjar.isolation import hostmemory
from brainjar.quota import quota

if TYPE_CHECKING:
    from brainjar.config import Config
    from brainjar.gguf import Gguf

PATIENCE_S: Final = 60.0
"""Longest that a dry run may take; SmolLM2 takes 0.7 s on a busy core."""


Answer = TypeVar("Answer")


class _Refused(msgspec.Struct, frozen=True):
    error: str


class Unanswered(Exception):
    """A process that was started to be asked something gave no answer. In words."""


class DryRunFailed(BrainjarError):
    """llama.cpp would not say what a model takes. `--force` starts a jar without a plan."""


def check_fetched(config: Config) -> None:
    """Raise `BrainjarError` for a model of the catalog that is not here."""
    for model in config.models:
        if model.name is not None and not models.is_present(models.lookup(model.name)):
            raise BrainjarError(
                f"{model.name}: not fetched yet ({model.path}), so there is nothing to plan; brainjar models fetch {model.name}"
            )


def headers(config: Config) -> dict[Path, Gguf]:
    """Of each model file. Raise `UsageError` for one that is no model."""
    try:
        return {path: gguf.read(path) for path in dict.fromkeys(model.path for model in config.models)}
    except gguf.GgufError as error:
        raise UsageError(str(error)) from None


def make(config: Config, known: dict[Path, Gguf]) -> plans.Plan:
    """`known`: what `headers` found. Raise `DryRunFailed`."""
    engines = {name for engine in config.engines for name in engine.personas}
    quotas = {p.name: quota(p, known[p.model.path]) for p in config.personas if p.name in engines}
    questions = plans.questions(config, {path: header.n_ctx_train for path, header in known.items()}, quotas)
    figures = {key: answer(question) for key, question in questions.items()}
    return plans.plan(config, figures, hostmemory.read(), quotas, _disk_free(config.jar.state_dir))


def _disk_free(state_dir: Path) -> int | None:
    """Bytes that this user may still have where `state_dir` is, or will be; None where that cannot be told."""
    there = next((one for one in (state_dir, *state_dir.parents) if os.path.exists(one)), state_dir)
    try:
        found = os.statvfs(there)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def answer(question: plans.Question) -> plans.Figures:
    """Raise `DryRunFailed`."""
    more = ["--alone"] if question.alone else [] if question.repack else ["--plain"]
    if question.sequences:
        more += ["--engine", str(question.sequences), msgspec.json.encode(question.placement).decode()]
    return dry_run(question.path, question.contexts, more=more)


def dry_run(path: Path, contexts: Sequence[int], patience_s: float = PATIENCE_S, more: Sequence[str] = ()) -> plans.Figures:
    """Raise `DryRunFailed`, in one line, however the child ends. `more`: what else its command line says."""
    argv = [sys.executable, "-m", "brainjar.engine.dryrun", "--for", str(os.getpid()), *more, str(path), *map(str, contexts)]
    try:
        return ask(argv, _environment(), patience_s, plans.Figures)
    except Unanswered as error:
        raise DryRunFailed(f"{path}: its dry run {error}") from None


def ask(argv: Sequence[str], env: Mapping[str, str], patience_s: float, wanted: type[Answer]) -> Answer:
    """What the process `argv`, which prints one JSON object, says. Raise `Unanswered`, in one line, however it ends."""
    try:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(f"was not done after {patience_s:g} s and was ended; try again on an idle machine") from None
    except (OSError, ValueError) as error:
        raise Unanswered(f"cannot be started: {error}") from None
    last = next((line for line in reversed(done.stderr.decode(errors="replace").splitlines()) if line.strip()), "it said nothing")
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=wanted)
        why = f"failed: {msgspec.json.decode(done.stdout, type=_Refused).error}"
    except msgspec.DecodeError:
        code = done.returncode
        how = f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"exit status {code}"
        why = f"ended with {how}"
    raise Unanswered(f"{why}: {_clean(last)}")


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text.strip())[:300]


def _environment() -> dict[str, str]:
    """A zygote's, but for three things: GPUs are listed, so not hidden; huge pages and a random order of hashing move the heap's end
    about by megabytes, and a plan that is made twice must come out the same."""
    from brainjar.supervisor import zygotes

    hidden = ("CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES")
    return {key: value for key, value in zygotes.environment().items() if key not in hidden} | {"PYTHONHASHSEED": "0"}
