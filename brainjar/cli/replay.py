"""brainjar replay [NAME] [--speed X] [--longest S] [--regenerate] [--life N] [--since WHEN] [--until WHEN] [--kind KIND]

The minds once more, line by line, in the time in which they thought: 10 seconds between two thoughts are 10 seconds here, with
--speed 10 one. --longest: no pause is longer than S seconds. The jar need not run. Ctrl-C ends it.

--regenerate: thoughts are not read but computed again, from what is on record of how they were: the same model, seeds, and steps.
Workers that compute for themselves (modes fork and separate) draw the same tokens again on one thread; where another one comes, it is
said which. It takes as long as thinking did, and begins where a life began with nothing in its context. Exit status 1: not all the same.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from brainjar.cli import reading, which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "replay", "the minds once more, in their own time", __doc__)
    reading.add_options(parser)
    parser.add_argument("--speed", type=_positive, default=1.0, metavar="X", help="so many times as fast")
    parser.add_argument("--longest", type=_positive, default=math.inf, metavar="S", help="no pause is longer, in seconds")
    parser.add_argument("--regenerate", action="store_true", help="compute the thoughts again, and say whether they are the same")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import time

    from brainjar.cli import regenerating

    if args.regenerate:
        return regenerating.run(args)
    before: float | None = None
    due = time.monotonic()
    for persona, line in reading.lines(reading.files(args), reading.wanted(args)):
        pause = 0.0 if before is None else max(0.0, line.at - before) / args.speed
        before, due = line.at, due + min(pause, args.longest)
        time.sleep(max(0.0, due - time.monotonic()))
        print(reading.for_people(persona, line), flush=True)
    return 0


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'"{text}": wanted a number above 0')
    return number
