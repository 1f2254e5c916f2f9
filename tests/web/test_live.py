"""What one that listens is told: each event once and in order, whether it was said before it came, while it came, or after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brainjar.client.find import Jar
from brainjar.errors import NoJar
from brainjar.web import live
from brainjar.web.door import Door
from brainjar.web.live import RESET, Live
from brainjar.web.stream import Id, Said, Stream


def said(seq: int) -> Said:
    return Said(Id(1, seq), "THOUGHT", b"{}")


def no_jar() -> Jar:
    raise NoJar("none")


def told(tmp_path: Path, last: str, *, before: range, meanwhile: range, after: range) -> list[Said]:
    async def run() -> list[Said]:
        stream = Stream()
        one = Live(stream, Door(tmp_path), no_jar)
        for seq in before:
            stream.say(said(seq))
        listener = one._join()
        for seq in meanwhile:
            stream.say(said(seq))
        found = []

        async def hear() -> None:
            async for event in one._said(listener, last):
                found.append(event)

        hears = asyncio.create_task(hear())
        while listener.queue.qsize() and not found:
            await asyncio.sleep(0)
        for seq in after:
            stream.say(said(seq))
        while listener.queue.qsize():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        listener.close()
        await hears
        return found

    return asyncio.run(run())


def test_each_is_told_once(tmp_path: Path) -> None:
    found = told(tmp_path, "1.2", before=range(1, 4), meanwhile=range(4, 6), after=range(6, 8))
    assert [one.id.seq for one in found] == [3, 4, 5, 6, 7]
    found = told(tmp_path, "", before=range(1, 4), meanwhile=range(4, 6), after=range(6, 8))
    assert [one.id.seq for one in found] == [4, 5, 6, 7], "who has heard nothing begins now"


@pytest.mark.parametrize("last", ["1.99", "7.1", "nonsense"])
def test_what_nobody_knows_is_said_to_be_lost(tmp_path: Path, last: str) -> None:
    found = told(tmp_path, last, before=range(1, 4), meanwhile=range(4, 4), after=range(4, 6))
    assert found[0] is RESET and [one.id.seq for one in found[1:]] == [4, 5]


def test_what_the_jar_itself_still_holds_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "earlier", lambda jar, id: [said(seq) for seq in range(id.seq + 1, 5)])

    async def run() -> list[int]:
        stream = Stream()
        one = Live(stream, Door(tmp_path), lambda: None)  # type: ignore[arg-type,return-value]
        listener = one._join()
        stream.say(said(4))
        stream.say(said(5))
        listener.queue.put_nowait(None)
        return [event.id.seq async for event in one._said(listener, "1.1")]

    assert asyncio.run(run()) == [2, 3, 4, 5]
