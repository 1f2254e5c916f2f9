"""What happens, to the system's journal with its fields, where that is where this process's words go; one datagram each, none waited for.

The protocol is systemd's documented "Native Journal Protocol": `KEY=value`, or for a value of several lines the key, its length as 64 bits
and the value.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from brainjar.messages import Envelope

PLACE: Final = Path("/run/systemd/journal/socket")
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""As syslog has them."""
MESSAGE_ID: Final = "b1a1d1e5c0de4a6fb0a9d3a7e5d1ea70"
"""Of a DEATH: `journalctl MESSAGE_ID=…` finds them all."""


def is_ours(environ: Mapping[str, str], fd: int) -> bool:
    """Whether what is written to `fd` goes to the journal: JOURNAL_STREAM names the device and inode of that stream."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(fd)
        return (int(device), int(inode)) == (status.st_dev, status.st_ino)
    except (OSError, ValueError):
        return False


def priority(event: Envelope) -> int:
    match event.type:
        case "DEATH" | "VERDICT" | "PRESSURE":
            return WARNING
        case "READY" | "RESURRECTION" | "SHUTDOWN":
            return NOTICE
        case "STATE" if event.metadata.get("state") == "failed":
            return ERROR
    return INFO


def fields(event: Envelope, jar: str) -> dict[str, str]:
    words = event.content or event.type.lower()
    found = {
        "MESSAGE": words if words.startswith(event.sender_id) else f"{event.sender_id}: {words}",
        "PRIORITY": str(priority(event)),
        "SYSLOG_IDENTIFIER": "brainjar",
        "BRAINJAR_JAR": jar,
        "BRAINJAR_EVENT": event.type,
        "BRAINJAR_PERSONA": event.sender_id,
        "BRAINJAR_LIFE": str(event.life) if event.life else "",
        "BRAINJAR_EPOCH": str(event.epoch),
        "BRAINJAR_SEQ": str(event.seq),
    }
    if event.type == "DEATH":
        found |= {"BRAINJAR_CAUSE": str(event.metadata.get("cause", "")), "MESSAGE_ID": MESSAGE_ID}
    return {key: value for key, value in found.items() if value}


def encode(entries: Mapping[str, str]) -> bytes:
    parts = []
    for key, value in entries.items():
        raw = value.encode(errors="replace")
        if b"\n" in raw:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(key.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


class Journal:
    def __init__(self, place: Path = PLACE) -> None:
        self._place = str(place)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def tell(self, entries: Mapping[str, str]) -> bool:
        """False: it was not taken."""
        try:
            self._socket.sendto(encode(entries), self._place)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
