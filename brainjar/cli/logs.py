"""brainjar logs NAME [--follow]

What the workers of NAME wrote to stderr, all their lives in one file; NAME zygote is who loads the models. The jar need
not run. --follow: go on, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from brainjar.cli.which import Subparsers

LOOK_S = 0.25
CHUNK = 64 * 1024


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "logs", "what a worker wrote to stderr", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--follow", action="store_true", help="go on, until Ctrl-C")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import find
    from brainjar.errors import BrainjarError
    from brainjar.view.words import clean

    path = find.persona_file(which.state_dir(args) / "logs", "*.log", args.name)
    to_terminal = sys.stdout.isatty()
    try:
        for chunk in _chunks(path, args.follow):
            # a worker may write what it likes: a file or a pipe gets it as it is, a terminal gets nothing that moves its cursor
            sys.stdout.buffer.write(clean(chunk.decode(errors="replace"), newlines=True).encode(errors="replace") if to_terminal else chunk)
            sys.stdout.buffer.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise BrainjarError(f"{path}: cannot be read: {error.strerror}") from None
    return 0


def _chunks(path: Path, follow: bool) -> Iterator[bytes]:
    """The file, then what is added to it. The supervisor empties a log that is too long: then it is read from its start."""
    import time

    with path.open("rb") as f:
        while True:
            chunk = f.read(CHUNK)
            if chunk:
                yield chunk
            elif not follow:
                return
            else:
                if path.stat().st_size < f.tell():
                    f.seek(0)
                time.sleep(LOOK_S)
