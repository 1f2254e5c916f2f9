"""What writes a file that a person asked for, on a disk that is full: one line, no half of a file, and what was there is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainjar.cli.main import main
from brainjar.ledger import Ledger
from brainjar.persona.mind import Mind

SIZE = 256 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a jar whose mind is larger than that."""
    root = tmp_path / "state"
    mind = Mind(root / "minds" / "ada" / "mind.db")
    for n in range(200):
        mind.add(1, [("thought", "ada", f"{n} " + "x" * 2000)])
    mind.close()
    Ledger(root / "ledger.db").close()
    (root / "lock").touch()
    return root


def fill(small: Path) -> None:
    with (small / "fill").open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            os.write(file.fileno(), bytes(4096))


@pytest.mark.parametrize("command", ["export", "report", "init"])
def test_what_does_not_fit_is_said_and_nothing_of_it_is_left(
    small: Path, state: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command != "export":
        fill(small)
    before = sorted(small.iterdir())
    where = small / "file"
    args = ["init", "single"] if command == "init" else [command, "--state-dir", str(state)]
    assert main([*args, "--output", str(where)]) == 1
    assert capsys.readouterr().err == f"brainjar {command}: {where} cannot be written: No space left on device\n"
    assert sorted(small.iterdir()) == before


def test_an_import_that_does_not_fit_makes_no_mind(small: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "minds.jsonl"
    assert main(["export", "--state-dir", str(state), "--output", str(exported)]) == 0
    into = small / "state"
    assert main(["import", str(exported), "--state-dir", str(into)]) == 1
    assert "nothing is imported" in capsys.readouterr().err
    assert not list(into.glob("minds/*"))
