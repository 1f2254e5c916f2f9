"""brainjar export [NAME] [--format jsonl|markdown] [--output FILE] [--life N] [--since WHEN] [--until WHEN] [--kind KIND]

What the minds hold, as a file: JSONL, which `brainjar import` reads again, or Markdown for people. Of NAME or of everybody, whole or by
range. A running jar is not disturbed. What a mind has said is private: FILE is made for its owner alone (0600), and none is written over.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar.cli import reading, which

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "export", "the minds as a file", __doc__)
    reading.add_options(parser)
    parser.add_argument("--format", choices=("jsonl", "markdown"), default="jsonl")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.cli.output import new_file

    if args.output is None:
        for body in _bodies(args):
            sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return 0
    with new_file(args.output) as file:
        for body in _bodies(args):
            file.write(body)
    return 0


def _bodies(args: argparse.Namespace) -> Iterator[bytes]:
    from brainjar import portable
    from brainjar.minds import Line, read_lines, told_deaths

    wanted = reading.wanted(args)
    for persona, path in reading.files(args).items():
        before: Line | None = None
        if args.format == "jsonl":
            yield portable.head(persona, told_deaths(path))
        for line in read_lines(path, wanted):
            yield portable.entry(persona, line) if args.format == "jsonl" else portable.markdown(persona, line, before).encode()
            before = line
