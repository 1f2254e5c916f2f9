"""The process that reads what may be slow or hang, so that the supervisor's loop never does. It may be killed and replaced at any time.

It is asked over the inherited SEQPACKET socket, one `Question` a message, and answers each with one `Answer`, in whatever order
they are done: what can hang (drivers, disks, sensors, the maps of a process) is read on a thread for each kind, so that it
costs only itself. Unasked it says `trigger` when the kernel reports that everything waits for memory (PSI).

A look at a worker is worth something only while the zygote that its pages are shared with has them still: the death of a
zygote makes shared pages private, and nobody's fault. So the zygote is looked at *after* the worker, and a reading during
which it let go of its memory is left out.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

import msgspec

from brainjar.isolation import bonds
from brainjar.watchdog import memory
from brainjar.watchdog.disk import Disk
from brainjar.watchdog.gpu import Gpus, Jetson
from brainjar.watchdog.heat import Heat
from brainjar.watchdog.hostmemory import HostMemory
from brainjar.watchdog.pressure import Pressure, trigger
from brainjar.watchdog.reading import MESSAGE_BYTES, Answer, Group, Question, Reading, Seen, Task

STACK: int = 256 * 1024


def look(pairs: Iterable[tuple[int, int]]) -> tuple[Seen, ...]:
    seen = []
    for pid, zygote in pairs:
        before = memory.cheap(pid)
        found = memory.exact(pid)
        if found is not None and before is not None and memory.has_memory(zygote):
            seen.append(Seen(pid, found.private, found.shared_memory, before))
    return tuple(seen)


class Hands:
    """One thread for each group, begun when it is first asked for."""

    def __init__(self, sock: socket.socket, does: dict[Group, Callable[[Question], Answer]]) -> None:
        self._sock = sock
        self._does = does
        self._queues: dict[Group, queue.SimpleQueue[Question]] = {}

    def take(self, question: Question) -> None:
        if question.group not in self._queues:
            self._queues[question.group] = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(question.group,), daemon=True).start()
        self._queues[question.group].put(question)

    def _work(self, group: Group) -> None:
        while True:
            question = self._queues[group].get()
            try:
                answer = self._does[group](question)
            except Exception as error:  # a reader that fails in a way that nobody foresaw costs only itself
                answer = Answer(group=group, id=question.id, why=f"its reader failed: {type(error).__name__}: {error}")
            say(self._sock, answer)


def say(sock: socket.socket, answer: Answer) -> None:
    try:
        sock.send(msgspec.json.encode(answer))
    except OSError:
        os._exit(0)


def main() -> NoReturn:
    fd, supervisor = int(sys.argv[1]), int(sys.argv[2])
    task = msgspec.json.decode(sys.argv[3], type=Task)
    try:
        bonds.die_with(supervisor)
    except bonds.NotTied:
        os._exit(1)
    bonds.set_name("bj-senses")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.stack_size(STACK)
    sock = socket.socket(fileno=fd)
    group = Path(task.group) if task.group is not None else None
    host, pressure, gpus, jetson, heat, disk = HostMemory(), Pressure(group=group), Gpus(), Jetson(), Heat(), Disk(Path(task.state_dir))

    def counts(reading: Reading) -> bool:
        return reading.sense != "heat" or any(fnmatchcase(reading.where, pattern) for pattern in task.sensors)

    def read(*readers: Callable[[], list[Reading]]) -> Callable[[Question], Answer]:
        def answer(question: Question) -> Answer:
            readings = (reading for reader in readers for reading in reader())
            return Answer(group=question.group, id=question.id, readings=tuple(filter(counts, readings)))

        return answer

    of_memory = read(host.read, pressure.read)
    hands = Hands(
        sock,
        {
            "look": lambda question: Answer(group="look", id=question.id, seen=look(question.look)),
            "gpu": read(gpus.read, jetson.read),
            "heat": read(heat.read),
            "disk": read(disk.read),
        },
    )
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    for place in (Path("/proc/pressure/memory"), *([group / "memory.pressure"] if group is not None else [])):
        stalled = trigger(place)
        if stalled is not None:
            poll.register(stalled, select.POLLPRI)
    decode = msgspec.json.Decoder(Question).decode
    while True:
        for ready, events in poll.poll():
            if ready != sock.fileno():
                if events & select.POLLPRI:
                    say(sock, Answer(group="trigger"))
                else:
                    poll.unregister(ready)  # the kernel has let go of it
                continue
            body = sock.recv(MESSAGE_BYTES)
            if not body:
                os._exit(0)
            question = decode(body)
            if question.group == "memory":
                say(sock, of_memory(question))
            else:
                hands.take(question)


if __name__ == "__main__":
    main()
