"""What a GPU's driver says, or nothing: through the real pynvml from a stand-in for the driver, and from stand-ins for pynvml."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest

from brainjar.watchdog import gpu
from brainjar.watchdog.gpu import AGAIN_S, NO_DEVICE, NO_LIBRARY, Gpus, Jetson
from brainjar.watchdog.reading import Reading
from tests import nvml

GIB: Final = 1 << 30
WHOLE: Final = f"""devices 1
name NVIDIA H100
memory {20 * GIB} {80 * GIB}
temperature 61
utilization 40
"""
ASK: Final = """
import sys
import msgspec
from brainjar.watchdog.gpu import Gpus
now = [0.0]
gpus = Gpus(clock=lambda: now[0])
for line in sys.stdin:
    if line == "new\\n":
        gpus = Gpus(clock=lambda: now[0])
    now[0] += 0 if line == "new\\n" else float(line)
    print(msgspec.json.encode([gpus.read(), gpus.names()]).decode(), flush=True)
"""


class Driver:
    """A process with the real pynvml, which has the stand-in for its driver."""

    def __init__(self, library: Path, answers: Path) -> None:
        self._answers = answers
        self.process = subprocess.Popen(
            [sys.executable, "-c", ASK],
            env=os.environ | nvml.environment(library, answers),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, answers: str | None, after: float | None = None) -> dict[tuple[str, str], Reading]:
        """What a reader makes of it: a new one, or the same one `after` so many seconds. None: there is no driver."""
        if answers is None:
            self._answers.unlink(missing_ok=True)
        else:
            self._answers.write_text(answers)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("new\n" if after is None else f"{after}\n")
        self.process.stdin.flush()
        readings, self.names = msgspec.json.decode(self.process.stdout.readline(), type=tuple[list[Reading], dict[str, str]])
        found: dict[tuple[str, str], Reading] = {reading.key: reading for reading in readings}
        assert len(found) == len(readings)
        for reading in readings:
            assert (reading.value is None) is bool(reading.why), reading
        return found


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    place = tmp_path_factory.mktemp("nvml")
    library = nvml.build(place)
    if library is None:
        pytest.skip(nvml.WHY_NOT)
    one = Driver(library, place / "answers")
    with one.process as process:
        yield one
        assert process.stdin is not None
        process.stdin.close()


def values(found: dict[tuple[str, str], Reading], where: str = "GPU 0") -> tuple[float | None, ...]:
    return tuple(found[sense, where].value for sense in gpu.SENSES)


# ── a driver ──


def test_a_whole_gpu(driver: Driver) -> None:
    found = driver.says(WHOLE + f"process 7 {2 * GIB}\nprocess 8 {GIB}\ngraphics 9 1024\n")
    memory = found["gpu-memory", "GPU 0"]
    assert values(found) == (25.0, 40.0, 61.0)
    assert (memory.used_bytes, memory.total_bytes) == (20 * GIB, 80 * GIB)
    assert (memory.by, memory.note) == ({7: 2 * GIB, 8: GIB, 9: 1024}, "")
    assert driver.names == {"GPU 0": "NVIDIA H100"}


def test_an_idle_one_is_no_broken_one(driver: Driver) -> None:
    found = driver.says(f"devices 1\nmemory 0 {80 * GIB}\ntemperature 25\nutilization 0\n")
    assert values(found) == (0.0, 0.0, 25.0)
    assert found["gpu-memory", "GPU 0"].by == {}


def test_each_of_several_is_read_though_one_is_lost(driver: Driver) -> None:
    found = driver.says(WHOLE.replace("devices 1", "devices 3") + "device 1\nmemory 1 4\ndevice 2\nerror handle 15\n")
    assert values(found) == (25.0, 40.0, 61.0)
    assert values(found, "GPU 1") == (25.0, 40.0, 61.0)
    assert found["gpu-memory", "GPU 1"].used_bytes == 1
    assert values(found, "GPU 2") == (None, None, None)
    assert "lost" in found["heat", "GPU 2"].why


def test_many_processes(driver: Driver) -> None:
    found = driver.says(WHOLE + "".join(f"process {pid} {pid}\n" for pid in range(1, 201)))
    assert found["gpu-memory", "GPU 0"].by == {pid: pid for pid in range(1, 201)}


def test_who_computes_and_draws_is_counted_once_and_who_has_several_parts_for_each(driver: Driver) -> None:
    found = driver.says(WHOLE + "process 7 100\ngraphics 7 100\nprocess 8 100\nprocess 8 50\n")
    assert found["gpu-memory", "GPU 0"].by == {7: 100, 8: 150}


@pytest.mark.parametrize(
    ("lines", "by", "note"),
    [
        ("process 7 -\nprocess 8 100\n", {8: 100}, "pid 7"),
        (f"process 7 {81 * GIB}\nprocess 8 100\n", {8: 100}, "pid 7"),
        ("process 0 100\nprocess 4294967295 100\nprocess 8 100\n", {8: 100}, "2 without a pid"),
        ("error process 3\ngraphics 8 100\n", {8: 100}, "computes is not told: Not Supported"),
        ("error process 3\nerror graphics 3\n", {}, "draws is not told: Not Supported"),
        ("process 7 -\ngraphics 7 100\n", {7: 100}, ""),
    ],
)
def test_a_process_of_which_nothing_sound_is_said_is_left_out_and_that_is_told(
    driver: Driver, lines: str, by: dict[int, int], note: str
) -> None:
    memory = driver.says(WHOLE + lines)["gpu-memory", "GPU 0"]
    assert (memory.value, memory.by) == (25.0, by)
    assert note in memory.note and bool(note) is bool(memory.note)


@pytest.mark.parametrize("code", [2, 3, 4, 10, 13, 16, 17, 77, 999])
@pytest.mark.parametrize(("call", "at"), [("memory", 0), ("utilization", 1), ("temperature", 2)])
def test_a_call_that_fails_is_not_known_and_the_others_are(driver: Driver, call: str, at: int, code: int) -> None:
    found = values(driver.says(WHOLE + f"error {call} {code}\n"))
    assert found == tuple(None if n == at else value for n, value in enumerate((25.0, 40.0, 61.0)))


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (f"{20 * GIB} {80 * GIB}", "0 0", (None, 40.0, 61.0)),
        (f"{20 * GIB} {80 * GIB}", f"{81 * GIB} {80 * GIB}", (None, 40.0, 61.0)),
        ("temperature 61", "temperature 0", (25.0, 40.0, None)),
        ("temperature 61", "temperature -5", (25.0, 40.0, None)),
        ("temperature 61", "temperature 151", (25.0, 40.0, None)),
        ("utilization 40", "utilization 101", (25.0, None, 61.0)),
        ("utilization 40", "utilization 4294967295", (25.0, None, 61.0)),
    ],
)
def test_counters_that_make_no_sense_are_not_known(driver: Driver, old: str, new: str, wanted: tuple[float | None, ...]) -> None:
    assert old in WHOLE
    assert values(driver.says(WHOLE.replace(old, new))) == wanted


def test_a_jetson_says_success_and_zero(driver: Driver) -> None:
    found = driver.says("devices 1\nname Orin (nvgpu)\nmemory 0 0\ntemperature 0\nutilization 0\n")
    assert values(found) == (None, None, None)
    assert driver.names == {"GPU 0": "Orin (nvgpu)"}


def test_or_refuses_everything(driver: Driver) -> None:
    found = driver.says("devices 1\n")
    assert values(found) == (None, None, None)
    assert {reading.why for reading in found.values()} == {"Not Supported"}
    assert driver.names == {}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (None, "Driver Not Loaded"),
        ("error init 18\n", "mismatch"),
        ("", NO_DEVICE),
        ("devices 4294967295\n", "4294967295"),
        (WHOLE + "error count 999\n", "Unknown"),
    ],
)
def test_without_a_device_each_sense_says_so_once(driver: Driver, answers: str | None, why: str) -> None:
    found = driver.says(answers)
    assert set(found) == {(sense, "GPU") for sense in gpu.SENSES}
    assert values(found, "GPU") == (None, None, None)
    assert all(why in reading.why for reading in found.values())


def test_a_driver_that_was_not_there_is_tried_again_after_a_while(driver: Driver) -> None:
    driver.says(None)
    assert values(driver.says(WHOLE, after=AGAIN_S - 1), "GPU") == (None, None, None)
    assert values(driver.says(WHOLE, after=1)) == (25.0, 40.0, 61.0)


def test_a_device_that_was_not_there_is_found_by_beginning_anew(driver: Driver) -> None:
    driver.says("")
    for after in (AGAIN_S - 1, 1):
        assert values(driver.says(WHOLE, after), "GPU") == (None, None, None)
    assert values(driver.says(WHOLE, after=1)) == (25.0, 40.0, 61.0)


def test_a_driver_that_is_loaded_anew_is_begun_with_anew(driver: Driver) -> None:
    assert values(driver.says(WHOLE + "boot 1\n")) == (25.0, 40.0, 61.0)
    found = driver.says(WHOLE + "boot 2\n", after=AGAIN_S)
    assert values(found, "GPU") == (None, None, None)
    assert "Uninitialized" in found["heat", "GPU"].why
    assert values(driver.says(WHOLE + "boot 2\n", after=1)) == (25.0, 40.0, 61.0), "at once: it began long ago"
    assert values(driver.says(WHOLE + "boot 3\n", after=1), "GPU") == (None, None, None)
    assert values(driver.says(WHOLE + "boot 3\n", after=AGAIN_S - 3), "GPU") == (None, None, None), "at most once in a while"
    driver.says(WHOLE + "boot 3\n", after=2)
    assert values(driver.says(WHOLE + "boot 3\n", after=0)) == (25.0, 40.0, 61.0)


def test_one_call_that_fails_for_ever_does_not_cost_the_others(driver: Driver) -> None:
    answers = WHOLE + "error utilization 999\n"
    assert values(driver.says(answers)) == (25.0, None, 61.0)
    for after in (1, AGAIN_S, 1, 1, AGAIN_S, 1):
        assert values(driver.says(answers, after)) == (25.0, None, 61.0)


@pytest.mark.parametrize("answers", ["hang\n", "hang init\n", WHOLE + "hang memory\n"])
def test_a_driver_that_hangs_hangs_whoever_asks(tmp_path: Path, answers: str) -> None:
    library = nvml.build(tmp_path)
    if library is None:
        pytest.skip(nvml.WHY_NOT)
    (tmp_path / "answers").write_text(answers)
    program = "import pynvml; from brainjar.watchdog.gpu import Gpus; print('asks', flush=True); Gpus().read()"
    env = os.environ | nvml.environment(library, tmp_path / "answers")
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.kill()


# ── a binding ──


class Refused(Exception):
    pass


def binding(**answers: Any) -> Any:
    """A stand-in for pynvml: refuses what is not in `answers`, and raises what is an exception there."""

    def answer(name: str) -> Callable[..., Any]:
        def ask(*_: object) -> Any:
            said = answers.get(name, Refused("Not Supported"))
            if isinstance(said, Exception):
                raise said
            return said

        return ask

    calls = """Init Shutdown DeviceGetCount DeviceGetHandleByIndex DeviceGetName DeviceGetMemoryInfo DeviceGetTemperature
        DeviceGetUtilizationRates DeviceGetComputeRunningProcesses DeviceGetGraphicsRunningProcesses"""
    return SimpleNamespace(NVMLError=Refused, NVML_TEMPERATURE_GPU=0, **{f"nvml{call}": answer(call) for call in calls.split()})


ONE: Final = {"Init": None, "DeviceGetCount": 1, "DeviceGetHandleByIndex": 0, "DeviceGetMemoryInfo": SimpleNamespace(total=100, used=25)}


def test_a_binding_that_says_none_or_nonsense_of_a_process() -> None:
    processes = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in ((1, None), (2, (1 << 64) - 1), (3, -1), (-4, 10), (5, 10))]
    memory = Gpus(binding(**ONE, DeviceGetComputeRunningProcesses=processes, DeviceGetGraphicsRunningProcesses=[])).read()[0]
    assert (memory.value, memory.by) == (25.0, {5: 10})
    assert "pid 1, 2, 3" in memory.note
    assert "1 without a pid" in memory.note


@pytest.mark.parametrize(
    "error", [ValueError("odd"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), OSError("odd"), TypeError(), MemoryError()]
)
def test_a_binding_that_raises_anything_is_a_reason(error: Exception) -> None:
    said = ONE | {"DeviceGetMemoryInfo": error, "DeviceGetTemperature": error, "DeviceGetUtilizationRates": error, "DeviceGetName": error}
    gpus = Gpus(binding(**said))
    for reading in gpus.read():
        assert reading.value is None
        assert reading.why
    assert gpus.names() == {}


def test_a_name_in_bytes_is_a_name() -> None:
    assert Gpus(binding(**ONE, DeviceGetName=b"NVIDIA H100")).names() == {"GPU 0": "NVIDIA H100"}


def test_a_driver_that_cannot_tell_its_memory_is_not_believed_when_it_is_idle() -> None:
    said = ONE | {"DeviceGetMemoryInfo": Refused("Not Supported")}
    assert Gpus(binding(**said, DeviceGetUtilizationRates=SimpleNamespace(gpu=0))).read()[1].value is None
    assert Gpus(binding(**said, DeviceGetUtilizationRates=SimpleNamespace(gpu=7))).read()[1].value == 7.0


def test_the_binding_is_imported_at_the_first_reading_and_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def missing(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    now = 0.0
    gpus = Gpus(clock=lambda: now)
    assert asked == []
    for at in (0.0, 1.0, AGAIN_S):
        now = at
        assert [(reading.where, reading.why) for reading in gpus.read()] == [("GPU", NO_LIBRARY)] * 3
    assert asked == ["pynvml", "pynvml"]


# ── a Jetson ──


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("path", ["devices/platform/gpu.0/load", "devices/platform/bus@0/17000000.gpu/load", "devices/gpu.0/load"])
@pytest.mark.parametrize(("text", "value"), [("415\n", 41.5), ("0\n", 0.0), ("1000\n", 100.0)])
def test_the_load_of_a_jetson_is_in_thousandths(tmp_path: Path, path: str, text: str, value: float) -> None:
    (found,) = Jetson(put(tmp_path, {path: text}), tmp_path, tmp_path).read()
    assert (found.key, found.value, found.note) == (("gpu-load", "Jetson GPU"), value, str(tmp_path / path))


@pytest.mark.parametrize("text", ["1001\n", "-1\n", "", "busy\n"])
@pytest.mark.parametrize("board", [{"etc/nv_tegra_release": ""}, {"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}])
def test_a_load_that_makes_no_sense_is_not_known(tmp_path: Path, text: str, board: dict[str, str]) -> None:
    put(tmp_path, board | {"sys/devices/gpu.0/load": text})
    (found,) = Jetson(tmp_path / "sys", tmp_path / "proc", tmp_path / "etc").read()
    assert found.value is None
    assert "load" in found.why


def test_another_board_is_no_jetson(tmp_path: Path) -> None:
    put(tmp_path, {"device-tree/model": "Raspberry Pi 5\0"})
    (found,) = Jetson(tmp_path, tmp_path, tmp_path).read()
    assert (found.value, found.why) == (None, gpu.NO_JETSON)
