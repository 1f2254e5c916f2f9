"""The inference lease: who may compute now, and on which CPUs. Pure; knows no process and no clock.

At most as many hold it at once as there are shares, or fewer while `limit` says so, and never more threads than CPUs: the
newcomer is let in only if every compute thread of every holder can have a CPU of its own. Next is who has the highest
priority, and among equals who has waited longest; each `AGE_S` of waiting counts as one more point of priority, so that nobody
starves. Nobody overtakes who is next: with shares of CPUs a persona that waits for one of its own would otherwise wait for
ever. Only who is barred (paused) waits aside. A death or a release frees the lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from brainjar.supervisor.handover import ClaimState

AGE_S: Final = 10.0


class Claim(msgspec.Struct, frozen=True):
    """What a persona computes with."""

    threads: int = 1
    cpus: tuple[int, ...] | None = None
    """The CPUs that it is bound to; None: whichever share is free."""
    priority: int = 0


class Gate:
    def __init__(self, shares: Sequence[Sequence[int]]) -> None:
        """`shares`: the CPUs of each of those who may think at once, disjoint."""
        self.shares: tuple[tuple[int, ...], ...] = ()
        self.limit = 0
        """So many may hold it; who holds it already is not put out."""
        self.share_out(shares)
        self._claims: dict[str, Claim] = {}
        self._holders: dict[str, tuple[int, ...]] = {}
        self._waiting: dict[str, float] = {}  # insertion order is the order of asking
        self._barred: set[str] = set()

    def share_out(self, shares: Sequence[Sequence[int]]) -> None:
        """Others from now on; who holds one keeps it until it gives it back."""
        if not shares or not all(shares):
            raise ValueError("a gate needs at least one share, and a CPU in each")
        if (found := tuple(tuple(share) for share in shares)) != self.shares:
            self.shares, self.limit = found, len(found)

    @property
    def holders(self) -> tuple[str, ...]:
        return tuple(self._holders)

    def cpus_of(self, name: str) -> tuple[int, ...] | None:
        """The CPUs that a holder was let in on."""
        return self._holders.get(name)

    def waiting_since(self, name: str) -> float | None:
        return self._waiting.get(name)

    def ask(self, name: str, now: float, claim: Claim = Claim()) -> None:  # noqa: B008 - frozen
        """Join the queue. Asking again changes nothing, for a waiter as for a holder."""
        if name not in self._holders:
            self._claims.setdefault(name, claim)
            self._waiting.setdefault(name, now)

    def release(self, name: str) -> None:
        """Give the lease back, or leave the queue; for who has neither, nothing."""
        self._waiting.pop(name, None)
        self._holders.pop(name, None)
        self._claims.pop(name, None)

    def hand_over(self) -> tuple[list[ClaimState], list[str]]:
        """Who holds it and who waits, in the order of asking; who is barred."""
        claims = []
        for name in (*self._holders, *self._waiting):
            claim = self._claims.get(name, Claim())
            holds, since = self._holders.get(name), self._waiting.get(name)
            claims.append(ClaimState(name=name, threads=claim.threads, priority=claim.priority, cpus=claim.cpus, holds=holds, since=since))
        return claims, sorted(self._barred)

    def take_over(self, claims: Iterable[ClaimState], barred: Iterable[str]) -> None:
        for one in claims:
            self._claims[one.name] = Claim(one.threads, one.cpus, one.priority)
            if one.holds is not None:
                self._holders[one.name] = one.holds
            elif one.since is not None:
                self._waiting[one.name] = one.since
        self._barred = set(barred)

    def bar(self, name: str) -> None:
        """Do not let it in until `unbar`; it keeps its place in the queue, and a lease that it has."""
        self._barred.add(name)

    def unbar(self, name: str) -> None:
        self._barred.discard(name)

    def grant(self, now: float) -> list[str]:
        """Let in whom there is room for, in order; return them."""
        granted: list[str] = []
        while len(self._holders) < min(self.limit, len(self.shares)):
            name = self._next(now)
            cpus = self._room_for(self._claims[name]) if name is not None else None
            if name is None or cpus is None:
                break
            del self._waiting[name]
            self._holders[name] = cpus
            granted.append(name)
        return granted

    def _next(self, now: float) -> str | None:
        def rank(name: str) -> float:
            return self._claims[name].priority + (now - self._waiting[name]) / AGE_S

        # max takes the first of equals, and the first here is who has asked first
        return max((name for name in self._waiting if name not in self._barred), key=rank, default=None)

    def _room_for(self, claim: Claim) -> tuple[int, ...] | None:
        taken = set(self._holders.values())
        for cpus in (claim.cpus,) if claim.cpus is not None else tuple(share for share in self.shares if share not in taken):
            threads = [cpus] * min(claim.threads, len(cpus))
            for holder, on in self._holders.items():
                threads += [on] * min(self._claims[holder].threads, len(on))
            if each_has_its_own(threads):
                return cpus
        return None


def each_has_its_own(threads: Sequence[Sequence[int]]) -> bool:
    """Whether each of `threads`, given the CPUs that it may run on, can have one that no other uses: a bipartite matching."""
    owner: dict[int, int] = {}

    def place(thread: int, tried: set[int]) -> bool:
        for cpu in threads[thread]:
            if cpu not in tried:
                tried.add(cpu)
                if cpu not in owner or place(owner[cpu], tried):
                    owner[cpu] = thread
                    return True
        return False

    return all(place(thread, set()) for thread in range(len(threads)))
