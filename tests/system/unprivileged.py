"""A jar of somebody who is not root, on a machine where the tests are: another uid, and a Python that it can reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def why_not() -> str:
    """Why there can be none here; "" where there can."""
    if os.geteuid() != 0:
        return "these tests are not run by root, so the others show it already"
    if shutil.which("setpriv") is None:
        return "there is no setpriv"
    if _python() is None:
        return "no Python of this version that another user can reach"
    return "" if _reachable(Path(__file__)) else "the checkout is not reachable for others"


def _reachable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _python() -> str | None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if not os.path.exists(candidate) or not _reachable(Path(candidate)):
            continue  # setpriv would start it all the same, with what it still has of root
        done = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", candidate, "-c", "import sqlite3, ctypes"],
            capture_output=True,
            check=False,
            cwd="/",
        )
        if done.returncode == 0:
            return candidate
    return None


@contextmanager
def home() -> Iterator[tuple[Path, list[str]]]:
    """(a directory of nobody's, what makes `brainjar` run as nobody)."""
    place = Path(tempfile.mkdtemp(prefix="bj-", dir="/tmp"))
    try:
        python = _python()
        assert python is not None
        # an environment of three files: their Python, our packages
        packages = place / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages.mkdir(parents=True)
        (packages / "site-packages").symlink_to(sysconfig.get_paths()["purelib"])
        (place / "venv" / "pyvenv.cfg").write_text(f"home = {os.path.dirname(python)}\n")
        (place / "venv" / "bin").mkdir()
        (place / "venv" / "bin" / "python").symlink_to(python)
        (place / "jar").mkdir()
        os.chown(place, NOBODY, NOBODY)
        os.chown(place / "jar", NOBODY, NOBODY)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", str(place / "venv" / "bin" / "python"), "-m"]
        yield place / "jar", command
    finally:
        shutil.rmtree(place)
