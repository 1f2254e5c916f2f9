"""How much of each NVIDIA GPU's memory is in use and by whom, how busy it is, how hot: what NVML says. And the load of a Jetson's.

The driver may hang whoever asks it, and comes and goes while we run. What it cannot tell it refuses, or says zero and success:
a Jetson's memory is the host's, and its NVML does both (`research/os_ui.md` §A7).
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from brainjar.isolation.board import board
from brainjar.isolation.findings import ETC, PROC, SYSFS, number
from brainjar.watchdog import heat
from brainjar.watchdog.reading import Reading, Sense

SENSES: Final[tuple[Sense, ...]] = ("gpu-memory", "gpu-load", "heat")
NO_LIBRARY: Final = "nvidia-ml-py is missing"
NO_DEVICE: Final = "the NVIDIA driver knows no GPU"
NO_JETSON: Final = "not a Jetson"
AGAIN_S: Final = 60.0
"""At least this between two beginnings with the driver: one costs milliseconds without a GPU and may cost seconds with one."""
_GONE: Final = frozenset({1, 9, 15, 18, 999})
"""NVML_ERROR_UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, LIB_RM_VERSION_MISMATCH, UNKNOWN of nvml.h: begin anew."""
_MOST_GPUS: Final = 256
_MOST_PID: Final = 1 << 22
"""PID_MAX_LIMIT of linux/threads.h. 0: a process of another pid namespace."""
_NOT_AVAILABLE: Final = (1 << 64) - 1
_LOADS: Final = ("devices/platform/gpu.0/load", "devices/platform/bus@0/17000000.gpu/load", "devices/gpu.0/load")


class Gpus:
    """`library`: a module like pynvml, which is imported, and begins with the driver, at the first reading."""

    def __init__(self, library: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._library = library
        self._clock = clock
        self._begun_at: float | None = None
        self._up = False
        self._gone = False
        self._why = ""

    def read(self) -> list[Reading]:
        """Of each GPU one for each of `SENSES`; where there is none, one for each of `SENSES` that says why."""
        count = self._count()
        found = [reading for n in range(count) for reading in self._device(n)]
        self._end_if_gone()
        return found or [Reading(sense=sense, where="GPU", why=self._why) for sense in SENSES]

    def names(self) -> dict[str, str]:
        """By `where`, as far as the driver tells."""
        found = {}
        for n in range(self._count()):
            handle, _ = self._ask(self._library.nvmlDeviceGetHandleByIndex, n)
            name, _ = self._ask(self._library.nvmlDeviceGetName, handle) if handle is not None else (None, "")
            if name:
                found[f"GPU {n}"] = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        self._end_if_gone()
        return found

    def _begin(self) -> bool:
        now = self._clock()
        if self._begun_at is not None and now - self._begun_at < AGAIN_S:
            return False
        self._begun_at = now
        if self._library is None:
            try:
                self._library = importlib.import_module("pynvml")
            except ImportError:
                self._why = NO_LIBRARY
                return False
        _, self._why = self._ask(self._library.nvmlInit)
        self._up, self._gone = not self._why, False
        return self._up

    def _count(self) -> int:
        """0: `_why` says why."""
        if not self._up and not self._begin():
            return 0
        count, self._why = self._ask(self._library.nvmlDeviceGetCount)
        if count is None:
            return 0
        if not 0 < count <= _MOST_GPUS:
            self._why = f"the NVIDIA driver says that it has {count} GPUs" if count else NO_DEVICE
            self._gone = True  # a driver learns of devices only as it begins
            return 0
        return int(count)

    def _end_if_gone(self) -> None:
        """Not before it may begin anew: what else the driver tells is read until then."""
        if self._gone and self._up and self._begun_at is not None and self._clock() - self._begun_at >= AGAIN_S:
            self._ask(self._library.nvmlShutdown)
            self._up = False

    def _ask(self, function: Callable[..., Any], *args: Any) -> tuple[Any, str]:
        """(what it says, "") or (None, why)."""
        try:
            return function(*args), ""
        except (self._library.NVMLError, ValueError, TypeError, AttributeError, OSError, MemoryError) as error:
            self._gone = self._gone or getattr(error, "value", None) in _GONE
            return None, str(error) or type(error).__name__

    def _device(self, n: int) -> list[Reading]:
        where = f"GPU {n}"
        handle, why = self._ask(self._library.nvmlDeviceGetHandleByIndex, n)
        if handle is None:
            return [Reading(sense=sense, where=where, why=why) for sense in SENSES]
        memory = self._memory(where, handle)
        return [memory, self._load(where, handle, bool(memory.total_bytes)), self._heat(where, handle)]

    def _memory(self, where: str, handle: Any) -> Reading:
        """`total_bytes` is told wherever it makes sense."""
        said, why = self._ask(self._library.nvmlDeviceGetMemoryInfo, handle)
        if said is None:
            return Reading(sense="gpu-memory", where=where, why=why)
        used, total = said.used, said.total
        if total <= 0:
            return Reading(sense="gpu-memory", where=where, why=f"says that it has {total} bytes")
        if not 0 <= used <= total:
            return Reading(sense="gpu-memory", where=where, why=f"says that {used} of {total} bytes are in use", total_bytes=total)
        by, note = self._processes(handle, total)
        return Reading(sense="gpu-memory", where=where, value=100 * used / total, used_bytes=used, total_bytes=total, by=by, note=note)

    def _processes(self, handle: Any, total: int) -> tuple[dict[int, int], str]:
        """Bytes by pid, and what is lacking. A process that both computes and draws is in both lists, each time with all it has."""
        library, notes, unsized, nameless = self._library, [], set[int](), 0
        by: dict[int, int] = {}
        lists = {"computes": library.nvmlDeviceGetComputeRunningProcesses, "draws": library.nvmlDeviceGetGraphicsRunningProcesses}
        for does, function in lists.items():
            listed, why = self._ask(function, handle)
            if listed is None:
                notes.append(f"which process {does} is not told: {why}")
                continue
            own = Counter[int]()  # a process on several parts of one GPU is in the list once for each
            for process in listed:
                pid, used = process.pid, process.usedGpuMemory
                if not 0 < pid <= _MOST_PID:
                    nameless += 1
                elif used is None or used == _NOT_AVAILABLE or not 0 <= used <= total:
                    unsized.add(pid)
                else:
                    own[pid] += used
            by |= {pid: max(used, by.get(pid, 0)) for pid, used in own.items()}
        if unsized - set(by):
            notes.append(f"how much is not told of pid {', '.join(map(str, sorted(unsized - set(by))))}")
        if nameless:
            notes.append(f"{nameless} without a pid: another pid namespace")
        return by, "; ".join(notes)

    def _load(self, where: str, handle: Any, measures: bool) -> Reading:
        """`measures`: whether this driver tells of a memory, so that its zeros are to be believed."""
        said, why = self._ask(self._library.nvmlDeviceGetUtilizationRates, handle)
        if said is None:
            return Reading(sense="gpu-load", where=where, why=why)
        if not 0 <= said.gpu <= 100 or (said.gpu == 0 and not measures):
            return Reading(sense="gpu-load", where=where, why=f"says {said.gpu} % busy")
        return Reading(sense="gpu-load", where=where, value=float(said.gpu))

    def _heat(self, where: str, handle: Any) -> Reading:
        celsius, why = self._ask(self._library.nvmlDeviceGetTemperature, handle, self._library.NVML_TEMPERATURE_GPU)
        if celsius is not None and (celsius == 0 or not heat.sound(celsius)):
            celsius, why = None, f"says {celsius} °C"
        return Reading(sense="heat", where=where, value=None if celsius is None else float(celsius), why=why)


class Jetson:
    """The load of a Jetson's GPU, in thousandths, from its driver's file in sysfs."""

    def __init__(self, sysfs: Path = SYSFS, proc: Path = PROC, etc: Path = ETC) -> None:
        self._paths = tuple(sysfs / load for load in _LOADS)
        self._proc, self._etc = proc, etc

    def read(self) -> list[Reading]:
        return [self._read()]

    def _read(self) -> Reading:
        where, odd = "Jetson GPU", ""
        for path in self._paths:
            permille = number(path)
            if permille is not None and 0 <= permille <= 1000:
                return Reading(sense="gpu-load", where=where, value=permille / 10, note=str(path))
            odd = odd or (f"{path} reads {permille}" if permille is not None else "")
        if board(self._proc, self._etc) != "jetson":
            return Reading(sense="gpu-load", where=where, why=NO_JETSON)
        return Reading(sense="gpu-load", where=where, why=odd or f"none of {', '.join(map(str, self._paths))} can be read")
