"""What the journal gets: fields that can be asked for, whatever a mind has said."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.messages import Envelope
from brainjar.supervisor import journald, terminal
from brainjar.supervisor.journald import Journal
from brainjar.supervisor.terminal import Terminal
from tests.patience import PATIENCE_S


def parsed(raw: bytes) -> dict[str, bytes]:
    """As journald reads it."""
    found = {}
    while raw:
        line, _, rest = raw.partition(b"\n")
        if b"=" in line:
            key, _, value = line.partition(b"=")
            raw = rest
        else:
            key, (length,) = line, struct.unpack("<Q", rest[:8])
            value, raw = rest[8 : 8 + length], rest[8 + length :]
            assert raw[:1] == b"\n"
            raw = raw[1:]
        found[key.decode()] = value
    return found


@given(st.text(), st.text())
def test_whatever_is_said_stays_in_its_field(content: str, cause: str) -> None:
    event = Envelope(type="DEATH", timestamp=1.0, sender_id="subject", content=content, life=3, metadata={"cause": cause})
    fields = parsed(journald.encode(journald.fields(event, "matrix")))
    assert fields["BRAINJAR_PERSONA"] == b"subject" and fields["BRAINJAR_LIFE"] == b"3" and fields["PRIORITY"] == b"4"
    assert fields.get("BRAINJAR_CAUSE", b"") == cause.encode(errors="replace")
    words = content or "death"
    told = words if words.startswith("subject") else f"subject: {words}"
    assert fields["MESSAGE"] == told.encode(errors="replace")
    assert set(fields) <= {
        *("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE_ID", "BRAINJAR_JAR", "BRAINJAR_EVENT", "BRAINJAR_PERSONA"),
        *("BRAINJAR_LIFE", "BRAINJAR_CAUSE", "BRAINJAR_EPOCH", "BRAINJAR_SEQ"),
    }


def test_what_is_urgent_is_more_so_than_what_is_not() -> None:
    def of(type: str, **metadata: str) -> int:
        return journald.priority(Envelope(type=type, timestamp=1.0, sender_id="a", metadata=metadata))  # type: ignore[arg-type]

    assert of("STATE", state="failed") == journald.ERROR < of("DEATH") == of("VERDICT") < of("RESURRECTION") < of("THOUGHT")


def test_the_stream_is_the_journals_only_where_it_is_named_so() -> None:
    status = os.fstat(1)
    assert journald.is_ours({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, 1)
    for wrong in ("", "1", "x:y", f"{status.st_dev}:{status.st_ino + 1}"):
        assert not journald.is_ours({"JOURNAL_STREAM": wrong}, 1)
    assert not journald.is_ours({"JOURNAL_STREAM": "1:2"}, 99)


def test_events_go_to_the_journal_and_to_the_stream_where_it_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "socket"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(place))
    listener.settimeout(PATIENCE_S)
    monkeypatch.setattr(journald, "PLACE", place)
    monkeypatch.setattr(journald, "Journal", lambda: Journal(place))
    status = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert terminal.choose("auto") == "journal" and terminal.choose("none") == "none"
    shown = Terminal("journal", Path("/"), "matrix")
    death = Envelope(type="DEATH", timestamp=1.0, sender_id="subject", content="subject died", life=1, metadata={"cause": "segv"})
    shown.witness(death)
    assert parsed(listener.recv(65536))["BRAINJAR_CAUSE"] == b"segv" and capfd.readouterr().out == ""
    shown.witness(Envelope(type="HEARTBEAT", timestamp=1.0, sender_id="subject"))
    listener.close()
    shown.witness(death)
    assert "subject died" in capfd.readouterr().out, "not lost: the stream goes to the journal too"
    assert shown._journal is not None
    shown._journal.close()
