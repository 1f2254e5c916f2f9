"""`python -m brainjar`."""

import sys

from brainjar.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
