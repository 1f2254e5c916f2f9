"""What can be sensed here, for `brainjar doctor`: the watchdog's readings, as rows. What cannot be told is "n/a", never a number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainjar.isolation.findings import ETC, NA, PATIENCE_S, PROC, SYSFS, Finding, tried
from brainjar.units import format_size
from brainjar.watchdog.disk import Disk
from brainjar.watchdog.gpu import NO_DEVICE, NO_JETSON, NO_LIBRARY, Gpus, Jetson
from brainjar.watchdog.heat import Heat
from brainjar.watchdog.pressure import HOW, Pressure, stalls
from brainjar.watchdog.reading import Reading


def survey(state_dir: Path) -> tuple[Finding, ...]:
    """Every row, in the order in which they are shown. Call with one thread."""
    return (pressure(), *nvidia(), jetson(), *thermal(), disk(state_dir))


def pressure(proc: Path = PROC) -> Finding:
    (memory,) = Pressure(proc).read()
    if memory.value is None:
        return Finding("PSI", "senses", "no", NA, f"that the host thrashes cannot be sensed: {memory.why.removesuffix(f': {HOW}')}", HOW)
    there = ["memory", *(what for what in ("cpu", "io") if stalls(proc / "pressure" / what))]
    if len(there) < 3:
        return Finding("PSI", "senses", "partly", ", ".join(there), "not every pressure can be told", HOW)
    return Finding("PSI", "senses", "yes", "memory " + ", ".join(filter(None, (memory.note, f"full {memory.value:g} %"))))


def nvidia(patience_s: float = PATIENCE_S) -> tuple[Finding, ...]:
    """Asked in a process of its own: a driver that hangs, hangs whoever asks."""
    found = tried(lambda: nvml(), tuple[Finding, ...], patience_s)
    if found is None:
        how = "look at dmesg for NVRM lines; a reboot resets the driver"
        return (Finding("NVML", "senses", "no", NA, f"the NVIDIA driver gave no answer within {patience_s:g} s", how),)
    return found


def nvml(library: Any = None) -> tuple[Finding, ...]:
    """One row per device; `library`: a module like pynvml."""
    gpus = Gpus(library)
    readings = gpus.read()
    names = gpus.names()
    by_device: dict[str, list[Reading]] = {}
    for reading in readings:
        by_device.setdefault(reading.where, []).append(reading)
    if "GPU" in by_device:
        why = readings[0].why
        how = {NO_LIBRARY: "pip install nvidia-ml-py", NO_DEVICE: ""}.get(why, "where there is one, install its driver")
        return (Finding("NVML", "senses", NA, NA, f"no reading of NVIDIA GPUs: {why}", how),)
    return tuple(_gpu(where, names.get(where, ""), found) for where, found in by_device.items())


def _gpu(where: str, name: str, readings: Sequence[Reading]) -> Finding:
    """`readings`: memory, load and heat."""
    memory, load, heat = readings
    size = NA if memory.value is None else f"{format_size(memory.used_bytes or 0)} of {format_size(memory.total_bytes or 0)}"
    value = ", ".join(
        (
            name or NA,
            f"memory {NA}" if memory.value is None else size,
            f"load {NA}" if load.value is None else f"{load.value:g} % busy",
            f"temperature {NA}" if heat.value is None else f"{heat.value:g} °C",
        )
    )
    lacking = {"memory": memory.why, "load": load.why, "temperature": heat.why, "processes": memory.note}
    consequence = "; ".join(f"{what}: {why}" for what, why in lacking.items() if why)
    if not consequence:
        return Finding(where, "senses", "yes", value)
    how = "on a Jetson memory is the host's, and load and temperatures are in sysfs" if memory.why else ""
    told = any(reading.value is not None for reading in readings)
    return Finding(where, "senses", "partly" if told else NA, value, consequence, how)


def jetson(sysfs: Path = SYSFS, proc: Path = PROC, etc: Path = ETC) -> Finding:
    (load,) = Jetson(sysfs, proc, etc).read()
    if load.value is not None:
        return Finding("Jetson GPU load", "senses", "yes", f"{load.value:g} %, {load.note}")
    if load.why == NO_JETSON:
        return Finding("Jetson GPU load", "senses", NA, NA, load.why)
    return Finding("Jetson GPU load", "senses", "no", NA, load.why, "run as root, or in group video")


def thermal(sysfs: Path = SYSFS, psutil: Any = None) -> tuple[Finding, ...]:
    """One row per zone and sensor."""
    return tuple(_heat(reading) for reading in Heat(sysfs, psutil).read())


def _heat(reading: Reading) -> Finding:
    name = f"thermal {reading.where}" if reading.where else "thermal zones"
    if reading.value is None:
        return Finding(name, "senses", NA, NA, reading.why)
    return Finding(name, "senses", "yes", f"{reading.value:.1f} °C")


def disk(state_dir: Path) -> Finding:
    """Of the nearest directory that is there already: a jar that never ran has none."""
    there = next((one for one in (state_dir, *state_dir.parents) if os.path.exists(one)), state_dir)
    (reading,) = Disk(there).read()
    if reading.value is None:
        consequence = f"that the jar's disk fills up cannot be sensed: {there}: {reading.why}"
        return Finding("disk", "senses", NA, NA, consequence)
    sizes = f"{format_size(reading.used_bytes or 0)} of {format_size(reading.total_bytes or 0)}"
    return Finding("disk", "senses", "yes", f"{sizes} in use, {reading.value:.0f} %, at {there}")
