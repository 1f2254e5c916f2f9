"""What a turn begins with, where there is more to hear than room."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from brainjar.persona.opening import Unread, choose


def words(text: str) -> int:
    return len(text.split())


def test_the_newest_is_kept_and_what_it_is_told_goes_before_thoughts() -> None:
    unread = [
        Unread("told", "god died"),
        Unread("heard", "one two three"),
        Unread("said", "hello"),
        Unread("heard", "four five six"),
    ]
    assert choose(unread, 100, words) == ([one.text for one in unread], 0)
    assert choose(unread, 9, words) == (["god died", "hello", "four five six"], 1)
    assert choose(unread, 5, words) == (["god died", "hello"], 2)


def test_of_one_that_is_larger_than_the_room_its_end_is_kept() -> None:
    kept, left_out = choose([Unread("heard", "a " * 50)], 5, words)
    assert left_out == 0 and 0 < words(kept[0]) <= 5


UNREAD = st.lists(st.builds(Unread, st.sampled_from(["thought", "heard", "told", "said"]), st.text("ab ", min_size=1, max_size=40)))


@example([Unread("thought", "a"), Unread("heard", " ")], 1)
@given(UNREAD, st.integers(1, 60))
def test_it_fits_keeps_the_order_and_counts_what_it_leaves_out(unread: list[Unread], room: int) -> None:
    kept, left_out = choose(unread, room, words)
    assert len(kept) + left_out == len(unread)
    assert kept or not unread, "something is heard, if there is anything"
    texts = [one.text for one in unread]
    if len(kept) > 1:
        assert sum(words(text) + 1 for text in kept) <= room
        at = -1
        for text in kept:
            at = texts.index(text, at + 1)
    told = sum(words(one.text) + 1 for one in unread if one.kind != "heard")
    if told <= room:
        assert sum(one.kind != "heard" for one in unread) <= len(kept), "no thought takes the place of what it is told"
