"""What a persona's process goes through: one table, (phase, event) -> (phase, actions). Pure.

Phases are private; `SHOWN` translates them into the states that people see. Actions are names; the loop carries them out
in order. A pair that is not in the table is one where nothing happens: `step` returns the same phase and no actions.

Every phase has a deadline (`worker.Worker.deadline`), after which DEADLINE happens to it, but four: READY is watched for standing still
(`watchdog.stall`); LOADING ends with the process that loads, which has a deadline of its own (`zygotes.LOAD_S`), and has one itself while
its birth is held; WAITING and STOPPED last until somebody else does something.
"""

from __future__ import annotations

import enum
from typing import Final

from brainjar.messages import State


class Phase(enum.Enum):
    STOPPED = "stopped"
    WAITING = "waiting"
    """To begin when those before it are READY, or when the one begins with which it ended."""
    LOADING = "loading"
    """Its model is not in memory yet."""
    STARTING = "starting"
    """A worker is being forked, or has been and is not READY yet."""
    READY = "ready"
    STOPPING = "stopping"
    """Asked over its feed."""
    TERMINATING = "terminating"
    """Sent SIGTERM."""
    KILLING = "killing"
    """Sent SIGKILL; only the kernel can be waited for."""
    DYING = "dying"
    """Dead; what it had still said is being taken from its voice."""
    DEAD = "dead"
    """Between a death and the next life."""
    BACKOFF = "backoff"
    """Between a failed start and the next try."""
    FAILED = "failed"
    """Too many deaths, or failed starts. Tried again, slowly, where it is not given up."""


class Event(enum.Enum):
    START = "start"
    WAIT = "wait"
    """It is to start, and has to wait for others."""
    LOADED = "loaded"
    """The zygote has the model."""
    UNLOADED = "unloaded"
    """The zygote cannot load it, or died before the worker was forked."""
    HELLO = "hello"
    """The forked worker has shown its pidfd."""
    READY = "ready"
    EXIT = "exit"
    """Its process has ended, its group is empty."""
    SILENT = "silent"
    """Nothing of the dead is left in the pipe."""
    DEADLINE = "deadline"
    TOO_MANY = "too many"
    """Deaths or failed starts, by the restart policy."""
    FOR_GOOD = "for good"
    """It is not to come back, by its `when`."""
    STOP = "stop"


SHOWN: Final[dict[Phase, State]] = {
    Phase.STOPPED: "stopped",
    Phase.WAITING: "starting",
    Phase.LOADING: "loading",
    Phase.STARTING: "starting",
    Phase.READY: "ready",
    Phase.STOPPING: "stopping",
    Phase.TERMINATING: "stopping",
    Phase.KILLING: "stopping",
    Phase.DYING: "dead",
    Phase.DEAD: "dead",
    Phase.BACKOFF: "backoff",
    Phase.FAILED: "failed",
}

STOPPING: Final = frozenset({Phase.STOPPING, Phase.TERMINATING, Phase.KILLING})

Step = tuple[Phase, tuple[str, ...]]

TABLE: Final[dict[tuple[Phase, Event], Step]] = {
    (Phase.STOPPED, Event.START): (Phase.LOADING, ("load",)),
    (Phase.STOPPED, Event.WAIT): (Phase.WAITING, ()),
    (Phase.WAITING, Event.START): (Phase.LOADING, ("load",)),
    (Phase.WAITING, Event.STOP): (Phase.STOPPED, ()),
    (Phase.LOADING, Event.LOADED): (Phase.STARTING, ("fork",)),
    (Phase.LOADING, Event.UNLOADED): (Phase.BACKOFF, ("retry_later",)),
    (Phase.LOADING, Event.DEADLINE): (Phase.LOADING, ("load",)),
    (Phase.LOADING, Event.STOP): (Phase.STOPPED, ()),
    (Phase.STARTING, Event.HELLO): (Phase.STARTING, ("hand_over",)),
    (Phase.STARTING, Event.READY): (Phase.READY, ("announce",)),
    (Phase.STARTING, Event.EXIT): (Phase.BACKOFF, ("record_failed_start", "retry_later")),
    (Phase.STARTING, Event.UNLOADED): (Phase.BACKOFF, ("give_up_fork", "record_failed_start", "retry_later")),
    (Phase.STARTING, Event.DEADLINE): (Phase.STARTING, ("give_up_start",)),
    (Phase.STARTING, Event.STOP): (Phase.KILLING, ("kill",)),
    (Phase.READY, Event.EXIT): (Phase.DYING, ("free_lease", "drain")),
    (Phase.READY, Event.STOP): (Phase.STOPPING, ("ask_stop",)),
    (Phase.STOPPING, Event.EXIT): (Phase.STOPPED, ("free_lease", "record_stop")),
    (Phase.STOPPING, Event.DEADLINE): (Phase.TERMINATING, ("terminate",)),
    (Phase.TERMINATING, Event.EXIT): (Phase.STOPPED, ("free_lease", "record_stop")),
    (Phase.TERMINATING, Event.DEADLINE): (Phase.KILLING, ("kill",)),
    (Phase.KILLING, Event.EXIT): (Phase.STOPPED, ("free_lease", "record_stop")),
    (Phase.KILLING, Event.UNLOADED): (Phase.STOPPED, ("give_up_fork", "free_lease", "record_stop")),
    (Phase.KILLING, Event.HELLO): (Phase.KILLING, ("kill",)),
    (Phase.KILLING, Event.DEADLINE): (Phase.KILLING, ("kill",)),
    (Phase.DYING, Event.SILENT): (Phase.DEAD, ("bury", "rise_later")),
    (Phase.DYING, Event.DEADLINE): (Phase.DEAD, ("bury", "rise_later")),
    (Phase.DYING, Event.STOP): (Phase.STOPPED, ("bury",)),
    (Phase.DEAD, Event.DEADLINE): (Phase.LOADING, ("load",)),
    (Phase.DEAD, Event.TOO_MANY): (Phase.FAILED, ("try_slowly",)),
    (Phase.DEAD, Event.FOR_GOOD): (Phase.STOPPED, ()),
    (Phase.DEAD, Event.STOP): (Phase.STOPPED, ()),
    (Phase.BACKOFF, Event.DEADLINE): (Phase.LOADING, ("load",)),
    (Phase.BACKOFF, Event.TOO_MANY): (Phase.FAILED, ("try_slowly",)),
    (Phase.BACKOFF, Event.STOP): (Phase.STOPPED, ()),
    (Phase.FAILED, Event.DEADLINE): (Phase.LOADING, ("load",)),
    (Phase.FAILED, Event.STOP): (Phase.STOPPED, ()),
}


def step(phase: Phase, event: Event) -> Step:
    return TABLE.get((phase, event), (phase, ()))
