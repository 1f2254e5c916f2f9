"""brainjar whose zygotes are `faulty`, and whose wall clock can be set: by what stands in the file $BRAINJAR_TEST_CLOCK, in seconds."""

from __future__ import annotations

import os
import sys
import time

from brainjar.cli import main
from brainjar.supervisor import zygotes

_real = time.time


def _stepped() -> float:
    try:
        with open(os.environ["BRAINJAR_TEST_CLOCK"]) as f:
            return _real() + float(f.read() or 0)
    except (KeyError, OSError, ValueError):
        return _real()


if __name__ == "__main__":
    zygotes.PROGRAM = "tests.chaos.programs.faulty"
    time.time = _stepped
    sys.exit(main.main(sys.argv[1:]))
