"""The bus as lines of text: for pipes, logs and terminals that can do no more."""

from __future__ import annotations

from brainjar.messages import Envelope
from brainjar.view.words import clean, clock

FLEETING = frozenset({"TOKEN", "HEARTBEAT", "SNAP"})
"""Types that are gone in a blink, and would drown the rest."""


def line(event: Envelope, *, fleeting: bool = False) -> str | None:
    """One line for people; None for an event that is not shown as one."""
    if event.type in FLEETING and not fleeting:
        return None
    text = clean(event.content)
    if event.type == "STATE" and text == event.metadata.get("state"):
        text = f"is {text}"
    return f"{clock(event.timestamp)} {event.type:<12} {event.sender_id:<10} {text}".rstrip()
