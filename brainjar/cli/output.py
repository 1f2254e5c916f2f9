"""A file that a command writes: new, private, whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from brainjar.errors import BrainjarError


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Mode 0600. Raise `BrainjarError` for one that is there already, or cannot be written: half of it is taken away again."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise BrainjarError(f"{path} is there already, and is left as it is; --output names another") from None
    except OSError as error:
        raise BrainjarError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with open(fd, "wb") as file:
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BrainjarError(f"{path} cannot be written: {error.strerror}") from None
        raise
