"""What doctor says of where the state is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from brainjar.isolation import storage
from tests.system.harness import until


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "mountinfo").write_text(text)
    return tmp_path / "proc"


def test_this_very_place_is_on_what_the_kernel_says(tmp_path: Path) -> None:
    said = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout.strip()
    assert (storage.file_system(tmp_path) or "")[:3] == said.replace("ext2/ext3", "ext4")[:3]


def test_a_state_in_memory_is_said_with_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "m e"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "brainjar-test", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        found = storage.survey(place / "not" / "there" / "yet", 4 << 30)
    finally:
        until(lambda: subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0)
    assert (found.state, found.group) == ("no", "host")
    assert "tmpfs" in found.value and "4 GiB a day" in found.value
    assert "reboot" in found.consequence and "jar.state_dir" in found.how


def test_a_number_that_is_not_in_the_table_is_that_of_the_deepest_mount_on_the_way(tmp_path: Path) -> None:
    deep = tmp_path / "süb vol"
    deep.mkdir()
    escaped = str(deep).replace(" ", r"\040")
    mounts = ("/ rw - ext4 /dev/a rw", f"{escaped} rw shared:1 - btrfs /dev/b rw", f"{deep}x rw - tmpfs t rw")
    proc = table(tmp_path, "".join(f"{n} 0 999:{n} / {mount}\n" for n, mount in enumerate(mounts)) + "short\n")
    assert storage.file_system(deep, proc) == "btrfs"
    assert storage.file_system(tmp_path, proc) == "ext4"


def test_where_the_kernel_says_nothing_nothing_is_claimed(tmp_path: Path) -> None:
    assert storage.file_system(tmp_path, tmp_path / "nowhere") is None
    assert storage.file_system(tmp_path / "gone") is None
    found = storage.survey(tmp_path, 0, tmp_path / "nowhere")
    assert found.state == "n/a"
    assert "snapshots.disk is off" in found.value


def test_where_snapshots_are_off_it_is_said(tmp_path: Path) -> None:
    assert "snapshots.disk is off" in storage.survey(tmp_path, 0).value
