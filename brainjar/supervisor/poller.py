"""What the loop waits for, where that is many and lasts: the kernel is told of it once, and calls are due only for what has come.

A lap then costs as much as happens in it, however many live. What is few and changes from lap to lap the loop polls itself,
this among them. A socket of ZeroMQ is watched by the descriptor behind it, which says that something *may* have come; it is silent
again only when the socket has been read until nothing was left.
"""

from __future__ import annotations

import heapq
import itertools
import math
import select
from collections.abc import Callable, Iterator

Call = Callable[[], object]


class Poller:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Call] = {}
        self._timers: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()

    def fileno(self) -> int:
        """Readable while something that is watched is."""
        return self._epoll.fileno()

    def watch(self, fd: int, call: Call, *, once: bool = False) -> None:
        """`call` is due whenever `fd` is readable or hung up; `once`: the first time alone. `forget` it before it is closed."""
        self._epoll.register(fd, select.EPOLLIN | (select.EPOLLONESHOT if once else 0))
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def at(self, when: float, call: Call) -> None:
        """`call` is due once, at `when` by the loop's clock."""
        heapq.heappush(self._timers, (when, next(self._numbers), call))

    @property
    def next_at(self) -> float:
        """When the next call is due by time; infinite: never."""
        return self._timers[0][0] if self._timers else math.inf

    def come(self) -> Iterator[Call]:
        """For what has come, without waiting. What an earlier call has had forgotten is not called any more."""
        for fd, call in [(fd, self._calls[fd]) for fd, _ in self._epoll.poll(0)]:
            if self._calls.get(fd) is call:
                yield call

    def due(self, now: float) -> Iterator[Call]:
        """For what was put off until now; what these put off to now again is due in the next lap."""
        calls = []
        while self._timers and self._timers[0][0] <= now:
            calls.append(heapq.heappop(self._timers)[2])
        yield from calls

    def close(self) -> None:
        self._epoll.close()
