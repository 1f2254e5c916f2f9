"""brainjar report [--output FILE.html] [--against DIR]

What has happened in a jar, as one HTML page that needs nothing else: a timeline of lives and deaths, memory against the cap, tokens a
second and mood over time, words of each life, causes. --against: the state directory of another run, told
beside it, and in what their configs differ. The jar need not run, and is not disturbed where it does.
What the minds have said is not in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "report", "what has happened, as a page", __doc__)
    parser.add_argument("--output", type=Path, metavar="FILE.html", default=Path("brainjar-report.html"), help="default: %(default)s")
    parser.add_argument("--against", type=Path, metavar="DIR", help="the state directory of another run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import time

    from brainjar.chronicle.gather import gather
    from brainjar.chronicle.page import html
    from brainjar.cli.output import new_file
    from brainjar.client import find

    now = time.time()
    run = gather(which.state_dir(args), now)
    other = None if args.against is None else gather(find.state_dir(given=args.against), now)
    with new_file(args.output) as file:
        file.write(html(run, other).encode())
    print(f"written: {args.output}")
    return 0
