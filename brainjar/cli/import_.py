"""brainjar import FILE (--jar NAME | --state-dir DIR)

Read minds from a file of `brainjar export`, JSONL, into a jar's state directory, which is made where there is none. All of it or nothing:
a file that is wrong, a jar that runs, a persona that has a mind there already are refused. Its next life finds all of that in its past.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "import", "read minds from a file of export", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar import paths
    from brainjar.cli import importing
    from brainjar.errors import UsageError

    if args.state_dir is None and args.jar is None:
        raise UsageError("into which jar? --jar NAME or --state-dir DIR")
    state_dir = args.state_dir or paths.default_state_dir(args.jar)
    for persona, lines in importing.into(state_dir, args.file).items():
        print(f"{persona}: {lines} line{'s' if lines != 1 else ''}")
    return 0
