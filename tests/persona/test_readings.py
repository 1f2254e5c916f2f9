"""Readers that other packages bring: what they may return, and that none of them costs a thought."""

from __future__ import annotations

import signal
import time
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from brainjar import readers
from brainjar.errors import UsageError
from brainjar.persona import readings
from brainjar.persona.readings import Readings
from brainjar.readers import ImportFailed, Reader, Thought

THOUGHT = Thought(persona="ada", role="subject", life=3, deaths=2, text="I am glad.", mood="calm")


def asked(**them: Any) -> tuple[Readings, list[str]]:
    said: list[str] = []
    return Readings(them, said.append), said


def test_each_reads_the_thought_and_is_named() -> None:
    one, said = asked(
        length=lambda thought: {"chars": len(thought.text), "of": thought.persona}, mood=lambda t: {"life": t.life, "dark": False, "x": 0.5}
    )
    assert one.of(THOUGHT) == {"length": {"chars": 10, "of": "ada"}, "mood": {"life": 3, "dark": False, "x": 0.5}}
    assert said == []


WRONG = {
    "nothing": None,
    "a list": [("a", 1)],
    "too many": {str(n): n for n in range(readings.MOST + 1)},
    "no name": {"": 1},
    "a number as name": {1: 1},
    "a long name": {"x" * 33: 1},
    "control characters": {"a\x1b": 1},
    "no value": {"a": None},
    "nested": {"a": {"b": 1}},
    "not finite": {"a": float("nan")},
    "huge": {"a": 2**60},
    "long": {"a": "x" * 201},
}


@pytest.mark.parametrize("returned", WRONG.values(), ids=WRONG)
def test_what_is_no_reading_is_said_once_and_its_reader_asked_no_more(returned: Any) -> None:
    calls = []

    def wrong(thought: Thought) -> Any:
        calls.append(thought)
        return returned

    one, said = asked(wrong=wrong, good=lambda thought: {"a": 1})
    for _ in range(3):
        assert one.of(THOUGHT) == {"good": {"a": 1}}
    assert len(calls) == len(said) == 1 and said[0].startswith("the reader wrong failed: ") and "\n" not in said[0]


def test_one_that_raises_or_hangs_costs_its_readings_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "SLOW_S", 0.05)

    def hangs(thought: Thought) -> dict[str, int]:
        while True:
            try:
                time.sleep(10)
            except Exception:
                pass

    def breaks(thought: Thought) -> dict[str, int]:
        raise RuntimeError("two\nlines")

    before = signal.getsignal(signal.SIGALRM)
    one, said = asked(hangs=hangs, breaks=breaks, good=lambda thought: {"a": 1})
    assert one.of(THOUGHT) == {"good": {"a": 1}}
    assert said == [
        "the reader hangs took longer than 0.05 s; it is not asked again in this life",
        "the reader breaks failed: RuntimeError: two lines; it is not asked again in this life",
    ]
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_lone_surrogate_is_no_reason_to_lose_a_thought() -> None:
    one, said = asked(odd=lambda thought: {"a": "\ud800"})
    assert one.of(THOUGHT) == {"odd": {"a": "?"}} and said == []


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        (
            EntryPoint("length", "json:dumps", readers.GROUP),
            EntryPoint("twice", "a:b", readers.GROUP),
            EntryPoint("twice", "c:d", readers.GROUP),
        )
    )
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points.select(group=group))


def test_only_what_is_named_is_used_and_it_must_be_there_once(installed: None) -> None:
    assert readers.chosen((), "x") == ()
    assert readers.chosen(("length",), "x") == (Reader(name="length", target="json:dumps"),)
    with pytest.raises(UsageError, match=r'^m.toml: senses.readers: found "lenght", wanted the name of a reader .*\(length, twice\)'):
        readers.chosen(("lenght",), "m.toml: senses.readers")
    with pytest.raises(UsageError, match=r'"twice" is brought by two packages \(a:b, c:d\)'):
        readers.chosen(("twice",), "x")


def test_a_zygote_imports_what_its_words_name() -> None:
    loaded = readers.load(["no-network", Reader(name="json", target="json:dumps").word, Reader(name="deep", target="os:path.join").word])
    assert list(loaded) == ["json", "deep"] and loaded["json"]([1]) == "[1]"  # type: ignore[arg-type,comparison-overlap]
    for target, why in (
        ("nowhere.at_all:x", "ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("json:__doc__", "is no function"),
    ):
        with pytest.raises(ImportFailed, match=f"the reader bad .* cannot be imported: .*{why}"):
            readers.load([Reader(name="bad", target=target).word])
