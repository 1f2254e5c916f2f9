"""Run the jar in the foreground until SIGTERM or SIGINT; exit 0 on a clean stop.

All that can never work is found before anything is started, and said in one line with exit status 2.
"""

from __future__ import annotations

import argparse
import os
import select
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brainjar.errors import BrainjarError, UsageError

if TYPE_CHECKING:
    from brainjar.config import Config
    from brainjar.gguf import Gguf
    from brainjar.plan import Plan
    from brainjar.supervisor.notify import Notify

FETCH_BEAT_S: Final = 10.0
"""Between two words to the service manager while a model comes over a slow line: the fetch ends by itself when nothing comes any more."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser("supervise", help="run the jar in the foreground", description=__doc__)
    p.add_argument("--config", type=Path, metavar="FILE", help="default: ./brainjar.toml, else the shipped matrix")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. persona.subject.memory=8GiB")
    p.add_argument("--model", metavar="M", help="a name in the catalog or the path of a GGUF, for all personas without one of their own")
    p.add_argument("--state-dir", type=Path, metavar="DIR")
    p.add_argument(
        "--view", choices=("auto", "live", "plain", "none"), default="auto", help="default: live in a terminal, else plain lines"
    )
    p.add_argument("--watchdog-dry-run", action="store_true", help="let the watchdog say what it would do, and do nothing")
    p.add_argument("--force", action="store_true", help="start it although `brainjar plan` says that it does not fit")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar import config as configs
    from brainjar import web
    from brainjar.cli import planning, trials
    from brainjar.supervisor import terminal
    from brainjar.supervisor.loop import Supervisor
    from brainjar.supervisor.notify import EXTENDED_S, Notify
    from brainjar.supervisor.premises import Premises

    path, said = configs.find_config(args.config)
    if said:
        print(f"brainjar: {said}", file=sys.stderr)
    config = configs.load(path, args.overrides, model=args.model, state_dir=args.state_dir)
    if config.web.enabled and (missing := web.missing()) is not None:
        raise UsageError(f"{config.source}: web.enabled = true: {missing}")
    for note in config.notes:
        print(f"brainjar: {note}", file=sys.stderr)
    told = Notify(os.environ, time.monotonic)
    _fetch_missing(config, told)
    headers = planning.headers(config)
    config = trials.known(config, headers)
    told.still_starting("looking whether it fits", len(config.models) * planning.PATIENCE_S + EXTENDED_S)
    plan = checked_plan(config, headers, force=args.force)
    os.umask(0o077)
    premises = Premises(config)
    try:
        told.still_starting("looking how this CPU computes fastest", len(config.models) * trials.PATIENCE_S + EXTENDED_S)
        config = trials.measured(config, headers, plan)
        told.close()
        ledger = premises.open_ledger()
        if ledger.set_aside:
            print(f"brainjar: the ledger was damaged; it is set aside as {ledger.set_aside} and a new one begun", file=sys.stderr)
        shown = terminal.Terminal(terminal.choose(args.view), premises.runtime_dir, premises.jar)
        try:
            supervisor = Supervisor(config, premises, ledger, shown, dry_run=args.watchdog_dry_run, options=_options(args, path))
        except sqlite3.OperationalError as error:
            raise BrainjarError(f"{ledger.path}: cannot be written ({error}); nothing was started") from None
    except BaseException:
        premises.leave()
        raise
    return supervisor.run()


def _options(args: argparse.Namespace, path: Path) -> list[str]:
    """With which the config is read again (`cli.reread`)."""
    found = ["--config", str(path.absolute())]
    for override in args.overrides:
        found += ["--set", override]
    found += ["--model", args.model] if args.model is not None else []
    found += ["--state-dir", str(args.state_dir.absolute())] if args.state_dir is not None else []
    return found + (["--force"] if args.force else [])


def _fetch_missing(config: Config, told: Notify) -> None:
    """The models of the catalog that are not here."""
    from brainjar import models

    for model in config.models:
        if model.name is not None and not models.is_present(models.lookup(model.name)):
            _fetch(model.name, told)


def checked_plan(config: Config, headers: dict[Path, Gguf], *, force: bool) -> Plan | None:
    """Refuse a jar that cannot fit, in the plan's own words. None where there is no plan, by `force`."""
    from brainjar.cli import planning

    try:
        plan = planning.make(config, headers)
    except planning.DryRunFailed as error:
        if not force:
            raise planning.DryRunFailed(f"{error}; --force starts it without a plan") from None
        print(f"brainjar: {error}; started without a plan, by --force", file=sys.stderr)
        return None
    if plan.problems and not force:
        more = f" (and {len(plan.problems) - 1} more: brainjar plan --config {config.source})" if len(plan.problems) > 1 else ""
        # a cap that is too small can never work, too little memory is this host's
        kind = UsageError if plan.problems[0].kind == "cap" else BrainjarError
        raise kind(plan.problems[0].words + more)
    for problem in plan.problems:
        print(f"brainjar: started by --force, though it does not fit: {problem.words}", file=sys.stderr)
    for note in plan.notes:
        print(f"brainjar: {note}", file=sys.stderr)
    return plan


def _fetch(name: str, told: Notify) -> None:
    """In a process of its own: what draws the progress, and what unpacks, must not stay with the supervisor for weeks."""
    from brainjar import paths
    from brainjar.isolation import bonds
    from brainjar.supervisor import notify

    argv = [sys.executable, "-m", "brainjar", "models", "fetch", name]
    env = notify.without(os.environ) | paths.import_environment()
    tie = partial(bonds.end_with, os.getpid())
    process = subprocess.Popen(argv, env=env, stdout=2, preexec_fn=tie)  # there is one thread yet
    pidfd = os.pidfd_open(process.pid)
    try:
        told.still_starting(f"fetching {name}")
        while not select.select([pidfd], [], [], FETCH_BEAT_S)[0]:
            told.still_starting()
    except BaseException:
        process.terminate()
        raise
    finally:
        os.close(pidfd)
        status = process.wait()
    if status:
        raise SystemExit(status if status > 0 else 130)  # it has said why
