"""Have it measured, once for each model, host and build of llama.cpp, whether weights are faster repacked (`brainjar.repack`).

What was found is kept by the jar's state, in `repack.json`; whatever cannot be read there is measured again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from brainjar.cli import planning
from brainjar.engine import identity
from brainjar.errors import UsageError
from brainjar.repack import Trial, choose

if TYPE_CHECKING:
    from brainjar.config import Config, Model
    from brainjar.gguf import Gguf
    from brainjar.plan import Plan

FILE: Final = "repack.json"
PATIENCE_S: Final = 300.0
"""Longest that a trial may take: a model of some GB is read from an SD card twice. SmolLM2 takes 3 s."""
MOST: Final = 64
"""Trials kept."""
_CPU: Final = ("model name", "flags", "Features", "CPU implementer", "CPU part")
"""Lines of /proc/cpuinfo, on x86 and ARM."""


def known(config: Config, headers: Mapping[Path, Gguf]) -> Config:
    """`config` with what earlier starts have measured."""
    kept = _kept(config.jar.state_dir / FILE)
    layouts = {model.path: choose(kept[key]) for model, key in _open(config, headers).items() if key in kept}
    return msgspec.structs.replace(config, layouts={**config.layouts, **layouts})


def measured(config: Config, headers: Mapping[Path, Gguf], plan: Plan | None) -> Config:
    """`config` with what `known` did not find, measured now and said on stderr. The state directory exists.

    Where llama.cpp would repack nothing, nothing is measured; where it cannot be, it is said, and llama.cpp's own default holds.
    """
    repacks = {row.path for row in plan.models if row.repacked_bytes} if plan is not None else set()
    todo = {model: key for model, key in _open(config, headers).items() if model.path not in config.layouts and str(model.path) in repacks}
    if not todo:
        return config
    found, layouts = _kept(config.jar.state_dir / FILE), {}
    for model, key in todo.items():
        name = model.name or model.path.name
        print(f"brainjar: {name}: measuring, this once, how this CPU computes it faster; inference.repack says it without", file=sys.stderr)
        trial = _trial(model.path, config.threads_of(model))
        if isinstance(trial, str):
            print(f"brainjar: {name}: it could not be measured ({trial}); weights are repacked where llama.cpp can", file=sys.stderr)
            continue
        found = {**found, key: trial}
        layouts[model.path] = choose(trial)
        print(f"brainjar: {name}: weights {layouts[model.path].why}", file=sys.stderr)
    _keep(config.jar.state_dir / FILE, dict(list(found.items())[-MOST:]))
    return msgspec.structs.replace(config, layouts={**config.layouts, **layouts})


def _open(config: Config, headers: Mapping[Path, Gguf]) -> dict[Model, str]:
    """The models of which nobody has said how they are to be held, by what the answer depends on."""
    if config.inference.repack != "auto":
        return {}
    models = {model.path: model for model in config.models if model.mode != "separate" and not model.placement.gpu_layers}
    build, cpu = _build(), _cpu()
    try:
        return {model: f"{identity.of_model(headers[path])} {build} {cpu} {config.threads_of(model)}" for path, model in models.items()}
    except OSError as error:
        raise UsageError(f"{error.filename or 'a model file'}: cannot be read: {error.strerror}") from None


def _trial(path: Path, threads: int, patience_s: float = PATIENCE_S) -> Trial | str:
    """What was measured, as a zygote would compute it, or why it was not."""
    from brainjar.supervisor import zygotes

    argv = [sys.executable, "-m", "brainjar.engine.trial", "--for", str(os.getpid()), str(path), str(threads)]
    try:
        return planning.ask(argv, zygotes.environment(), patience_s, Trial)
    except planning.Unanswered as error:
        return str(error)


def _build() -> str:
    """llama.cpp's libraries as they are installed, without loading them: a rebuilt one may repack other types."""
    spec = importlib.util.find_spec("llama_cpp")
    folder = Path(spec.origin).parent / "lib" if spec is not None and spec.origin else None
    found = sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in folder.glob("*.so*")) if folder else []
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def _cpu(proc: Path = Path("/proc")) -> str:
    try:
        lines = sorted({line for line in (proc / "cpuinfo").read_text().splitlines() if line.startswith(_CPU)})
    except OSError:
        lines = []
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _kept(path: Path) -> dict[str, Trial]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Trial])
    except (OSError, msgspec.DecodeError):
        return {}


def _keep(path: Path, trials: Mapping[str, Trial]) -> None:
    aside = path.with_name(path.name + ".new")
    try:
        aside.write_bytes(msgspec.json.encode(trials))
        aside.rename(path)
    except OSError as error:
        print(f"brainjar: {path}: cannot be written ({error.strerror}): the next start measures again", file=sys.stderr)
