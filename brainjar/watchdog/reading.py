"""What a sense says at one moment, and how the process that senses is asked. Every reader returns `Reading`s; the policy judges
them, `doctor` shows them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Sense = Literal["host-memory", "swap", "pressure", "gpu-memory", "gpu-load", "heat", "disk"]
Group = Literal["memory", "gpu", "heat", "disk", "look", "trigger"]
"""What is read in one go. `look` is not about the host but about workers; `trigger` is never asked for."""
MESSAGE_BYTES: Final = 128 * 1024


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """`value` is None where nothing can be told; then `why` says so. A number is never made up."""

    sense: Sense
    where: str = ""
    """Which one: "host" or the path of a cgroup, "GPU 0", the type of a thermal zone, a directory."""
    value: float | None = None
    """Percent in use (memory, swap, disk), of time stalled (pressure), of time busy (gpu-load); degrees Celsius (heat)."""
    why: str = ""
    used_bytes: int | None = None
    total_bytes: int | None = None
    by: dict[int, int] = {}
    """gpu-memory: bytes of each process, by pid, as far as the driver tells."""
    note: str = ""
    """What else people should know of it."""

    @property
    def key(self) -> tuple[Sense, str]:
        return self.sense, self.where


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One worker, looked at exactly. Bytes."""

    pid: int
    private: int
    shared_memory: int
    cheap: tuple[int, int, int]
    """Just before, by the cheap reader (`memory.Cheap`)."""


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    group: Group
    id: int
    look: tuple[tuple[int, int], ...] = ()
    """(worker, the zygote that it was forked from)."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    group: Group
    id: int = 0
    readings: tuple[Reading, ...] = ()
    seen: tuple[Seen, ...] = ()
    """Who is missing could not be looked at."""
    why: str = ""
    """Why nothing could be read, where its reader failed in a way that it should not."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the process that senses is started with."""

    state_dir: str
    sensors: tuple[str, ...] = ("*",)
    group: str | None = None
    """The jar's own cgroup of version 2."""
