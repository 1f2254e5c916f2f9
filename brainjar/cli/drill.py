"""brainjar drill memory|inference|restart|soak

Run a test protocol for real, against a jar of its own: your config (as `supervise` finds it), in a state directory of its own that is
removed afterwards. A jar that runs already is not touched, but the two share this machine's memory and cores.

  memory     each persona is grown to its cap, in turn and all at once: siblings unharmed, the memory back
  inference  all think at once: no mark passed, and everybody as fast, within 10 %
  restart    every way to die: noticed, told apart, announced once, resurrected, remembered
  soak       the whole for --hours, with random faults: curves in a picture, and the slope of each

Ends in pass or fail for every claim, and exits with 1 where one fails. --json prints the same as one object.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar.errors import UsageError

if TYPE_CHECKING:
    from brainjar.config import Config

KINDS = ("memory", "inference", "restart", "soak")
STALL = "5s"
"""watchdog.stall of a drill that lets workers hang: the shipped 120 s would be waited for each time."""

PREFIX = "brainjar-drill-"
NEW_S = 60.0
"""A directory that was made so lately may be about to be held."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "drill",
        help="prove it: test protocols against a jar of their own",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("kind", choices=KINDS)
    p.add_argument("--config", type=Path, metavar="FILE", help="default: ./brainjar.toml, else the shipped matrix")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    p.add_argument("--model", metavar="M")
    p.add_argument("--hours", type=float, default=1.0, metavar="H", help="of soak; default: 1")
    p.add_argument("--times", type=int, default=3, metavar="N", help="of restart: each way to die so often; default: 3")
    p.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of inference; default: 60")
    p.add_argument("--every", type=float, default=30.0, metavar="S", help="of soak: seconds between two faults, on average; default: 30")
    p.add_argument("--seed", type=int, metavar="N", help="of restart and soak: the same faults again")
    p.add_argument("--picture", type=Path, metavar="FILE.svg", help="of soak; default: brainjar-soak.svg")
    p.add_argument("--keep", type=Path, metavar="DIR", help="keep the jar's directory: minds, ledger, logs")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import msgspec

    from brainjar import config as configs
    from brainjar.drill import inference, memory, restart, soak
    from brainjar.drill.proving import Jar
    from brainjar.drill.report import Report

    for name, least in (("hours", 0.001), ("times", 1), ("seconds", 1), ("every", 0.1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name):g}: wanted at least {least:g}")
    path, said = configs.find_config(args.config)
    if said:
        print(f"brainjar: {said}", file=sys.stderr)
    config = configs.load(path, args.overrides, model=args.model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # its jar goes with it, as at Ctrl-C
    report = Report(args.kind)
    _clear(Path(tempfile.gettempdir()))
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = _held(place)
    options = ["--config", str(path), *(f"--set={one}" for one in (*args.overrides, *_overrides(args.kind, config)))]
    options += ["--model", args.model] if args.model is not None else []
    try:
        with Jar(place, options) as jar:
            match args.kind:
                case "memory":
                    memory.run(jar, report, _kv_bytes(config))
                case "inference":
                    inference.run(jar, report, args.seconds)
                case "restart":
                    restart.run(jar, report, args.times, args.seed)
                case _:
                    soak.run(jar, report, args.hours, args.picture or Path("brainjar-soak.svg"), args.every, args.seed)
    finally:
        if args.keep is not None:
            shutil.copytree(place, args.keep, dirs_exist_ok=True, ignore=lambda _, names: [one for one in names if one == "run"])
        shutil.rmtree(place, ignore_errors=True)
        if held is not None:
            os.close(held)
    outcome = report.outcome
    print(msgspec.json.encode(outcome).decode() if args.json else report.text())
    return 0 if outcome.passed else 1


def _held(place: Path) -> int | None:
    """Hold it, for as long as the descriptor is open, as of a drill that lives. None: another does, or it is gone."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _clear(directory: Path) -> None:
    """Remove what drills of this user have left that were killed."""
    for left in directory.glob(f"{PREFIX}*"):
        if (held := _held(left)) is None:
            continue
        status = os.fstat(held)
        if status.st_uid == os.geteuid() and time.time() - status.st_mtime > NEW_S:
            shutil.rmtree(left, ignore_errors=True)
        os.close(held)


def _overrides(kind: str, config: Config) -> list[str]:
    """What a drill needs of a config beside what it says."""
    always = ["restart.intensity=1000000"]  # a drill kills more often than any jar should die
    if kind in ("restart", "soak"):
        return [*always, f"watchdog.stall={STALL}"]
    return [*always, *_deadly_caps(config)] if kind == "memory" else always


def _kv_bytes(config: Config) -> dict[str, int]:
    from brainjar.cli import planning
    from brainjar.quota import cell_bytes

    headers = planning.headers(config)
    return {persona.name: cell_bytes(headers[persona.model.path]) for persona in config.personas}


def _deadly_caps(config: Config) -> list[str]:
    """A window that is doubled until a cap has no room for it, and such a cap: sized for the model, so that a mind can think it full."""
    from brainjar.cli import planning
    from brainjar.plan import WORKER_BYTES
    from brainjar.quota import quota

    planning.check_fetched(config)
    headers = planning.headers(config)
    found = []
    for persona in config.personas:
        header, context = headers[persona.model.path], persona.model.context
        if 4 * context > header.n_ctx_train:
            raise UsageError(
                f"persona.{persona.name}: its context of {context} can be doubled less than twice, as its model was trained for"
                f" {header.n_ctx_train}: the drill needs a smaller one (--set model.context={header.n_ctx_train // 4})"
            )
        if persona.model.mode == "engine":
            cap = quota(persona, header).worker_bytes + header.kv_bytes(3 * context)
        else:
            figures = planning.dry_run(persona.model.path, [2 * context, 4 * context])
            fits, fails = (figures.window(n).owned_bytes for n in (2 * context, 4 * context))
            cap = WORKER_BYTES + fits + (fails - fits) // 2
        found += [f"persona.{persona.name}.memory={cap}B", f"persona.{persona.name}.mortality.growth=context"]
    return found
