"""What each persona's process is housed in: its uid, its cgroup, its walls. Decided once at start; what cannot be had is said.

Nothing here stops a jar from starting: a host that gives less gets less, and `status` and `doctor` show which.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from brainjar.config import Config, Persona
from brainjar.errors import UsageError
from brainjar.gguf import Gguf
from brainjar.isolation import cgroups, namespaces, users
from brainjar.isolation.cgroups import Group, Groups, Limits
from brainjar.messages import Layer, OomCounts, Walls
from brainjar.quota import Quota, quota
from brainjar.supervisor.handover import CountedState, Handover

MIB: Final = 1024 * 1024
ABOVE_HOLDS_S: Final = 5.0
"""A limit around the groups that was hit is the reason of all the deaths that come within so long: it may have taken several."""
THREADS: Final = 48
"""Beside compute threads: two of libzmq, the lifeline, and room for a library that starts a few."""
SNAPSHOT_SLACK: Final = 4 * MIB
"""What a snapshot has beside the KV cache: tokens, messages, llama.cpp's own header."""


def snapshot_room(persona: Persona, header: Gguf) -> int:
    """Bytes that the context of `persona` may need when it is left to the next life: of the largest window that its cap allows."""
    if persona.model.mode == "engine":
        cells = quota(persona, header).cells
        return header.kv_bytes(cells) * 9 // 8 + SNAPSHOT_SLACK
    window = persona.model.context
    while (
        persona.growth == "context"
        and window < header.n_ctx_train
        and header.kv_bytes(min(2 * window, header.n_ctx_train)) < persona.memory
    ):
        window = min(2 * window, header.n_ctx_train)
    return header.kv_bytes(window) * 9 // 8 + SNAPSHOT_SLACK


class Housing:
    def __init__(
        self,
        config: Config,
        state_dir: Path,
        runtime_dir: Path,
        minds: Mapping[str, Path],
        headers: Mapping[Path, Gguf],
        state: Handover | None = None,
    ) -> None:
        """`minds`: the directory of each persona's mind, which exists. Raise `UsageError` for a user that cannot be."""
        self._state_dir = state_dir
        self._hidden = (str(state_dir), str(runtime_dir))
        self.spaces = namespaces.probe()
        self.rooms: dict[str, int] = {}
        """Bytes of a context that a persona may leave."""
        self.quotas: dict[str, Quota] = {}
        """Of those that an engine computes for."""
        self._files: dict[str, int] = {}
        self._users = self._choose_users(config, minds)  # whoever is refused is refused before anything is made
        key = f"brainjar-{config.jar.name}-{zlib.crc32(os.fsencode(state_dir)):08x}"
        self.groups = Groups(cgroups.survey(), key) if state is None else Groups(state.groups[0], key, state.groups[1])
        self._group: dict[tuple[str, int], Group | None] = {}
        """Of each persona, and of its next life if that is forked in advance: they take turns."""
        self._counted = {(one.name, one.slot): one.counts for one in state.counted} if state is not None else {}
        self._above = self.groups.above()
        self._above_hit_at = -ABOVE_HOLDS_S
        self.adopt(config, minds, headers)

    def adopt(self, config: Config, minds: Mapping[str, Path], headers: Mapping[Path, Gguf]) -> None:
        """House these personas. Raise `UsageError` for a user that cannot be, and change nothing then."""
        self._users = self._choose_users(config, minds)
        self._config, self._minds = config, minds
        self._give_minds()
        for persona in config.personas:
            name, mode, header = persona.name, persona.model.mode, headers[persona.model.path]
            self.rooms[name] = snapshot_room(persona, header)
            self.quotas.pop(name, None)
            self._files.pop(name, None)
            if mode == "engine":
                self.quotas[name] = quota(persona, header)
            elif mode == "separate":
                self._files[name] = header.size_bytes
        for persona in config.personas:
            for slot in (0, 1) if config.restart.standby else (0,):
                if (persona.name, slot) not in self._group:
                    self._group[persona.name, slot] = self.groups.worker(persona.name, slot)

    def hand_over(self) -> list[CountedState]:
        return [CountedState(name=name, slot=slot, counts=counts) for (name, slot), counts in self._counted.items()]

    def vacate(self, name: str) -> None:
        """It is gone from the jar."""
        for kept in (self.rooms, self.quotas, self._files):
            kept.pop(name, None)
        for slot in (0, 1):
            group = self._group.pop((name, slot), None)
            if group is not None:
                group.remove()

    # ── users ──

    def _choose_users(self, config: Config, minds: Mapping[str, Path]) -> users.Decision:
        decision = users.decide(
            {persona.name: persona.sandbox.user for persona in config.personas},
            {persona.name: minds[persona.name].stat().st_uid for persona in config.personas},
            mounts=self.spaces.mounts and not self.spaces.user_namespace,
            salt=str(self._state_dir),
        )
        for name, why in decision.impossible.items():
            raise UsageError(f"{config.source}: persona.{name}.sandbox.user: {why}")
        return decision

    def _give_minds(self) -> None:
        for name, directory in self._minds.items():
            uid, gid = self.ids(name)
            if directory.stat().st_uid != uid or any(path.lstat().st_uid != uid for path in directory.iterdir()):
                users.give(directory, uid, gid)

    def ids(self, name: str) -> tuple[int, int]:
        """Whom the process of `name` runs as."""
        return self._users.ids.get(name, (os.geteuid(), os.getegid()))

    # ── walls ──

    def walls(self, persona: Persona, home: Path) -> Walls:
        """For a birth whose sockets are in `home`."""
        own = self._users.ids.get(persona.name)
        return Walls(
            uid=own[0] if own else None,
            gid=own[1] if own else None,
            network=persona.sandbox.network,
            file_size=persona.sandbox.file_size,
            nice=persona.nice,
            ionice=persona.ionice,
            oom_score_adj=persona.oom_score_adj,
            writable=(str(self._minds[persona.name]), str(home)),
            hidden=self._hidden,
            mounts=self.spaces.mounts,
            threads=THREADS + persona.threads,
            at_once=2 if self._config.restart.standby else 1,
            threads_counted=self.groups.version == "v2" and "pids" in self.groups.controllers,
            why_same_user=self._users.same.get(persona.name, ""),
        )

    # ── cgroups ──

    def open_group(self, persona: Persona, slot: int, now: float) -> int | None:
        """Make its group ready for a life; return a descriptor into which the newborn writes 0, the caller's to close. `now`: monotonic."""
        group = self._group[persona.name, slot]
        if group is None or not group.make(self._limits(persona)):
            return None
        self._counted[persona.name, slot] = group.counts()
        self._look_above(now)
        return group.door()

    def _look_above(self, now: float) -> None:
        above = self.groups.above()
        if above > self._above:
            self._above, self._above_hit_at = above, now

    def _limits(self, persona: Persona) -> Limits:
        # The kernel charges the snapshot to who writes it, twice while one replaces the other; it is outside the persona's cap.
        beside = self._beside(persona)
        own = self._own_cap(persona)
        cpus = {cpu for share in self._config.inference.shares for cpu in share} if persona.floats else persona.cpus
        return Limits(
            memory=own + beside,
            memory_high=None if persona.memory_high is None else own - (persona.memory - persona.memory_high) + beside,
            cpus=tuple(sorted(cpus)),
            cpu_quota=persona.cpu_quota,
            processes=THREADS + persona.threads,
        )

    def _own_cap(self, persona: Persona) -> int:
        """Of its cap, what its process may own."""
        return self.quotas[persona.name].worker_bytes if persona.name in self.quotas else persona.memory

    def _beside(self, persona: Persona) -> int:
        """What the kernel charges to its group beside what its cap counts: snapshots, and a model's file that it maps for itself."""
        return 2 * self.rooms[persona.name] + self._files.get(persona.name, 0)

    def counts(self, name: str, slot: int, now: float) -> OomCounts | None:
        """What the kernel has counted in its group and, lately, around it; `now` is monotonic.

        All zero where it has killed nobody in it: the rest says nothing then, and a death is told the sooner. None: it has no group,
        or that has vanished.
        """
        group, before = self._group[name, slot], self._counted.get((name, slot))
        if group is None or before is None or not group.exists:
            return None
        if group.killed() == before.killed:
            return OomCounts()
        counted = group.counts()
        self._look_above(now)
        return OomCounts(
            own_limit=counted.own_limit - before.own_limit,
            killed=counted.killed - before.killed,
            above=int(now - self._above_hit_at < ABOVE_HOLDS_S),
        )

    def end_rest(self, name: str, slot: int) -> None:
        """Kill whatever a dead worker has left in its group."""
        group = self._group[name, slot]
        if group is not None:
            group.end()

    def is_empty(self, name: str, slot: int) -> bool:
        """Whether nobody is left in its group; also where it has none."""
        group = self._group.get((name, slot))
        return group is None or not group.members()

    def joined(self, name: str, slot: int, pid: int) -> bool:
        """The kernel's word on whether `pid` is in the group of `name`."""
        group = self._group[name, slot]
        return group is not None and group.holds(pid)

    def layer(self, persona: Persona, slot: int = 0, *, joined: bool | None) -> Layer:
        """The cgroup's layer of the memory cap. `joined`: whether the living worker is in its group; None: there is no worker."""
        beside = self._beside(persona)
        what = "its snapshot and the model's file" if persona.name in self._files else "its snapshot"
        counts = f"pages that it touched first, page cache too, and {what} ({beside // MIB} MiB of the limit are for that)"
        group = self._group[persona.name, slot]
        if group is None:
            return Layer(name="cgroup", limit_bytes=None, used_bytes=None, effective=False, counts=counts, why=self.groups.why)
        if joined is None:
            return Layer(name="cgroup", limit_bytes=self._own_cap(persona) + beside, used_bytes=None, effective=False, counts=counts)
        limit = group.limit_bytes()
        inside = joined and limit is not None
        why = "" if inside else group.why or (f"{group.path} has vanished" if not group.exists else "the worker could not be moved into it")
        return Layer(
            name="cgroup", limit_bytes=limit, used_bytes=group.used_bytes() if inside else None, effective=inside, counts=counts, why=why
        )

    def notes(self) -> list[str]:
        """What falls short on this host, one sentence each, for the start of the jar."""
        found = []
        if not self.groups.effective:
            found.append(f"no cgroup for the personas: {self.groups.why}")
        elif self.groups.why:
            found.append(f"cgroups: {self.groups.why}")
        return found

    def close(self) -> None:
        self.groups.close(group for group in self._group.values() if group is not None)
