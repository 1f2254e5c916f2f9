"""brainjar models list | fetch NAME | verify [NAME]

list [--json]   the catalog: name, whether the file is here, its size, licence and path. `--json`: one object a line, state
                being `present`, `missing` or `damaged` (wrong size; only `verify` reads the file).
fetch NAME      fetch it, unless it is here and whole; prints the path of the file. What it takes and how far it is goes to stderr.
                A model in several parts goes on behind those that an interrupted fetch left.
verify [NAME]   read the file, or every file that is here, and compare it with the catalog: ok, missing, damaged, or unknown: one of
                a hub that was put here by hand. Exit 1 where one is damaged, or the one that was asked for is missing.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import msgspec

from brainjar import models
from brainjar.units import format_size

if TYPE_CHECKING:
    from brainjar.fetching import Progress, Stage
    from brainjar.models import Entry

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Each command's parser sets `run`: a function of the parsed arguments that returns the exit code."""
    parser = subparsers.add_parser("models", help="the model files: list, fetch, verify", description="The model files.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = commands.add_parser("list", help="what the catalog has, and what is here")
    listing.add_argument("--json", action="store_true", help="one object a line")
    listing.set_defaults(run=run_list)

    getting = commands.add_parser("fetch", help="fetch a model, unless it is here and whole")
    getting.add_argument("name", metavar="NAME")
    getting.set_defaults(run=run_fetch)

    verifying = commands.add_parser("verify", help="hash the files again")
    verifying.add_argument("name", metavar="NAME", nargs="?")
    verifying.set_defaults(run=run_verify)


def run_list(args: argparse.Namespace) -> int:
    entries = models.catalog().values()
    if args.json:
        for entry in entries:
            line = {**msgspec.to_builtins(models.pinned(entry)), "path": str(entry.path), "state": _glance(entry)}
            print(msgspec.json.encode(line).decode())
        return 0
    for entry in entries:
        size = models.pinned(entry).size_bytes
        print(f"{entry.name}  {_glance(entry)}  {format_size(size) if size else 'from a hub'}  {entry.licence}")
        print(f"    {entry.description}")
        print(f"    {entry.path}")
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    from brainjar import fetching

    entry = models.lookup(args.name)
    if not models.is_present(entry):
        need = fetching.need(entry)
        what = f"{format_size(need.download_bytes)} to download, {format_size(need.disk_bytes)} of disk needed until it is whole"
        print(f"{entry.name}: {what}", file=sys.stderr)
    with _ending_as_by_ctrl_c(), progress_on_stderr(entry) as progress:
        path = fetching.fetch(entry, progress)
    print(path)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    from brainjar import fetching

    entries = [models.lookup(args.name)] if args.name else list(models.catalog().values())
    code = 0
    for entry in entries:
        verdict = fetching.verify(entry)
        print(f"{entry.name}  {verdict.state}  {entry.path}")
        if verdict.state == "damaged":
            print(f"{entry.path}: {verdict.why}; fetch it again: brainjar models fetch {entry.name}", file=sys.stderr)
            code = 1
        elif verdict.state == "missing" and args.name:
            print(f"{entry.path}: is not here; fetch it: brainjar models fetch {entry.name}", file=sys.stderr)
            code = 1
    return code


@contextmanager
def progress_on_stderr(entry: Entry) -> Iterator[Progress]:
    """A bar where stderr is a terminal, a line for each stage where it is not; nothing at all where nothing is fetched."""
    if not sys.stderr.isatty():
        yield _lines(entry)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(entry.name, total=None, visible=False)
        stage_before: Stage | None = None

        def show(stage: Stage, done: int, total: int) -> None:
            nonlocal stage_before
            if stage != stage_before:
                stage_before = stage
                bar.reset(task, description=f"{entry.name}: {_words(stage)}", total=total or None, visible=True)
            bar.update(task, completed=done)

        yield show


def _lines(entry: Entry) -> Callable[[Stage, int, int], None]:
    stage_before: Stage | None = None

    def show(stage: Stage, done: int, total: int) -> None:
        nonlocal stage_before
        if stage != stage_before:
            stage_before = stage
            size = f" {format_size(total)}" if total else ""
            print(f"{entry.name}: {_words(stage)}{size}", file=sys.stderr, flush=True)

    return show


def _words(stage: Stage) -> str:
    return {"waiting": "waiting for another fetch", "resuming": "reading the parts that are here"}.get(stage, stage)


@contextmanager
def _ending_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack too, so that what is of no use to the next fetch is cleared away; nothing interrupts that."""

    def end(number: int, _: object) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ends if signal.getsignal(number) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _glance(entry: Entry) -> str:
    if models.is_present(entry):
        return "present"
    return "damaged" if entry.path.exists() else "missing"
