"""brainjar say NAME TEXT

Speak to a persona: it hears a voice from outside, marked as that in its mind, and begins its next thought with it. Returns when it
stands in its mind; one that is dead or paused hears it when it goes on. On record as SAID (`brainjar events`) for ever.
TEXT of "-" is read from standard input.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "say", "speak to a persona, as a voice from outside", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("text", metavar="TEXT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "say", name=args.name, text=text_of(args.text)))
    return 0


def text_of(argument: str) -> str:
    return sys.stdin.read() if argument == "-" else argument
