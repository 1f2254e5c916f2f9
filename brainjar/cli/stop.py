"""brainjar stop [NAME]

Stop one persona, or without NAME the whole jar. A stop is no death: the life is suspended, and goes on at the next start.
Returns when nothing of what was to be stopped runs any more.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "stop", "stop a persona, or the jar", __doc__)
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "stop", name=args.name))
    return 0
