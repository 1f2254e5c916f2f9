"""What a persona is to hear is kept until it stands in its mind, in order, once, within bounds."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from brainjar.messages import Heard
from brainjar.supervisor.mail import BYTES, LETTERS, Mailbox


def said(n: int, size: int = 1) -> Heard:
    return Heard(by="subject", life=1, text=f"{n}:" + "x" * size)


def post(box: Mailbox, *numbers: int) -> None:
    for n in numbers:
        box.post(said(n))


def texts(letters: list[object]) -> list[str]:
    return [letter.text for letter in letters]  # type: ignore[attr-defined]


def test_what_is_noted_is_kept_no_more_and_the_rest_comes_again() -> None:
    box = Mailbox()
    post(box, 1, 2, 3)
    box.noted(2)
    assert [one.no for one in box.waiting()] == [3]
    assert box.has(2) and not box.has(3)
    assert [one.no for one in box.begin(2)] == [3]
    assert [one.no for one in box.begin(3)] == []


def test_a_worker_that_lies_about_what_it_has_is_not_believed() -> None:
    box = Mailbox()
    post(box, 1, 2, 3)
    box.noted(2)
    for lie in (99, 1, 0):
        box.noted(lie)
        assert [one.no for one in box.waiting()] == [3]


def test_a_mind_of_before_this_supervisor_is_gone_on_with() -> None:
    box = Mailbox()
    post(box, 1, 2)
    assert [one.no for one in box.begin(500)] == [501, 502]
    assert box.post(said(3)).no == 503
    box.noted(502)
    assert [one.no for one in box.waiting()] == [503]
    assert [one.no for one in box.begin(0)] == [1], "a mind that was begun anew has nothing; what it had is not said again"


def test_too_many_and_too_much_let_the_oldest_go_and_the_numbers_tell() -> None:
    box = Mailbox()
    post(box, *range(1, LETTERS + 11))
    assert [one.no for one in box.waiting()] == list(range(11, LETTERS + 11))
    box = Mailbox()
    for n in range(1, 6):
        box.post(said(n, BYTES // 3))
    assert [one.no for one in box.waiting()] == [4, 5]
    box.post(said(6, 2 * BYTES))
    assert [one.no for one in box.waiting()] == [6], "the newest is kept, however large"


@given(st.lists(st.one_of(st.just("post"), st.tuples(st.sampled_from(["noted", "begin"]), st.integers(0, 90)), st.just("upgrade"))))
def test_a_reader_that_notes_what_it_takes_misses_nothing_that_was_not_let_go(steps: list[object]) -> None:
    """Against a reader as the worker is one: it takes what is new by the number, and writes down in order."""
    box, mind, seen, posted = Mailbox(), [], 0, 0
    for step in steps:
        match step:
            case "post":
                posted += 1
                letter = box.post(said(posted))
                assert letter.no > seen
            case ("noted", share):
                fresh = [one for one in box.waiting() if one.no > seen][: share % 7]  # type: ignore[operator]
                mind += texts(fresh)  # type: ignore[arg-type]
                seen = fresh[-1].no if fresh else seen
                box.noted(seen)
            case ("begin", _):
                again = box.begin(seen)
                assert all(one.no > seen for one in again)
            case "upgrade":
                box = Mailbox(msgspec.json.decode(msgspec.json.encode(box.hand_over()), type=type(box.hand_over())))
    numbers = [int(text.partition(":")[0]) for text in mind]
    assert numbers == sorted(set(numbers)), "in order, each once"
    if posted <= LETTERS:
        left = [int(text.partition(":")[0]) for text in texts(box.waiting())]  # type: ignore[arg-type]
        assert numbers + left == list(range(1, posted + 1))
