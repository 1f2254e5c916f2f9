"""A copy of the running program, kept aside: what an upgrade goes back to when the new version does not take over.

The files that this process was loaded from may be replaced at any time, which is what an upgrade is; so they are copied when it
starts, into a directory that is named after what is in them.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from brainjar import __version__, paths

VERSIONS: Final = "versions"
WHOLE: Final = paths.KEPT_ASIDE
_KEPT: Final = frozenset({".py", ".md", ".toml", ".typed", ".service", ".conf", ".html", ".js", ".css", ".svg"})


def mark() -> str:
    """Names the code that is on disk where this package was loaded from. Raise OSError."""
    checksum = 0
    for name, path in _files():
        checksum = zlib.crc32(path.read_bytes(), zlib.crc32(name.encode(), checksum))
    return f"{__version__}-{checksum:08x}"


def keep(state_dir: Path) -> tuple[Path, str]:
    """Have a copy of this package below `state_dir`; return its directory and its mark. Raise OSError where there is no room."""
    if (own := paths.kept_aside()) is not None:
        return own, own.name
    name = mark()
    versions = state_dir / VERSIONS
    place = versions / name
    if not (place / WHOLE).exists():
        versions.mkdir(mode=0o700, exist_ok=True)
        new = versions / f"{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            for relative, path in _files():
                target = new / paths.PACKAGE.name / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            (new / WHOLE).touch()
            shutil.rmtree(place, ignore_errors=True)
            new.rename(place)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
    for other in versions.iterdir():
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    return place, name


def _files() -> Iterator[tuple[str, Path]]:
    """(path below the package, file) of all that makes it up, in a fixed order."""
    for folder, folders, files in os.walk(paths.PACKAGE, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            path = Path(folder) / name
            if path.suffix in _KEPT:
                yield str(path.relative_to(paths.PACKAGE)), path
