"""How full a disk is, as df shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainjar.watchdog.disk import Disk


def test_it_is_what_df_says(tmp_path: Path) -> None:
    (found,) = Disk(tmp_path).read()
    assert found.key == ("disk", str(tmp_path))
    assert found.value is not None and found.used_bytes is not None and found.total_bytes is not None
    assert found.value == pytest.approx(100 * found.used_bytes / found.total_bytes)
    if shutil.which("df") is None:
        pytest.skip("no df")
    done = subprocess.run(["df", "--output=pcent", str(tmp_path)], capture_output=True, text=True, check=True)
    assert -1 <= int(done.stdout.split()[-1].rstrip("%")) - found.value <= 2, "df rounds up; others write meanwhile"


def test_what_is_kept_for_root_is_neither_in_use_nor_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=1000, f_bfree=500, f_bavail=300, f_frsize=4096))
    (found,) = Disk(tmp_path).read()
    assert (found.value, found.used_bytes, found.total_bytes) == (62.5, 500 * 4096, 800 * 4096)


@pytest.mark.parametrize(("blocks", "free", "available"), [(0, 0, 0), (10, 11, 11), (10, 5, 6), (10, 10, 0)])
def test_counters_that_make_no_sense_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, available: int
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=blocks, f_bfree=free, f_bavail=available, f_frsize=4096))
    (found,) = Disk(tmp_path).read()
    assert (found.value, found.used_bytes) == (None, None)
    assert found.why


def test_what_is_no_disk_and_what_is_not_there_have_a_reason(tmp_path: Path) -> None:
    (none,) = Disk(tmp_path / "nowhere").read()
    assert (none.value, none.why) == (None, "No such file or directory")
    (proc,) = Disk(Path("/proc")).read()
    assert (proc.value, proc.why) == (None, "its file system tells no size")
