"""Heat that a sensor truly reads, or nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainjar.watchdog.heat import Heat
from brainjar.watchdog.reading import Reading

NONE = SimpleNamespace(sensors_temperatures=dict)


def board(tmp_path: Path, zones: list[tuple[str, str | None]]) -> Path:
    """A /sys; None: a sensor whose file cannot be read."""
    for n, (kind, temp) in enumerate(zones):
        zone = tmp_path / f"class/thermal/thermal_zone{n}"
        zone.mkdir(parents=True)
        if kind:
            (zone / "type").write_text(kind + "\n")
        if temp is None:
            (zone / "temp").mkdir()  # reading it fails, as an offline sensor's file does
        else:
            (zone / "temp").write_text(temp)
    return tmp_path


def sensors(**chips: list[tuple[str, Any]]) -> Any:
    """A stand-in for psutil."""
    found = {chip: [SimpleNamespace(label=label, current=current) for label, current in each] for chip, each in chips.items()}
    return SimpleNamespace(sensors_temperatures=lambda: found)


def read(sysfs: Path, psutil: Any = NONE) -> dict[str, Reading]:
    readings = Heat(sysfs, psutil).read()
    assert {reading.sense for reading in readings} == {"heat"}
    assert len({reading.where for reading in readings}) == len(readings)
    return {reading.where: reading for reading in readings}


@pytest.mark.parametrize(("temp", "celsius"), [("45500\n", 45.5), ("0\n", 0.0), ("-39000\n", -39.0), ("150000\n", 150.0)])
def test_a_zone_reads_thousandths(tmp_path: Path, temp: str, celsius: float) -> None:
    (found,) = read(board(tmp_path, [("cpu-thermal", temp)])).values()
    assert (found.where, found.value, found.why) == ("cpu-thermal", celsius, "")


@pytest.mark.parametrize("temp", [None, "-256\n", "-256000\n", "-40000\n", "150001\n", "", "nan\n", "2147483647\n", "4" * 5000])
def test_a_zone_that_is_off_has_no_heat_and_the_next_one_does(tmp_path: Path, temp: str | None) -> None:
    found = read(board(tmp_path, [("gpu-thermal", temp), ("cpu-thermal", "45500\n")]))
    assert found["gpu-thermal"].value is None
    assert found["gpu-thermal"].why
    assert len(found["gpu-thermal"].why) < 100
    assert found["cpu-thermal"].value == 45.5


def test_a_zone_that_always_says_the_same_is_no_sensor(tmp_path: Path) -> None:
    found = read(board(tmp_path, [("PMIC-Die", "100000\n"), ("CPU-therm", "40000\n")]))
    assert (found["PMIC-Die"].value, found["CPU-therm"].value) == (None, 40.0)
    assert "whatever" in found["PMIC-Die"].why


def test_zones_of_one_type_are_told_apart_in_the_kernels_order(tmp_path: Path) -> None:
    zones: list[tuple[str, str | None]] = [("acpitz", f"{n}000\n") for n in range(11)]
    found = read(board(tmp_path, [*zones, ("x86_pkg_temp", "50000\n"), ("", "51000\n")]))
    assert [found[f"acpitz {n + 1}"].value for n in range(11)] == list(range(11))
    assert (found["x86_pkg_temp"].value, found["thermal_zone12"].value) == (50.0, 51.0)


def test_psutil_adds_what_the_zones_do_not_show(tmp_path: Path) -> None:
    sysfs = board(tmp_path, [("acpitz", "27800\n"), ("cpu-thermal", "45500\n")])
    chips = sensors(
        acpitz=[("", 27.8)], cpu_thermal=[("", 45.5)], coretemp=[("Package id 0", 61.0), ("Core 0", 59.0)], nvme=[("", 40.0), ("", 41.0)]
    )
    found = {where: reading.value for where, reading in read(sysfs, chips).items()}
    assert found == {
        "acpitz": 27.8,
        "cpu-thermal": 45.5,
        "coretemp Package id 0": 61.0,
        "coretemp Core 0": 59.0,
        "nvme 1": 40.0,
        "nvme 2": 41.0,
    }


@pytest.mark.parametrize("current", [-256.0, -0.256, -40.0, 151.0, float("nan"), float("inf"), None, "warm"])
def test_a_sensor_that_is_off_has_no_heat(tmp_path: Path, current: Any) -> None:
    found = read(tmp_path, sensors(k10temp=[("Tctl", current), ("Tdie", 50.0)]))
    assert found["k10temp Tctl"].value is None
    assert found["k10temp Tctl"].why
    assert found["k10temp Tdie"].value == 50.0


def broken(error: Exception) -> Any:
    def fails() -> None:
        raise error

    return SimpleNamespace(sensors_temperatures=fails)


@pytest.mark.parametrize(
    "psutil", [NONE, SimpleNamespace(), broken(OSError(5, "I/O error")), broken(ValueError("odd"))], ids=["none", "not there", "I/O", "odd"]
)
def test_without_any_sensor_that_is_said_once(tmp_path: Path, psutil: Any) -> None:
    (found,) = read(tmp_path, psutil).values()
    assert (found.where, found.value) == ("", None)
    assert "virtual machine" in found.why


def test_this_very_host_has_heat_or_a_reason() -> None:
    readings = Heat().read()
    assert readings
    for reading in readings:
        assert (reading.value is None) is bool(reading.why)
