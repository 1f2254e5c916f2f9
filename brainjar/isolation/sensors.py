"""What can be sensed on this host, for `brainjar doctor`: pressure, GPUs, heat. A reading that makes no sense is "n/a", never a number."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from brainjar.isolation.findings import ETC, NA, PATIENCE_S, PROC, SYSFS, Finding, number, text, tried
from brainjar.units import format_size

_CELSIUS: Final = range(-39, 151)
"""What a sensor on a board can truly read. An offline one reads -256, or whatever is in its register (`research/os_ui.md` §A7)."""
_JETSON_LOADS: Final = ("devices/platform/gpu.0/load", "devices/platform/bus@0/17000000.gpu/load", "devices/gpu.0/load")


def pressure(proc: Path = PROC) -> Finding:
    how = "psi=1 on the kernel's command line, then reboot; the kernel needs CONFIG_PSI"
    said = {what: text(proc / "pressure" / what) for what in ("memory", "cpu", "io")}
    there = [what for what, words in said.items() if words and "avg10=" in words]
    if "memory" not in there:
        return Finding("PSI", "senses", "no", NA, "that the host thrashes cannot be sensed", how)
    if len(there) < len(said):
        return Finding("PSI", "senses", "partly", ", ".join(there), "not every pressure can be told", how)
    stalls = {line.split()[0]: line.split("avg10=")[1].split()[0] for line in (said["memory"] or "").splitlines() if "avg10=" in line}
    return Finding("PSI", "senses", "yes", "memory " + ", ".join(f"{kind} {value} %" for kind, value in stalls.items()))


def nvidia(patience_s: float = PATIENCE_S) -> tuple[Finding, ...]:
    """Asked in a process of its own: a driver that hangs, hangs whoever asks."""
    found = tried(lambda: nvml(), tuple[Finding, ...], patience_s)
    if found is None:
        how = "look at dmesg for NVRM lines; a reboot resets the driver"
        return (Finding("NVML", "senses", "no", NA, f"the NVIDIA driver gave no answer within {patience_s:g} s", how),)
    return found


def nvml(library: Any = None) -> tuple[Finding, ...]:
    """One row per device; `library`: a module like pynvml."""
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return (Finding("NVML", "senses", NA, NA, "no reading of NVIDIA GPUs: nvidia-ml-py is missing", "pip install nvidia-ml-py"),)
    try:
        library.nvmlInit()
        handles = [library.nvmlDeviceGetHandleByIndex(n) for n in range(library.nvmlDeviceGetCount())]
    except library.NVMLError as error:
        return (Finding("NVML", "senses", NA, NA, f"no reading of NVIDIA GPUs: {error}", "where there is one, install its driver"),)
    if not handles:
        return (Finding("NVML", "senses", NA, NA, "the NVIDIA driver knows no GPU"),)
    return tuple(_gpu(library, n, handle) for n, handle in enumerate(handles))


def _gpu(library: Any, n: int, handle: Any) -> Finding:
    why: dict[str, str] = {}

    def ask(what: str, call: Callable[[], Any]) -> Any:
        try:
            got = call()
        except library.NVMLError as error:
            why[what] = str(error)
            return None
        if not got:  # a Jetson says success, and zero
            why[what] = "reads 0"
        return got or None

    name = ask("name", lambda: library.nvmlDeviceGetName(handle))
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    memory = ask("memory", lambda: library.nvmlDeviceGetMemoryInfo(handle))
    if memory is not None and not memory.total:
        memory, why["memory"] = None, "reads 0"
    celsius = ask("temperature", lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
    if celsius is not None and celsius not in _CELSIUS:
        celsius, why["temperature"] = None, f"reads {celsius}"
    value = ", ".join(
        (
            name or NA,
            f"{format_size(memory.used)} of {format_size(memory.total)}" if memory else f"memory {NA}",
            f"{celsius} °C" if celsius else f"temperature {NA}",
        )
    )
    if not why:
        return Finding(f"GPU {n}", "senses", "yes", value)
    consequence = "; ".join(f"{what}: {reason}" for what, reason in why.items())
    how = "on a Jetson memory is the host's, and load and temperatures are in sysfs" if "memory" in why else ""
    return Finding(f"GPU {n}", "senses", "partly" if memory or celsius else NA, value, consequence, how)


def jetson(sysfs: Path = SYSFS, proc: Path = PROC, etc: Path = ETC) -> Finding:
    for load in _JETSON_LOADS:
        permille = number(sysfs / load)
        if permille is not None and 0 <= permille <= 1000:
            return Finding("Jetson GPU load", "senses", "yes", f"{permille / 10:g} %, {sysfs / load}")
    board = (text(proc / "device-tree/model") or "").rstrip("\0")
    if (etc / "nv_tegra_release").exists() or "jetson" in board.lower():
        paths = ", ".join(str(sysfs / load) for load in _JETSON_LOADS)
        return Finding("Jetson GPU load", "senses", "no", NA, f"none of {paths} can be read", "run as root, or in group video")
    return Finding("Jetson GPU load", "senses", NA, NA, "not a Jetson")


def thermal(sysfs: Path = SYSFS) -> tuple[Finding, ...]:
    zones = sorted((sysfs / "class/thermal").glob("thermal_zone*"), key=lambda zone: int("".join(filter(str.isdigit, zone.name)) or 0))
    if not zones:
        consequence = "heat cannot be sensed: a virtual machine, or a kernel without thermal drivers"
        return (Finding("thermal zones", "senses", NA, NA, consequence),)
    return tuple(_zone(zone) for zone in zones)


def _zone(zone: Path) -> Finding:
    name = f"thermal {text(zone / 'type') or zone.name}"
    raw = text(zone / "temp")
    try:
        celsius = int(raw or "") / 1000
    except ValueError:
        return Finding(name, "senses", NA, NA, "its reading fails: the sensor is off" if raw is None else f"reads {raw!r}")
    if raw == "-256" or not _CELSIUS.start <= celsius < _CELSIUS.stop:
        return Finding(name, "senses", NA, NA, f"reads {raw}: the sensor is off")
    return Finding(name, "senses", "yes", f"{celsius:.1f} °C")
