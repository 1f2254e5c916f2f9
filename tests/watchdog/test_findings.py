"""What the doctor says that can be sensed here is what the watchdog's readers say; what makes no sense is "n/a", never a number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from brainjar.isolation.findings import NA, Finding, State
from brainjar.watchdog import findings
from tests import nvml
from tests.patience import PATIENCE_S
from tests.watchdog.test_gpu import ONE, WHOLE, binding, put

NO_PSUTIL = SimpleNamespace(sensors_temperatures=dict)


def well_formed(finding: Finding) -> bool:
    """As in `tests.isolation.test_host`."""
    return bool(
        finding.name
        and finding.value
        and finding.group == "senses"
        and finding.state in get_args(State)
        and (finding.state == "yes" or finding.consequence)
        and (finding.state != "yes" or not (finding.consequence or finding.how))
    )


def test_this_very_host_and_nothing_is_left_behind(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    rows = findings.survey(tmp_path / "not" / "yet")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not list(tmp_path.iterdir())
    assert all(map(well_formed, rows)), [row for row in rows if not well_formed(row)]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {"PSI", "Jetson GPU load", "disk"} <= set(names)
    assert any(name == "NVML" or name.startswith("GPU ") for name in names)
    assert any(name.startswith("thermal ") for name in names)
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == children


def test_psi_missing_shut_off_and_there(tmp_path: Path) -> None:
    assert (findings.pressure(tmp_path).state, findings.pressure(tmp_path).value) == ("no", NA)
    assert "psi=1" in findings.pressure(tmp_path).how
    assert "psi=1" not in findings.pressure(tmp_path).consequence
    line = "some avg10=1.25 avg60=0.00 avg300=0.00 total=1\n"
    put(tmp_path, {"pressure/memory": line + line.replace("some", "full"), "pressure/cpu": line, "pressure/io": ""})
    assert (findings.pressure(tmp_path).state, findings.pressure(tmp_path).value) == ("partly", "memory, cpu")
    put(tmp_path, {"pressure/io": line})
    assert (findings.pressure(tmp_path).state, findings.pressure(tmp_path).value) == ("yes", "memory some 1.25 %, full 1.25 %")
    put(tmp_path, {"pressure/memory": "full avg10=nan\n"})
    assert (findings.pressure(tmp_path).state, findings.pressure(tmp_path).value) == ("no", NA)


def test_a_thermal_zone_that_is_off_has_no_temperature(tmp_path: Path) -> None:
    zone = "class/thermal/thermal_zone"
    put(tmp_path, {f"{zone}0/type": "cpu-thermal\n", f"{zone}0/temp": "45500\n", f"{zone}1/type": "cv0\n", f"{zone}1/temp": "-256\n"})
    chips = SimpleNamespace(sensors_temperatures=lambda: {"nvme": [SimpleNamespace(label="Composite", current=38.25)]})
    on, off, chip = findings.thermal(tmp_path, chips)
    assert (on.name, on.state, on.value) == ("thermal cpu-thermal", "yes", "45.5 °C")
    assert (off.name, off.state, off.value) == ("thermal cv0", "n/a", NA)
    assert off.consequence
    assert (chip.name, chip.state, chip.value) == ("thermal nvme Composite", "yes", "38.2 °C")


def test_no_thermal_zone_is_na(tmp_path: Path) -> None:
    (found,) = findings.thermal(tmp_path, NO_PSUTIL)
    assert (found.name, found.state, found.value) == ("thermal zones", "n/a", NA)
    assert "virtual machine" in found.consequence


def test_without_a_driver_there_is_no_gpu() -> None:
    (found,) = findings.nvml(binding())
    assert (found.name, found.state, found.value) == ("NVML", "n/a", NA)
    assert "Not Supported" in found.consequence
    assert "install its driver" in found.how
    (none,) = findings.nvml(binding(Init=None, DeviceGetCount=0))
    assert (none.name, none.state, none.how) == ("NVML", "n/a", "")


GOOD: dict[str, Any] = {
    **ONE,
    "DeviceGetName": b"NVIDIA H100",
    "DeviceGetMemoryInfo": SimpleNamespace(total=80 << 30, used=1 << 30),
    "DeviceGetTemperature": 31,
    "DeviceGetUtilizationRates": SimpleNamespace(gpu=0, memory=0),
    "DeviceGetComputeRunningProcesses": [],
    "DeviceGetGraphicsRunningProcesses": [],
}


def test_a_whole_gpu() -> None:
    (found,) = findings.nvml(binding(**GOOD))
    assert (found.name, found.state, found.value) == ("GPU 0", "yes", "NVIDIA H100, 1 GiB of 80 GiB, 0 % busy, 31 °C")


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ("DeviceGetMemoryInfo", "memory: "),
        ("DeviceGetTemperature", "temperature: "),
        ("DeviceGetUtilizationRates", "load: "),
        ("DeviceGetComputeRunningProcesses", "processes: "),
    ],
)
def test_what_a_gpu_does_not_tell_is_named(call: str, word: str) -> None:
    (found,) = findings.nvml(binding(**{name: said for name, said in GOOD.items() if name != call}))
    assert found.state == "partly"
    assert word in found.consequence
    assert well_formed(found)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {
            "DeviceGetMemoryInfo": SimpleNamespace(total=0, used=0),
            "DeviceGetTemperature": 0,
            "DeviceGetUtilizationRates": SimpleNamespace(gpu=0),
        },
        {"DeviceGetTemperature": 4294967295},
    ],
    ids=["not supported", "zeros", "garbage"],
)
def test_on_a_jetson_nvml_gives_a_name_and_nothing_is_made_of_the_rest(answers: dict[str, Any]) -> None:
    said = {name: ONE[name] for name in ("Init", "DeviceGetCount", "DeviceGetHandleByIndex")} | {"DeviceGetName": "Orin (nvgpu)"} | answers
    (found,) = findings.nvml(binding(**said))
    assert (found.state, found.value) == ("n/a", "Orin (nvgpu), memory n/a, load n/a, temperature n/a")
    for word in ("memory: ", "load: ", "temperature: "):
        assert word in found.consequence
    assert "sysfs" in found.how


def test_a_driver_that_hangs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "nvml", lambda: time.sleep(60))
    (found,) = findings.nvidia(patience_s=0.2)
    assert (found.state, found.value) == ("no", NA)


@pytest.mark.parametrize(("answers", "row"), [(WHOLE, "GPU 0 yes"), (WHOLE + "hang memory\n", "NVML no")])
def test_a_driver_through_the_real_binding(tmp_path: Path, answers: str, row: str) -> None:
    library = nvml.build(tmp_path)
    if library is None:
        pytest.skip(nvml.WHY_NOT)
    (tmp_path / "answers").write_text(answers)
    program = "from brainjar.watchdog.findings import nvidia; (row,) = nvidia(patience_s=2); print(row.name, row.state)"
    env = os.environ | nvml.environment(library, tmp_path / "answers")
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == row


def test_the_load_of_a_jetson(tmp_path: Path) -> None:
    there = put(tmp_path / "a", {"devices/platform/bus@0/17000000.gpu/load": "415\n"})
    assert findings.jetson(there, tmp_path, tmp_path).value.startswith("41.5 %")
    assert findings.jetson(tmp_path, tmp_path, tmp_path).state == "n/a"
    odd = put(tmp_path / "b", {"devices/gpu.0/load": "9999\n", "device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"})
    found = findings.jetson(odd, odd, tmp_path)
    assert (found.state, found.value) == ("no", NA)


def test_the_disk_is_that_of_the_directory_that_is_there_already(tmp_path: Path) -> None:
    found = findings.disk(tmp_path / "not" / "yet")
    assert found.state == "yes"
    assert found.value.endswith(f"%, at {tmp_path}")
    odd = findings.disk(Path("/proc/self"))
    assert (odd.state, odd.value) == ("n/a", NA)
    assert "no size" in odd.consequence
