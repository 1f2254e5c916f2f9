"""The durable record, on a real SQLite: what is committed is there for ever, what is damaged is set aside, a full disk loses nothing."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainjar.ledger import SUPERVISOR_LOST, Ledger, Record, read_deaths
from brainjar.messages import Death, Envelope, LastDeath, encode


def death(persona: str, n: int, deaths: int | None = None, **more: object) -> Death:
    fields = {"persona": persona, "life": n, "birth": n, "at": 100.0 + n, "cause": "segv", "signal": 11, "deaths": deaths or n} | more
    return Death(**fields)  # type: ignore[arg-type]


def event(epoch: int, seq: int, type: str = "DEATH", content: str = "") -> tuple[Envelope, bytes]:
    envelope = Envelope(type=type, timestamp=1.0, sender_id="subject", content=content, epoch=epoch, seq=seq)  # type: ignore[arg-type]
    return envelope, encode(envelope)


def die(ledger: Ledger, persona: str, n: int) -> None:
    ledger.begin(persona, n, n, 100.0)
    ledger.arrived(persona, n, 4000 + n)
    ledger.ready(persona, n, 101.0)
    ledger.died(death(persona, n))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close()


# ── births and their ends ──


def test_a_new_ledger_knows_nothing(ledger: Ledger) -> None:
    assert ledger.record("subject") == Record()
    assert ledger.epoch == 1
    assert ledger.set_aside is None
    assert ledger.unpublished() == []
    assert ledger.close_open_lives(1.0) == []


def test_counts_survive_and_each_persona_has_its_own(path: Path) -> None:
    ledger = Ledger(path)
    for n in (1, 2, 3):
        die(ledger, "subject", n)
    ledger.begin("god", 1, 1, 100.0)
    ledger.failed_start("god", 1, 101.0, "no memory")
    ledger.begin("god", 2, 1, 102.0)
    ledger.ready("god", 2, 103.0)
    ledger.stopped("god", 2, 104.0)
    ledger.close()
    again = Ledger(path)
    last = LastDeath(cause="segv", signal=11, exit_code=None, at=103.0)
    assert again.record("subject") == Record(deaths=3, births=3, last_death=last)
    assert again.record("god") == Record(deaths=0, births=2)
    assert again.lived("god", 1)
    assert not again.lived("god", 2)
    assert again.epoch == 2
    again.close()
    assert [d.life for d in read_deaths(path)] == [1, 2, 3]
    assert read_deaths(path, "god") == []


def test_a_birth_ends_once_whatever_is_said_later(ledger: Ledger, path: Path) -> None:
    die(ledger, "subject", 1)
    ledger.died(death("subject", 1, cause="abort"))
    ledger.stopped("subject", 1, 9.0)
    ledger.failed_start("subject", 1, 9.0, "no")
    assert ledger.commit()
    assert [d.cause for d in read_deaths(path)] == ["segv"]
    assert ledger.record("subject").deaths == 1


def test_every_field_of_a_death_is_read_back(ledger: Ledger, path: Path) -> None:
    written = death("subject", 1, last_words="I was ü \x00", tokens=2**60, peak_private_bytes=5, exit_code=None, age_s=1.5)
    ledger.begin("subject", 1, 1, 1.0)
    ledger.died(written)
    assert ledger.commit()
    assert read_deaths(path) == [written]


def test_lives_found_open_are_closed_once_as_lost_with_their_supervisor(path: Path) -> None:
    killed = Ledger(path)
    die(killed, "subject", 1)
    killed.begin("subject", 2, 2, 100.0)
    killed.arrived("subject", 2, 4242)
    killed.ready("subject", 2, 101.0)
    killed.begin("god", 1, 1, 100.0)  # forked, never ready
    killed.begin("observer", 1, 1, 100.0)
    killed.ready("observer", 1, 101.0)
    killed.stopped("observer", 1, 102.0)
    assert killed.commit()
    del killed

    ledger = Ledger(path)
    (lost,) = ledger.close_open_lives(200.0)
    assert (lost.persona, lost.life, lost.birth, lost.cause, lost.pid, lost.deaths) == ("subject", 2, 2, SUPERVISOR_LOST, 4242, 2)
    assert lost.age_s == 100.0
    assert ledger.close_open_lives(201.0) == []
    ledger.close()
    again = Ledger(path)
    assert again.close_open_lives(202.0) == []
    assert again.record("subject").deaths == 2
    assert again.record("god") == Record(deaths=0, births=1), "what was never ready has not died"
    assert again.record("observer").deaths == 0
    again.close()


def test_what_is_queued_is_in_the_file_only_after_the_commit_and_then_all_of_it(ledger: Ledger, path: Path) -> None:
    die(ledger, "subject", 1)
    die(ledger, "god", 1)
    assert ledger.pending() == 8
    assert read_deaths(path) == []
    assert ledger.commit()
    assert ledger.pending() == 0
    assert {d.persona for d in read_deaths(path)} == {"subject", "god"}
    assert ledger.commit()


def test_a_commit_is_one_transaction(ledger: Ledger, path: Path) -> None:
    """A death and its announcement are on record together or not at all, and both are kept for the next try."""
    die(ledger, "subject", 1)
    ledger._queue.append(("INSERT INTO nowhere VALUES (1)", ()))
    assert not ledger.commit()
    assert "nowhere" in (ledger.error or "")
    assert read_deaths(path) == []
    assert ledger.pending() == 5
    ledger._queue.pop()
    assert ledger.commit()
    assert ledger.error is None
    assert len(read_deaths(path)) == 1


def test_what_was_committed_outlives_a_kill(path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom brainjar.ledger import Ledger\nfrom brainjar.messages import Death\n"
        "l = Ledger(Path(sys.argv[1]))\n"
        "for n in range(1, 6):\n"
        "    l.begin('subject', n, n, 1.0); l.ready('subject', n, 2.0)\n"
        "    l.died(Death(persona='subject', life=n, birth=n, at=3.0, cause='segv'))\n"
        "    assert l.commit()\n"
        "l.begin('subject', 6, 6, 1.0)\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    ledger = Ledger(path)
    assert ledger.set_aside is None
    assert ledger.record("subject").deaths == 5
    assert ledger.record("subject").births == 5, "what was not committed was never there"
    ledger.close()


# ── the journal ──


def test_what_was_committed_and_not_published_is_left_for_the_next_supervisor(path: Path) -> None:
    first = Ledger(path)
    events = [event(first.epoch, seq) for seq in (1, 2, 3)]
    for envelope, body in events:
        first.keep(envelope, body)
    assert first.commit()
    first.published(events[0][0])
    assert first.commit()
    assert first.unpublished() == [], "its own are not replayed to itself"
    first.close()
    second = Ledger(path)
    assert second.unpublished() == [events[1][0], events[2][0]]
    for envelope in second.unpublished():
        second.published(envelope)
    second.close()
    third = Ledger(path)
    assert third.unpublished() == []
    assert [seq for seq, _ in third.journal(1, 0, 99)] == [1, 2, 3], "published or not, it stays"
    third.close()


def test_the_journal_gives_what_was_asked_for_in_order(ledger: Ledger) -> None:
    for seq in (5, 1, 9, 3):
        ledger.keep(*event(1, seq))
    ledger.keep(*event(2, 4))
    assert ledger.commit()
    assert [seq for seq, _ in ledger.journal(1, 1, 5)] == [3, 5]
    assert ledger.journal(1, 0, 1) == [(1, event(1, 1)[1])]
    assert ledger.journal(7, 0, 99) == []
    assert (ledger.last_seq(1), ledger.last_seq(2), ledger.last_seq(3)) == (9, 4, 0)


def test_numbers_of_an_epoch_are_never_given_twice_even_if_the_count_of_epochs_is_lost(path: Path) -> None:
    first = Ledger(path)
    first.keep(*event(7, 1))
    first.close()
    assert Ledger(path).epoch == 8


# ── damage ──


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("real") / "ledger.db"
    ledger = Ledger(path)
    for n in range(1, 40):
        die(ledger, "subject", n)
        ledger.keep(*event(1, n, content="x" * 200))
    ledger.close()
    return path.read_bytes()


def use(ledger: Ledger) -> None:
    """All that a supervisor does with it while it starts."""
    assert ledger.record("subject").deaths >= 0
    ledger.lived("subject", 1)
    ledger.unpublished()
    ledger.journal(1, 0, 100)
    ledger.close_open_lives(9.0)
    die(ledger, "newcomer", 1)
    ledger.keep(*event(ledger.epoch, 1))
    assert ledger.commit(), ledger.error
    assert ledger.record("newcomer").deaths == 1


def opened(path: Path, content: bytes) -> None:
    """Open a file of `content`: it works, or is set aside as it was, or cannot be used and is left as it was."""
    path.parent.mkdir()
    path.write_bytes(content)
    try:
        ledger = Ledger(path)
    except sqlite3.OperationalError:
        assert path.read_bytes() == content
        return
    if ledger.set_aside is not None:
        assert ledger.set_aside.read_bytes() == content, "what was set aside was changed"
        assert ledger.record("subject") == Record()
    use(ledger)
    ledger.close()


def test_a_ledger_cut_short_anywhere_is_set_aside_as_it_was(real: bytes, tmp_path: Path) -> None:
    for length in sorted({0, 1, 15, 16, 99, 100, 512, 4095, 4096, 4097, *range(0, len(real), 1777), len(real) - 1}):
        opened(tmp_path / str(length) / "ledger.db", real[:length])


def test_a_ledger_with_flipped_bytes_is_used_or_set_aside_but_never_in_the_way(real: bytes, tmp_path: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        content = bytearray(real)
        where = 100 if seed % 3 == 0 else len(content)  # every third in the header
        for _ in range(rng.choice([1, 4, 100])):
            content[rng.randrange(where)] = rng.randrange(256)
        opened(tmp_path / str(seed) / "ledger.db", bytes(content))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=3000))
def test_whatever_the_file_is_it_is_a_ledger_afterwards(content: bytes, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    opened(tmp_path / "x" / "ledger.db", content)


def test_what_a_flipped_bit_has_made_unreadable_is_still_a_death_that_counts(ledger: Ledger, path: Path) -> None:
    for n in (1, 2, 3):
        die(ledger, "subject", n)
    assert ledger.commit()
    ledger._db.execute("UPDATE births SET death = x'7bff' WHERE birth = 2")
    assert ledger.record("subject").deaths == 3
    ledger._db.execute("UPDATE births SET death = x'00' WHERE birth = 3")
    assert ledger.record("subject") == Record(deaths=3, births=3), "what the last one says is lost, that it was is not"
    assert [d.life for d in read_deaths(path)] == [1]


def test_each_damaged_file_gets_a_name_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times within one second: nothing that was set aside is overwritten."""
    monkeypatch.setattr(time, "strftime", lambda _: "20260101T000000")
    names = []
    for n in range(3):
        content = b"no ledger %d" % n * 100
        path.write_bytes(content)
        for beside in (path.with_name("ledger.db-wal"), path.with_name("ledger.db-shm")):
            beside.unlink(missing_ok=True)
        ledger = Ledger(path)
        assert ledger.set_aside is not None
        names.append(ledger.set_aside)
        ledger.close()
    assert [name.read_bytes()[:11] for name in names] == [b"no ledger 0", b"no ledger 1", b"no ledger 2"]
    assert len(set(names)) == 3
    assert all(name.parent == path.parent and name.name.startswith("ledger.db.damaged-") for name in names)


@pytest.mark.parametrize("value", ["'text'", "-1", "9223372036854775807", "x'00'", "1.5", "NULL"])
def test_a_count_of_epochs_that_is_none_is_damage(path: Path, value: str) -> None:
    first = Ledger(path)
    first._db.execute(f"UPDATE meta SET value = {value} WHERE key = 'epoch'")
    first.close()
    ledger = Ledger(path)
    assert ledger.set_aside is not None
    assert ledger.epoch == 1
    ledger.close()


def test_a_directory_in_its_place_or_nobody_s_permission_is_an_operational_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        Ledger(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.OperationalError):
        Ledger(tmp_path / "nowhere" / "ledger.db")


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "ü"])
def test_it_is_read_from_outside_whatever_its_directory_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "ledger.db"
    path.parent.mkdir()
    ledger = Ledger(path)
    die(ledger, "subject", 1)
    assert ledger.commit()
    assert len(read_deaths(path)) == 1
    ledger.close()
    assert read_deaths(tmp_path / "nowhere.db") == []


# ── a full disk ──


def fill_by_pages(ledger: Ledger) -> Callable[[], None]:
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")

    def free() -> None:
        ledger._db.execute("PRAGMA max_page_count = 1000000")

    return free


def test_a_full_disk_loses_nothing_and_says_so(ledger: Ledger, path: Path) -> None:
    die(ledger, "subject", 1)
    assert ledger.commit()
    free = fill_by_pages(ledger)
    written = 1
    while ledger.commit():
        written += 1
        die(ledger, "subject", written)
    assert "full" in (ledger.error or "")
    pending = ledger.pending()
    assert pending == 4
    die(ledger, "subject", written + 1)
    assert not ledger.commit()
    assert ledger.pending() == pending + 4
    assert len(read_deaths(path)) == written - 1, "half a commit is in the file"
    free()
    assert ledger.commit()
    assert ledger.error is None
    assert [d.life for d in read_deaths(path)] == list(range(1, written + 2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=False, capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_disk_that_is_really_full(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    ledger = Ledger(path)
    die(ledger, "subject", 1)
    assert ledger.commit()
    with open(small_disk / "filler", "wb") as filler, pytest.raises(OSError, match="No space"):
        while True:
            os.write(filler.fileno(), bytes(4096))
    written = 1
    while ledger.commit():
        written += 1
        die(ledger, "subject", written)
        assert written < 10_000
    assert ledger.error
    with pytest.raises(sqlite3.OperationalError):
        ledger.close_open_lives(9.0)
    (small_disk / "filler").unlink()
    assert ledger.commit()
    ledger.close()
    assert [d.life for d in read_deaths(path)] == list(range(1, written + 1))
    assert Ledger(path).set_aside is None
