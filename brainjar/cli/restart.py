"""brainjar restart NAME

Stop a persona's worker cleanly and start it again: no death, the same life. Starts one that was stopped. Returns when the
new worker is ready; exit 1 where it does not become so, with the reason.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "restart", "stop a persona and start it again, without a death", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "restart", name=args.name))
    return 0
