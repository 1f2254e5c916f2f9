"""brainjar events [--json] [--follow] [--since SEQ]

The bus as lines. Without --follow: what is still held of the events after number SEQ (default 0: all of the running
supervisor's), then ends. With --follow: every event from now on, or after SEQ where it is given, until the jar stops.
SEQ is a number of the running supervisor's, or EPOCH.SEQ to begin with an earlier one's. What was lost and is held nowhere
stands there as a GAP. --json: one envelope a line. Otherwise one line for people, TOKEN and HEARTBEAT left out.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "events", "the bus, as lines", __doc__)
    parser.add_argument("--json", action="store_true", help="one envelope a line")
    parser.add_argument("--follow", action="store_true", help="go on until the jar stops")
    parser.add_argument("--since", type=_since, metavar="SEQ", help="after this event: SEQ or EPOCH.SEQ")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control
    from brainjar.client.follow import follow
    from brainjar.messages import encode
    from brainjar.view import plain

    jar = which.running(args)
    for event in follow(jar, args.since) if args.follow else control.events(jar, *(args.since or (None, 0))):
        line = encode(event).decode() if args.json else plain.line(event)
        if line is not None:
            print(line, flush=args.follow)
    return 0


def _since(text: str) -> tuple[int | None, int]:
    found = re.fullmatch(r"(?:([0-9]{1,15})\.)?([0-9]{1,15})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f'"{text}" is no event; wanted SEQ or EPOCH.SEQ, such as 120 or 3.120')
    return (int(found[1]) if found[1] else None), int(found[2])
