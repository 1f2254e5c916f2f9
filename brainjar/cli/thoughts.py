"""brainjar thoughts [NAME] [--json] [--search TEXT]

The mind of NAME, or of everybody, merged by time: its own thoughts, and what it heard and was told. Read from the state
directory; the jar need not run. --search: only lines that contain TEXT, in any case of letters.
--json: one object a line, {"at", "persona", "life", "kind", "from", "content"}; kind is thought, heard, told or said.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brainjar.cli.which import Subparsers
    from brainjar.minds import Line


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "thoughts", "what a mind holds", __doc__)
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--search", metavar="TEXT", help="only lines that contain TEXT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import heapq

    from brainjar.client import find
    from brainjar.messages import encode
    from brainjar.minds import read_lines

    minds = which.state_dir(args) / "minds"
    if args.name is not None:
        files = {args.name: find.persona_file(minds, "*/mind.db", args.name)}
    else:
        files = {path.parent.name: path for path in sorted(minds.glob("*/mind.db"))}

    def told(persona: str, path: Path) -> Iterator[tuple[str, Line]]:
        return ((persona, line) for line in read_lines(path, args.search))

    for persona, line in heapq.merge(*(told(*item) for item in files.items()), key=lambda pair: pair[1].at):
        if args.json:
            record = {
                "at": line.at,
                "persona": persona,
                "life": line.life,
                "kind": line.kind,
                "from": line.source,
                "content": line.content,
            }
            print(encode(record).decode())
        else:
            print(_line(persona, line))
    return 0


def _line(persona: str, line: Line) -> str:
    from brainjar.view.words import clean, day

    content = " ".join(clean(line.content).split())
    how = "" if line.kind == "thought" else f" ({line.kind}, from {clean(line.source)})"
    return f"{day(line.at)}  {persona}  life {line.life}{how}: {content}"
