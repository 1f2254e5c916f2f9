"""brainjar kill NAME

Kill a persona's worker with SIGKILL. That is a death, by the operator's hand: it is counted, announced, and followed by a
resurrection. Returns when the death is on record, and says so. Exit 1 where the persona is not alive.
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "kill", name=args.name))
    return 0
