"""brainjar top [--once]

The live view of a running jar. q, Esc or Ctrl-C leave it, and stop nothing; ? shows the keys. Where there is no terminal
that can show it, the bus as plain lines. --once: one screen as text, as wide as the terminal or $COLUMNS, else 80.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "top", "the live view of a running jar", __doc__)
    parser.add_argument("--once", action="store_true", help="one screen as text, then end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import shutil
    import sys

    from brainjar.view import show

    jar = which.running(args)
    if not args.once:
        return show.show(jar, attached=True)
    size = shutil.get_terminal_size((80, 24))
    colours = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    show.snapshot(jar, size.columns, size.lines, colours)
    return 0
