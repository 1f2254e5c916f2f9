"""Run the jar in the foreground until SIGTERM or SIGINT; exit 0 on a clean stop.

All that can never work is found before anything is started, and said in one line with exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brainjar.errors import BrainjarError, UsageError

if TYPE_CHECKING:
    from brainjar.config import Config

MIB: Final = 1024 * 1024
WORKER_FLOOR: Final = 80 * MIB
"""Least budget of a worker beside its KV cache: compute buffers, sockets, mind, Python. Measured with
SmolLM2: 78 MiB at 2,048 tokens of context, 79 at 512. A model that needs more is refused by its worker, in words."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser("supervise", help="run the jar in the foreground", description=__doc__)
    p.add_argument("--config", type=Path, metavar="FILE", help="default: ./brainjar.toml, else the shipped matrix")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. persona.subject.memory=8GiB")
    p.add_argument("--model", metavar="M", help="a name in the catalog or the path of a GGUF, for all personas without one of their own")
    p.add_argument("--state-dir", type=Path, metavar="DIR")
    p.add_argument(
        "--view", choices=("auto", "live", "plain", "none"), default="auto", help="default: live in a terminal, else plain lines"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar import config as configs
    from brainjar.supervisor import terminal
    from brainjar.supervisor.loop import Supervisor
    from brainjar.supervisor.premises import Premises

    path, said = configs.find_config(args.config)
    if said:
        print(f"brainjar: {said}", file=sys.stderr)
    config = configs.load(path, args.overrides, model=args.model, state_dir=args.state_dir)
    for note in config.notes:
        print(f"brainjar: {note}", file=sys.stderr)
    _check_models(config)
    os.umask(0o077)
    premises = Premises(config)
    try:
        ledger = premises.open_ledger()
        if ledger.set_aside:
            print(f"brainjar: the ledger was damaged; it is set aside as {ledger.set_aside} and a new one begun", file=sys.stderr)
        shown = terminal.Terminal(terminal.choose(args.view), premises.runtime_dir)
        try:
            supervisor = Supervisor(config, premises, ledger, shown)
        except sqlite3.OperationalError as error:
            raise BrainjarError(f"{ledger.path}: cannot be written ({error}); nothing was started") from None
    except BaseException:
        premises.leave()
        raise
    return supervisor.run()


def _check_models(config: Config) -> None:
    """Fetch catalog models that are missing; refuse files that are no model and caps that no worker could live under."""
    from brainjar import gguf, models
    from brainjar.config import format_size

    for model in config.models:
        if model.name is not None and not models.is_present(models.lookup(model.name)):
            _fetch(model.name)
        try:
            header = gguf.read(model.path)
        except gguf.GgufError as error:
            raise UsageError(str(error)) from None
        for persona in config.personas:
            need = -(-(header.kv_bytes(model.context) + WORKER_FLOOR) // MIB) * MIB  # rounded up: the number that is said must work
            if persona.model == model and persona.memory < need:
                raise UsageError(
                    f"{config.source}: persona.{persona.name}.memory: {format_size(persona.memory)} is below what a worker with a context"
                    f" of {model.context} tokens of this model needs; wanted at least {format_size(need)}, or a smaller model.context"
                )


def _fetch(name: str) -> None:
    """In a process of its own: what draws the progress, and what unpacks, must not stay with the supervisor for weeks."""
    from brainjar import paths

    argv = [sys.executable, "-m", "brainjar", "models", "fetch", name]
    env = dict(os.environ) | paths.import_environment()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SystemExit(status if status > 0 else 130)  # it has said why
