"""A drill that was killed cannot clear up; the next one does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from brainjar.cli import drill


def test_what_killed_drills_left_is_removed_and_what_live_ones_hold_is_not(tmp_path: Path) -> None:
    for name in ("brainjar-drill-dead", "brainjar-drill-alive", "brainjar-drill-new", "somebody-else"):
        (tmp_path / name / "state").mkdir(parents=True)
        then = time.time() - (0 if name.endswith("new") else 2 * drill.NEW_S)
        os.utime(tmp_path / name, (then, then))
    (tmp_path / "brainjar-drill-file").touch()
    (tmp_path / "brainjar-drill-link").symlink_to(tmp_path / "somebody-else")
    held = drill._held(tmp_path / "brainjar-drill-alive")
    assert held is not None
    drill._clear(tmp_path)
    os.close(held)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["brainjar-drill-alive", "brainjar-drill-file", "brainjar-drill-link", "brainjar-drill-new", "somebody-else"]
    assert (tmp_path / "somebody-else" / "state").is_dir()
    drill._clear(tmp_path)
    assert not (tmp_path / "brainjar-drill-alive").exists(), "it is held no more"
