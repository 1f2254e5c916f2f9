"""What is given again, and to whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from brainjar.messages import Heard
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.mail import Mailbox
from brainjar.supervisor.sight import Sight


def test_who_is_being_born_is_given_what_waits_once_when_it_is_ready() -> None:
    told: list[int] = []
    worker: Any = SimpleNamespace(mail=Mailbox(), phase=Phase.STARTING, tell=lambda letter: told.append(letter.no))
    worker.mail.post(Heard(by="a", life=1, text="x"))
    Sight.again(worker)
    assert told == [], "an upgrade in the middle of a birth: its mind is not open yet"
    worker.phase = Phase.READY
    Sight.begin(worker, 7)
    assert told == [8]
    Sight.again(worker)
    assert told == [8, 8], "what was on its way may be lost; the reader goes by the number"
