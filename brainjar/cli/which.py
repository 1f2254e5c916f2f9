"""What every command that is about a jar has in common: --jar NAME or --state-dir DIR."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainjar.client.find import Jar

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers, name: str, help: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser for command `name`, with the two options; `doc`, its module's docstring, is its description."""
    parser = subparsers.add_parser(name, help=help, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--jar", metavar="NAME", help="the running jar of this name; default: the only one")
    which.add_argument("--state-dir", type=Path, metavar="DIR", help="the jar that keeps its state there")
    return parser


def running(args: argparse.Namespace) -> Jar:
    """Raise `NoJar` where it does not run."""
    from brainjar.client import find

    return find.find(args.jar, args.state_dir)


def state_dir(args: argparse.Namespace) -> Path:
    """Where the jar's files are, whether it runs or not."""
    from brainjar.client import find

    return find.state_dir(args.jar, args.state_dir)
