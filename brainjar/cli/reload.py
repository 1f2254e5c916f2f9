"""brainjar reload

Read the config again, with the options that the jar was started with, and apply what differs with the least harm: prompts, sampling,
marks, priorities and restart rules at once, nobody dies for them; a persona with another cap, model or sandbox is stopped and
started again, its life goes on. A config that is wrong, or does not fit, is refused whole. Returns when all of it is in effect.

SIGHUP does the same, where no terminal controls the jar.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "reload", "read the config again, and apply what differs", __doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "reload"))
    return 0
