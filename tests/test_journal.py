"""Journals are bounded: SQLite's log is given back after a checkpoint, no reader of ours keeps it, and a stranger who does is told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainjar import journal, minds
from brainjar.ledger import Ledger
from brainjar.persona.mind import Mind

LINE = "x" * 100_000


@pytest.fixture
def mind(tmp_path: Path) -> Iterator[Mind]:
    mind = Mind(tmp_path / "mind.db")
    yield mind
    mind.close()


def log(tmp_path: Path, name: str = "mind.db") -> int:
    return os.stat(tmp_path / f"{name}-wal").st_size


def think(mind: Mind, lines: int) -> None:
    for _ in range(lines):
        mind.add(1, [("thought", "subject", LINE)])


def test_the_log_of_a_mind_stays_small_however_much_is_written(mind: Mind, tmp_path: Path) -> None:
    think(mind, 300)
    assert log(tmp_path) < 8 << 20
    assert mind.journal.trouble() == ""


def test_what_a_long_reader_made_grow_is_told_and_given_back_after_it(mind: Mind, tmp_path: Path) -> None:
    think(mind, 1)
    reader = sqlite3.connect(f"{(tmp_path / 'mind.db').as_uri()}?mode=ro", uri=True)
    query = reader.execute("SELECT id FROM lines UNION ALL SELECT id FROM lines")
    query.fetchone()
    think(mind, journal.TOLD_BYTES // len(LINE) + 20)
    said = mind.journal.trouble()
    assert str(tmp_path / "mind.db") in said and "MiB" in said
    assert mind.journal.trouble() == "", "it is said once"
    think(mind, journal.TOLD_BYTES // len(LINE) + 60)
    assert mind.journal.trouble() != "", "and again when it has doubled"
    query.close()
    reader.close()
    think(mind, 60)
    assert log(tmp_path) < 8 << 20
    assert mind.journal.trouble() == ""


def test_a_journal_that_was_small_again_is_told_again(tmp_path: Path) -> None:
    watched, file = journal.Journal(tmp_path / "a.db"), tmp_path / "a.db-wal"
    assert watched.trouble() == "", "there is none"
    large, small = journal.TOLD_BYTES + 1, journal.KEPT_BYTES
    for size, told in ((large, True), (large + 1, False), (small, False), (large, True)):
        file.touch()
        os.truncate(file, size)
        assert bool(watched.trouble()) == told, size


def test_who_reads_a_mind_slowly_does_not_keep_its_log(mind: Mind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minds, "PAGE_LINES", 2)
    think(mind, 5)
    lines = minds.read_lines(tmp_path / "mind.db")
    first = next(lines)  # and then the pager waits for its user
    think(mind, 300)
    assert log(tmp_path) < 8 << 20
    assert [first.id, *(line.id for line in lines)] == list(range(1, 306)), "nothing is left out between two pages"


def test_the_log_of_a_ledger_stays_small_as_well(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for n in range(1, 300):
        ledger.begin("subject", n, 1, 1.0)
        ledger.failed_start("subject", n, 2.0, LINE)
        assert ledger.commit()
    assert log(tmp_path, "ledger.db") < 8 << 20
    assert ledger.journal_file.trouble() == ""
    ledger.close()
