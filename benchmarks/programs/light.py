"""brainjar whose workers hold no model: `python -m benchmarks.programs.light supervise …`. Its zygotes are `hollow`.

A module of its own, so that the supervisor imports nothing of a zygote: its memory is measured.
"""

from __future__ import annotations

import sys

from brainjar.cli import main
from brainjar.supervisor import zygotes

if __name__ == "__main__":
    zygotes.PROGRAM = "benchmarks.programs.hollow"
    sys.exit(main.main(sys.argv[1:]))
