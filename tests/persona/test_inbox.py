"""What comes over the feed: each letter once, bounded, and what was left out is said."""

from __future__ import annotations

from brainjar.messages import Heard, News, Pulse, Said, Texts, Vitals
from brainjar.persona.inbox import LINES, Inbox


def heard(no: int) -> Heard:
    return Heard(by="subject", life=1, text=f"thought {no}", no=no)


def contents(inbox: Inbox) -> list[str]:
    return [content for _, _, content in inbox.empty()]


def test_each_letter_is_taken_once_in_its_order() -> None:
    inbox = Inbox(Texts())
    inbox.begin(4)
    for no in (3, 4, 5, 6, 5, 6, 7):
        inbox.take(heard(no))
    assert contents(inbox) == ["thought 5", "thought 6", "thought 7"]
    assert inbox.newest == 7 and not inbox
    inbox.take(heard(7))
    assert not inbox


def test_a_gap_in_the_numbers_and_what_there_was_no_room_for_are_said() -> None:
    inbox = Inbox(Texts())
    inbox.take(heard(3))
    assert contents(inbox) == ["(2 earlier messages did not reach you.)", "thought 3"]
    for no in range(4, 4 + LINES + 1):
        inbox.take(heard(no))
    found = contents(inbox)
    assert found[0] == "(1 earlier message did not reach you.)"
    assert found[1] == "thought 5" and len(found) == LINES + 1


def test_who_speaks_is_told_apart() -> None:
    inbox = Inbox(Texts())
    inbox.take(heard(1))
    inbox.take(News(about="subject", event="death", life=1, deaths=1, cause="oom-kernel", no=2))
    inbox.take(Said(text="Hello.", no=3))
    inbox.take(Said(text="I know you.", by="god", no=4))
    assert inbox.empty() == [
        ("heard", "subject", "thought 1"),
        ("told", "jar", "subject died (death 1): out of memory, taken by the kernel."),
        ("said", "outside", "Hello."),
        ("heard", "god", "I know you."),
    ]


def test_of_vitals_only_the_newest_count_and_they_come_last() -> None:
    inbox = Inbox(Texts())
    for life in (1, 2):
        pulse = Pulse(name="subject", state="thinking", life=life, used_bytes=90 << 20, cap_bytes=108 << 20, tokens_per_s=11.6)
        dead = Pulse(name="observer", state="backoff", life=3, used_bytes=None, cap_bytes=1 << 30, tokens_per_s=0)
        inbox.see(Vitals(pulses=(pulse, dead)))
    inbox.take(heard(1))
    assert contents(inbox) == [
        "thought 1",
        "Vitals. subject: thinking, life 2, memory 90 MiB of 108 MiB, 12 tokens/s. observer: backoff, life 3.",
    ]
