"""brainjar thoughts [NAME] [--follow] [--search TEXT] [--life N] [--since WHEN] [--until WHEN] [--kind KIND] [--json]

The mind of NAME, or of everybody, merged by time: its own thoughts, and what it heard and was told. Read from the state
directory; the jar need not run. --search: only lines that contain TEXT, in any case of letters, by the mind's own index.
--follow: go on with what comes, until Ctrl-C.
--json: one object a line, {"at", "persona", "life", "kind", "from", "content"}; kind is thought, heard, told or said.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from brainjar.cli import reading, which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers

AGAIN_S: Final = 0.5
"""How often it is looked whether there is more."""


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "thoughts", "what a mind holds", __doc__)
    reading.add_options(parser)
    parser.add_argument("--search", metavar="TEXT", default="", help="only lines that contain TEXT")
    parser.add_argument("--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import time

    wanted = reading.wanted(args, args.search)
    seen: dict[str, int] = {}
    while True:
        for persona, line in reading.lines(reading.files(args), wanted, seen):
            seen[persona] = line.id
            print(reading.as_json(persona, line) if args.json else reading.for_people(persona, line), flush=args.follow)
        if not args.follow:
            return 0
        time.sleep(AGAIN_S)
