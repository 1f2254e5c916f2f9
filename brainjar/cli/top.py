"""brainjar top [--refresh S] [--ascii] [--once] [--json]

The live view of a running jar. q or Ctrl-C leave it, and stop nothing; ? shows the keys. Where there is no terminal that can show
it, the bus as plain lines. --refresh: seconds between two pictures, 0.25 by default. --ascii: nothing but ASCII is drawn. --once: one
screen as text, as wide as the terminal or $COLUMNS, else 80. --json: what `brainjar status --json` says, one object a line, every
second or as --refresh says, until Ctrl-C; with --once, one.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers

LEAST_S, MOST_S = 0.05, 60.0
JSON_S: Final = 1.0


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "top", "the live view of a running jar", __doc__)
    parser.add_argument("--refresh", type=_seconds, metavar="S", help="seconds between two pictures; default: 0.25")
    parser.add_argument("--ascii", action="store_true", help="nothing but ASCII is drawn")
    parser.add_argument("--once", action="store_true", help="one screen as text, then end")
    parser.add_argument("--json", action="store_true", help="as objects, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import shutil
    import sys

    from brainjar.view import live, show

    jar = which.running(args)
    if args.json:
        return show.objects(jar, None if args.once else args.refresh or JSON_S)
    if not args.once:
        return show.show(jar, attached=True, refresh_s=args.refresh or live.FRAME_S, ascii=args.ascii)
    size = shutil.get_terminal_size((80, 24))
    colours = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    show.snapshot(jar, size.columns, size.lines, colours, ascii=args.ascii)
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not LEAST_S <= seconds <= MOST_S:
        raise argparse.ArgumentTypeError(f'"{text}": wanted seconds from {LEAST_S:g} to {MOST_S:g}')
    return seconds
