"""python -m brainjar.view --runtime-dir DIR [--attached]

The view of a foreground run, as its supervisor starts it: in the terminal's foreground job, deaf to Ctrl-C, gone when
its parent is. With --attached the view of a jar that goes on without it. Without a terminal, plain lines.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from brainjar.client import find
from brainjar.errors import BrainjarError, NoJar
from brainjar.isolation.bonds import PR_SET_PDEATHSIG
from brainjar.view.show import show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m brainjar.view", description=__doc__)
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--attached", action="store_true", help="the jar goes on without this view; q leaves it")
    args = parser.parse_args()
    parent = None
    if not args.attached:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        jar = find.at(args.runtime_dir)
        if jar is None:
            raise NoJar(f"no jar runs in {args.runtime_dir}")
        return show(jar, attached=args.attached, parent=parent)
    except BrainjarError as error:
        print(f"brainjar view: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
