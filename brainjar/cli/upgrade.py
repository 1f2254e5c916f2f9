"""brainjar upgrade

Have the version of brainjar that is installed now take over a running jar, without a death: install it (pip, pipx, git pull), then
upgrade. Supervisor and minds keep their pids and think on. A version that cannot take over changes nothing: the running one goes on,
and this says why, with exit status 1.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "upgrade", "have another version take over, without a death", __doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control

    print(control.ask(which.running(args), "upgrade"))
    return 0
