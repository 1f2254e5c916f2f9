"""brainjar kill NAME [--cause TEXT]

Kill a persona's worker with SIGKILL. That is a death, by the operator's hand: it is counted, announced, and followed by a
resurrection. Returns when the death is on record, and says so. Exit 1 where the persona is not alive. --cause: what its next
life is told that it died of; on record it stays a death by the operator's hand, with those words in its evidence.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "kill", "kill a persona; it will be resurrected", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--cause", metavar="TEXT", default="", help="what its next life is told that it died of")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "kill", name=args.name, text=args.cause))
    return 0
