"""A small face for each mood, of each role: at most five lines, each as wide as the others. ASCII, so that every terminal shows it."""

from __future__ import annotations

from typing import Final

EYES: Final = {
    "bleak": ("-", "-"),
    "uneasy": ("o", "."),
    "afraid": ("O", "O"),
    "calm": ("-", "-"),
    "awake": ("o", "o"),
    "restless": ("o", "O"),
    "content": ("^", "^"),
    "glad": ("^", "^"),
    "elated": ("*", "*"),
}
MOUTHS: Final = {
    "bleak": "___",
    "uneasy": "~~~",
    "afraid": " o ",
    "calm": "---",
    "awake": " - ",
    "restless": "-~-",
    "content": " u ",
    "glad": "\\_/",
    "elated": "\\o/",
}
FRAMES: Final = {
    "subject": (" .---. ", "| {0} {1} |", "| {2} |", " '---' "),
    "observer": ("=[===]=", "|({0} {1})|", "| {2} |", " \\___/ "),
    "god": (" \\|||/ ", "( {0} {1} )", "( {2} )", " \\___/ "),
}
"""A role without one has that of the subject."""


def face(role: str, mood: str) -> tuple[str, ...]:
    """() for a mood that has no face."""
    if mood not in EYES:
        return ()
    left, right = EYES[mood]
    return tuple(line.format(left, right, MOUTHS[mood]) for line in FRAMES.get(role, FRAMES["subject"]))
