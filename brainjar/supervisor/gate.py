"""The inference lease: who may compute now. Pure; knows no process and no clock.

At most `slots` personas hold it at once, so that the sum of compute threads never exceeds the cores; who has waited
longest is next; a death or a release frees it.
"""

from __future__ import annotations


class Gate:
    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"a gate needs at least one slot, not {slots}")
        self.slots = slots
        self._holders: list[str] = []
        self._waiting: dict[str, float] = {}  # insertion order is the order of asking

    @property
    def holders(self) -> tuple[str, ...]:
        return tuple(self._holders)

    def waiting_since(self, name: str) -> float | None:
        return self._waiting.get(name)

    def ask(self, name: str, now: float) -> None:
        """Join the queue. Asking again changes nothing, for a waiter as for a holder."""
        if name not in self._holders:
            self._waiting.setdefault(name, now)

    def release(self, name: str) -> None:
        """Give the lease back, or leave the queue; for who has neither, nothing."""
        self._waiting.pop(name, None)
        if name in self._holders:
            self._holders.remove(name)

    def grant(self) -> list[str]:
        """Let in whom there is room for, in the order of asking; return them."""
        granted: list[str] = []
        while self._waiting and len(self._holders) < self.slots:
            name = next(iter(self._waiting))
            del self._waiting[name]
            self._holders.append(name)
            granted.append(name)
        return granted
