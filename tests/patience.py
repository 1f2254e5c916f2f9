"""How long a test waits for what must come. Nothing that works comes near it, on a busy machine or a slow disk either."""

import os
from typing import Final

PATIENCE_S: Final = float(os.environ.get("BRAINJAR_TEST_PATIENCE", "240"))
GONE_S: Final = 1.0
"""What README promises, and no patience: by then nothing of a jar outlives its supervisor."""
EMULATED: Final = PATIENCE_S > 300
"""It is a machine so slow that whoever runs the tests there has said so (`tests/vm/suite`)."""
