"""The process that reads what may be slow or hang, so that the supervisor's loop never does. It may be killed and replaced at any time.

Protocol, over the inherited SEQPACKET socket, one JSON object a message: asked `{"id", "look": [[pid, zygote pid], …]}` it
answers `{"id", "seen": [[pid, private, shared memory, anonymous] or [pid], …]}`, bytes. A reading is worth something only while the
zygote that the pages are shared with has them still: the death of a zygote makes shared pages private, and nobody's fault.
So the zygote is looked at *after* the worker, and a reading during which it let go of its memory is left out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, Final, NoReturn

from brainjar.isolation import bonds
from brainjar.watchdog import memory

MESSAGE_BYTES: Final = 64 * 1024


def look(pid: int, zygote: int) -> list[int]:
    before = memory.anonymous(pid)
    found = memory.exact(pid)
    if found is None or before is None or not memory.has_memory(zygote):
        return [pid]
    return [pid, found.private, found.shared_memory, before]


def main() -> NoReturn:
    fd, supervisor = int(sys.argv[1]), int(sys.argv[2])
    try:
        bonds.die_with(supervisor)
    except bonds.NotTied:
        os._exit(1)
    bonds.set_name("bj-senses")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    while True:
        body = sock.recv(MESSAGE_BYTES)
        if not body:
            os._exit(0)
        asked: dict[str, Any] = json.loads(body)
        seen = [look(pid, zygote) for pid, zygote in asked["look"]]
        try:
            sock.send(json.dumps({"id": asked["id"], "seen": seen}).encode())
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    main()
