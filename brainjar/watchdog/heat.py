"""How hot the board is: the kernel's thermal zones, and the sensors that psutil finds beside them."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any, Final

from brainjar.isolation.findings import text
from brainjar.watchdog.reading import Reading

NOTHING: Final = "heat cannot be sensed: a virtual machine, or a kernel without thermal drivers"
_LEAST, _MOST = -39, 150
"""°C, what a sensor on a board can truly read. An offline one reads -256, or whatever is in its register (`research/os_ui.md` §A7)."""
FIXED: Final = frozenset({"PMIC-Die"})
"""Zones that say the same whatever the temperature is: 100 °C on Jetson TX2, Xavier and Nano (balena-os/balena-jetson#142)."""
_OFF: Final = (-256.0, -0.256)
"""°C as it is read, and taken for thousandths."""


def sound(celsius: float) -> bool:
    return _LEAST <= celsius <= _MOST and celsius not in _OFF


class Heat:
    """`psutil`: a module like it; imported at the first reading."""

    def __init__(self, sysfs: Path = Path("/sys"), psutil: Any = None) -> None:
        self._zones = sysfs / "class/thermal"
        self._psutil = psutil

    def read(self) -> list[Reading]:
        zones = sorted(self._zones.glob("thermal_zone*"), key=lambda zone: (len(zone.name), zone.name))
        types = [text(zone / "type") or zone.name for zone in zones]
        shown = {_plain(kind) for kind in types}
        found = [(kind, *_zone(zone, kind)) for kind, zone in zip(types, zones, strict=True)]
        found += [sensor for chip, sensor in self._sensors() if _plain(chip) not in shown]
        if not found:
            return [Reading(sense="heat", why=NOTHING)]
        often, count = Counter(where for where, _, _ in found), Counter[str]()
        readings = []
        for where, celsius, why in found:
            count[where] += 1
            name = f"{where} {count[where]}" if often[where] > 1 else where
            readings.append(Reading(sense="heat", where=name, value=celsius, why=why))
        return readings

    def _sensors(self) -> list[tuple[str, tuple[str, float | None, str]]]:
        """(chip, (where, °C, why not)); hwmon has a chip for many a thermal zone too, of the same name."""
        try:
            if self._psutil is None:
                self._psutil = importlib.import_module("psutil")
            chips = self._psutil.sensors_temperatures()
        except (ImportError, AttributeError, OSError, ValueError):  # another system's psutil has none; drivers say anything
            return []
        found: list[tuple[str, tuple[str, float | None, str]]] = []
        for chip, sensors in chips.items():
            for sensor in sensors:
                where = f"{chip} {sensor.label}".strip()
                good = isinstance(sensor.current, int | float) and sound(sensor.current)
                found.append((chip, (where, float(sensor.current), "") if good else (where, None, f"reads {sensor.current} °C: it is off")))
        return found


def _zone(zone: Path, kind: str) -> tuple[float | None, str]:
    if kind in FIXED:
        return None, "says the same whatever the temperature is, on this board"
    raw = text(zone / "temp")
    if raw is None:
        return None, "its reading fails: the sensor is off"
    try:
        celsius = int(raw) / 1000
    except ValueError:
        return None, f"reads {raw[:40]!r}"
    return (celsius, "") if sound(celsius) else (None, f"reads {raw[:40]}: the sensor is off")


def _plain(name: str) -> str:
    """A hwmon chip has the zone's type with underscores for dashes: drivers/thermal/thermal_hwmon.c."""
    return name.replace("-", "_")
