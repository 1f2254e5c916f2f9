"""brainjar pause NAME

A persona stops thinking at once, in the middle of a thought if need be, and keeps its life; `brainjar resume NAME` lets it go
on at the same word. It stays paused over deaths. Returns when it has given the lease back.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "pause", "have a persona stop thinking, and keep its life", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "pause", name=args.name))
    return 0
