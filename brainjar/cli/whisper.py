"""brainjar whisper FROM NAME TEXT

Have persona NAME hear TEXT as if persona FROM had thought it, whether it sees FROM or not. FROM learns nothing of it. Returns when it
stands in the mind of NAME; one that is dead or paused hears it when it goes on. On record as SAID, with the one in whose name it was
said. TEXT of "-" is read from standard input.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import say, which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "whisper", "speak to a persona in the name of another", __doc__)
    parser.add_argument("by", metavar="FROM")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("text", metavar="TEXT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "whisper", name=args.name, by=args.by, text=say.text_of(args.text)))
    return 0
