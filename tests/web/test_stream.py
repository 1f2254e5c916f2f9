"""What many hear of one bus: kept in bounds, told again to who comes back, and nobody waits for who is slow."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.client import find
from brainjar.web import stream
from brainjar.web.stream import Ear, Full, Id, Listener, Ring, Said, Stream
from tests.fakejar import FakeJar
from tests.patience import PATIENCE_S


def said(seq: int, epoch: int = 1, size: int = 10) -> Said:
    return Said(Id(epoch, seq), "THOUGHT", b"x" * size)


def test_ids_are_read_as_they_are_written_and_nothing_else_is() -> None:
    assert Id.parse(str(Id(3, 77))) == Id(3, 77) and Id(1, 99) < Id(2, 1)
    for text in ("", "1", "1.", ".1", "a.b", "1.2.3", "-1.2", "1.²", "1" * 50 + ".1"):
        assert Id.parse(text) is None, text


def test_what_is_held_is_told_again_and_what_is_not_is_no_guess() -> None:
    ring = Ring(events=5)
    assert ring.after(Id(1, 3)) is None, "nothing is known of it yet"
    for seq in range(4, 9):
        ring.append(said(seq))
    assert [one.id.seq for one in ring.after(Id(1, 5)) or ()] == [6, 7, 8]
    assert ring.after(Id(1, 8)) == [] and len(ring.after(Id(1, 3)) or ()) == 5
    assert ring.after(Id(1, 2)) is None, "event 3 was said before anybody held it"
    assert ring.after(Id(1, 9)) is None and ring.after(Id(2, 1)) is None, "of another past"
    for seq in range(9, 12):
        ring.append(said(seq))
    assert ring.after(Id(1, 5)) is None and [one.id.seq for one in ring.after(Id(1, 6)) or ()] == [7, 8, 9, 10, 11]
    ring.append(said(1, epoch=2))
    assert [str(one.id) for one in ring.after(Id(1, 10)) or ()] == ["1.11", "2.1"]


@given(st.lists(st.integers(0, 3000), max_size=200))
def test_it_is_bounded_by_number_and_by_bytes(sizes: list[int]) -> None:
    ring = Ring(events=20, bytes=10_000)
    for seq, size in enumerate(sizes, 1):
        ring.append(said(seq, size=size))
        assert len(ring) <= 20
        assert ring._size == sum(len(one.body) for one in ring._held) and (ring._size <= 10_000 or len(ring) == 1)


def test_who_is_too_slow_is_closed_and_nobody_else_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "QUEUE", 8)

    async def run() -> None:
        made = Stream()
        slow, quick = made.join(), made.join()
        heard = []
        for seq in range(1, 21):
            made.say(said(seq))
            one = quick.queue.get_nowait()
            assert one is not None
            heard.append(one.id.seq)
        assert heard == list(range(1, 21))
        assert slow.closed and slow.queue.get_nowait() is None and slow.queue.empty()
        made.leave(slow)
        made.end()
        assert quick.queue.get_nowait() is None and made.listeners == 1

    asyncio.run(run())


def test_there_are_so_many_listeners_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LISTENERS", 3)

    async def run() -> None:
        made = Stream()
        there = [made.join() for _ in range(3)]
        with pytest.raises(Full):
            made.join()
        made.leave(there[0])
        assert isinstance(made.join(), Listener)

    asyncio.run(run())


def test_the_ear_hears_the_bus_over_the_end_of_its_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AGAIN_S", 0.05)

    async def run() -> None:
        heard: list[Said] = []
        state = tmp_path / "test-state"
        ear = Ear(lambda: find.find(None, state), heard.append, asyncio.get_running_loop())
        ear.start()

        async def until(words: bytes) -> None:
            end = time.monotonic() + PATIENCE_S
            while not any(words in one.body for one in heard):
                assert time.monotonic() < end, (ear.why, heard[-3:])
                await asyncio.sleep(0.02)

        try:
            await asyncio.sleep(0.1)
            assert "no jar runs" in ear.why
            for epoch in (1, 2):
                with FakeJar(tmp_path, epoch=epoch) as jar:
                    end = time.monotonic() + PATIENCE_S
                    while not any(one.id.epoch == epoch for one in heard):
                        assert time.monotonic() < end, ear.why
                        await asyncio.sleep(0.02)
                    jar.say("THOUGHT", "subject", f"in epoch {epoch}", life=1)
                    await until(f"in epoch {epoch}".encode())
                (jar.runtime_dir / "control").unlink()
            assert {one.id.epoch for one in heard} == {1, 2}
        finally:
            await asyncio.to_thread(ear.stop)

    asyncio.run(run())
