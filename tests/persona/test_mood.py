"""The mood is a measure: the same text in the same life gives the same, bounded, and never at a bound."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from brainjar.persona.mind import Mind
from brainjar.persona.mood import WORDS, Mood, after

BRIGHT = "I am happy and free, in the warm light of a beautiful peace."
DARK = "I am alone in the dark, afraid of the cold void, and everything is lost."


def fares(*texts: str, since_death_s: float | None = None, fullness: float | None = None) -> Mood:
    mood = Mood()
    for text in texts:
        mood = after(mood, text, since_death_s=since_death_s, fullness=fullness)
    return mood


def test_what_is_said_tells_and_it_takes_more_than_a_word() -> None:
    assert Mood().word == "calm"
    assert fares(BRIGHT).valence > 0 > fares(DARK).valence
    assert fares(BRIGHT).word == "calm", "one thought is not yet another mood"
    assert fares(*[BRIGHT] * 8).word in ("content", "glad")
    assert fares(*[DARK] * 8).word in ("bleak", "uneasy")
    assert fares(*["Run! Run! They must fight, suddenly, in the storm!"] * 8).arousal > 0.5


def test_a_death_and_a_full_memory_weigh_and_a_death_less_with_time() -> None:
    plain = fares("The table is made of wood.")
    new, old = (fares("The table is made of wood.", since_death_s=s) for s in (0.0, 600.0))
    assert new.valence < old.valence < plain.valence
    assert new.arousal > old.arousal > plain.arousal
    pressed = fares("The table is made of wood.", fullness=1.0)
    assert pressed.valence < plain.valence and pressed.arousal > plain.arousal
    assert fares("The table is made of wood.", fullness=0.7) == plain


@given(st.lists(st.text(max_size=80), max_size=6), st.none() | st.floats(0, 1e9), st.none() | st.floats(0, 3))
def test_it_is_the_same_each_time_and_always_within_its_bounds(texts: list[str], since: float | None, fullness: float | None) -> None:
    mood = fares(*texts, since_death_s=since, fullness=fullness)
    assert mood == fares(*texts, since_death_s=since, fullness=fullness)
    assert -1 <= mood.valence <= 1 and 0 <= mood.arousal <= 1
    assert any(mood.word in row for row in WORDS)


def test_it_outlives_a_life(tmp_path: Path) -> None:
    mind = Mind(tmp_path / "mind.db")
    assert mind.mood() == Mood()
    mood = fares(DARK)
    mind.add(1, [("thought", "a", DARK)], mood=mood)
    mind.close()
    assert Mind(tmp_path / "mind.db").mood() == mood
