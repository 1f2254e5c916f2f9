"""brainjar resume NAME

Let a persona go on that `brainjar pause` has paused, at the word where it stopped. What the watchdog has paused goes on by itself
when its mark is no longer passed: then exit 1.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "resume", "let a paused persona go on", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "resume", name=args.name))
    return 0
