"""brainjar init [NAME] [--output FILE] [--list]

Write a shipped config, with its comments, into ./brainjar.toml, where `brainjar supervise` finds it: to be changed as you like. NAME is
one of those that --list shows, matrix by default. A file that is there is never written over.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "init", help="write a commented config", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="matrix")
    parser.add_argument("--output", type=Path, metavar="FILE", default=Path("brainjar.toml"), help="instead of ./brainjar.toml")
    parser.add_argument("--list", action="store_true", help="the shipped configs, each in a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.cli.output import new_file
    from brainjar.errors import UsageError
    from brainjar.paths import config_dir
    from brainjar.tables import nearest, plain

    shipped = {path.stem: path for path in sorted(config_dir().glob("*.toml"))}
    if args.list:
        for name, path in shipped.items():
            print(f"{name:<16} {described(path)}")
        return 0
    if args.name not in shipped:
        raise UsageError(f'no config is called "{plain(args.name)}"; {nearest(args.name, shipped)}')
    with new_file(args.output) as file:
        file.write(shipped[args.name].read_bytes())
    print(f"written: {args.output}, from {args.name}; `brainjar plan --config {args.output}` says whether it fits here")
    return 0


def described(path: Path) -> str:
    """What its first comment says of it."""
    with path.open() as file:
        return file.readline().lstrip("# ").rstrip()
