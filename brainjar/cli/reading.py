"""What every command that reads minds has in common: whose, which lines of them, merged by time."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, get_args

from brainjar.cli import which

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from brainjar.minds import Line, Range


def add_options(parser: argparse.ArgumentParser) -> None:
    from brainjar.minds import Kind

    parser.add_argument("name", metavar="NAME", nargs="?", help="of the persona; default: all of them")
    parser.add_argument("--life", type=int, metavar="N", help="only of this life")
    parser.add_argument("--since", type=_moment, metavar="WHEN", help='from then on: "10m" ago, or "2026-11-29 14:05"')
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="before then")
    parser.add_argument("--kind", choices=get_args(Kind), action="append", help="only of this kind; may be said again for another")


def wanted(args: argparse.Namespace, search: str = "") -> Range:
    from brainjar.minds import Range

    return Range(life=args.life, since=args.since, until=args.until, kinds=tuple(args.kind or ()), search=search)


def files(args: argparse.Namespace) -> Mapping[str, Path]:
    """Whose minds are meant, and where they are kept. Raise `UsageError` for a NAME that is nobody's."""
    from brainjar.client import find

    minds = which.state_dir(args) / "minds"
    if args.name is not None:
        return {args.name: find.persona_file(minds, "*/mind.db", args.name)}
    return {path.parent.name: path for path in sorted(minds.glob("*/mind.db"))}


def lines(files: Mapping[str, Path], wanted: Range, seen: Mapping[str, int] | None = None) -> Iterator[tuple[str, Line]]:
    """(persona, line), oldest first; of each persona past the id in `seen`."""
    import heapq

    import msgspec

    from brainjar.minds import read_lines

    def of(persona: str, path: Path) -> Iterator[tuple[str, Line]]:
        after = msgspec.structs.replace(wanted, after=(seen or {}).get(persona, 0))
        return ((persona, line) for line in read_lines(path, after))

    return heapq.merge(*(of(*item) for item in files.items()), key=lambda pair: pair[1].at)


def for_people(persona: str, line: Line) -> str:
    from brainjar.view.words import clean, day

    content = " ".join(clean(line.content).split())
    how = "" if line.kind == "thought" else f" ({line.kind}, from {clean(line.source)})"
    return f"{day(line.at)}  {persona}  life {line.life}{how}: {content}"


def as_json(persona: str, line: Line) -> str:
    from brainjar.messages import encode

    facts = {"at": line.at, "persona": persona, "life": line.life, "kind": line.kind, "from": line.source, "content": line.content}
    if line.readings:
        facts["readings"] = line.readings
    return encode(facts).decode()


def _moment(text: str) -> float:
    from brainjar.units import parse_moment

    try:
        return parse_moment(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
