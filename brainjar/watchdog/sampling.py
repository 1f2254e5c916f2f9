"""How long until the next look: headroom to the mark ÷ the worst rate at which it can fill. Pure.

The far end is `watchdog.interval`; the near end depends on what a look costs. As earlyoom does it (`research/os_ui.md` §A1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from brainjar.watchdog.policy import Mark
from brainjar.watchdog.reading import Group, Reading, Sense

LEAST_S: Final[dict[Group, float]] = {"memory": 0.1, "gpu": 0.5, "heat": 1.0, "disk": 1.0}
SENSES: Final[dict[Group, tuple[Sense, ...]]] = {
    "memory": ("host-memory", "swap", "pressure"),
    "gpu": ("gpu-memory", "gpu-load", "heat"),
    "heat": ("heat",),
    "disk": ("disk",),
}
"""What each group may say something of."""
BYTES_S: Final[dict[Sense, float]] = {"host-memory": 6000 * 2**20, "gpu-memory": 6000 * 2**20, "disk": 500 * 2**20}
"""earlyoom's worst rate for RAM; a GPU's memory is filled over a bus that is no faster; a disk."""
DEGREES_S: Final = 2.0
"""A chip under a load that begins at once."""
ABSENT_S: Final = 30.0
"""What is not there need not be looked for each `interval`."""


def until_next(group: Group, readings: Iterable[Reading], marks: Mapping[Sense, Mark], interval: float) -> float:
    """Seconds until `group` is to be read again, given its newest readings."""
    waits = []
    for reading in readings:
        mark = marks.get(reading.sense)
        if reading.value is None:
            continue
        wait = interval
        if mark is None:
            pass
        elif reading.sense == "heat":
            wait = (mark.past - reading.value) / DEGREES_S
        elif reading.total_bytes is not None and reading.sense in BYTES_S:
            wait = (mark.past - reading.value) / 100 * reading.total_bytes / BYTES_S[reading.sense]
        elif reading.sense == "pressure" and reading.value >= mark.warn:
            wait = 1.0  # an average over 10 s says nothing new sooner
        waits.append(wait)
    return max(min([interval, *waits]) if waits else max(interval, ABSENT_S), LEAST_S[group])
