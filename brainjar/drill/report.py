"""What a drill claims: passed or failed, what was measured, what was wanted. Text for people, one JSON object for programs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    passed: bool
    measured: str
    wanted: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    drill: str
    passed: bool
    seconds: float
    claims: tuple[Claim, ...]
    notes: tuple[str, ...]
    pictures: tuple[str, ...]


class Report:
    def __init__(self, drill: str, *, quiet: bool = False) -> None:
        """`quiet`: progress is not said."""
        self.drill = drill
        self.claims: list[Claim] = []
        self.notes: list[str] = []
        self.pictures: list[Path] = []
        self._quiet = quiet
        self._began = time.monotonic()

    def progress(self, words: str) -> None:
        """What is going on, on stderr: stdout is the report's."""
        if not self._quiet:
            print(f"{time.monotonic() - self._began:7.1f} s  {words}", file=sys.stderr, flush=True)

    def claim(self, what: str, passed: bool, measured: str, wanted: str = "") -> bool:
        self.claims.append(Claim(what=what, passed=passed, measured=measured, wanted=wanted))
        self.progress(f"{'pass' if passed else 'FAIL'}  {what}: {measured}")
        return passed

    def note(self, words: str) -> None:
        self.notes.append(words)

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            drill=self.drill,
            passed=bool(self.claims) and all(claim.passed for claim in self.claims),
            seconds=round(time.monotonic() - self._began, 1),
            claims=tuple(self.claims),
            notes=tuple(self.notes),
            pictures=tuple(map(str, self.pictures)),
        )

    def text(self) -> str:
        outcome = self.outcome
        lines = [f"drill {self.drill}: {'passed' if outcome.passed else 'FAILED'} in {outcome.seconds:.0f} s"]
        for claim in self.claims:
            wanted = f"  (wanted: {claim.wanted})" if claim.wanted else ""
            lines.append(f"  {'pass' if claim.passed else 'FAIL'}  {claim.what}: {claim.measured}{wanted}")
        lines += [f"  note  {note}" for note in self.notes]
        lines += [f"  picture  {path}" for path in self.pictures]
        return "\n".join(lines)
