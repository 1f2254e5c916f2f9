"""python -m brainjar.web PARENT DESCRIPTOR STATE_DIR SETTINGS

The dashboard as a supervisor runs it: gone when its parent is, the first to go when memory is short, and with a bound of its own on
it. With each beat of its loop it writes a byte to DESCRIPTOR.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from brainjar.errors import BrainjarError
from brainjar.isolation import bonds

OOM_SCORE_ADJ: Final = 900
"""Before any worker."""
NICE: Final = 5
MEMORY: Final = 1 << 30
DESCRIPTORS: Final = 1024


def main() -> int:
    from brainjar.config import Web
    from brainjar.web.app import Settings
    from brainjar.web.server import serve

    parent, beats = int(sys.argv[1]), int(sys.argv[2])
    settings = Settings(state_dir=Path(sys.argv[3]), web=msgspec.json.decode(sys.argv[4], type=Web))
    try:
        bonds.die_with(parent)
        _humble()
        serve(settings, beats)
    except bonds.NotTied:
        return 1
    except BrainjarError as error:
        print(f"brainjar web: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _humble() -> None:
    os.nice(NICE)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OOM_SCORE_ADJ))
    for limit, most in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_NOFILE, DESCRIPTORS), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, bound))


if __name__ == "__main__":
    sys.exit(main())
