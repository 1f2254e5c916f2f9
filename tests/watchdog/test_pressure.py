"""What the kernel says of stalls, or nothing; and its own alarm."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from brainjar.watchdog import pressure
from brainjar.watchdog.pressure import Pressure

LINE = "{} avg10={} avg60=0.00 avg300=0.00 total=1\n"
REAL = Path("/proc/pressure/memory")


def said(tmp_path: Path, text: str) -> Path:
    (tmp_path / "pressure").mkdir(exist_ok=True)
    (tmp_path / "pressure/memory").write_text(text)
    return tmp_path


def test_the_share_of_time_in_which_nothing_went_on(tmp_path: Path) -> None:
    (found,) = Pressure(said(tmp_path, LINE.format("some", "12.50") + LINE.format("full", "1.25"))).read()
    assert (found.key, found.value, found.note, found.why) == (("pressure", "host"), 1.25, "some 12.5 %", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "full\n",
        "full avg60=0.00\n",
        "full avg10=\n",
        LINE.format("some", "0.00"),
        *(LINE.format("some", "0.00") + LINE.format("full", odd) for odd in ("-1", "100.01", "nan", "inf", "much")),
        "\x00\xff\n",
    ],
)
def test_what_makes_no_sense_is_not_known(tmp_path: Path, text: str) -> None:
    (found,) = Pressure(said(tmp_path, text)).read()
    assert found.value is None
    assert found.why


def test_a_half_that_makes_no_sense_leaves_the_other(tmp_path: Path) -> None:
    (found,) = Pressure(said(tmp_path, LINE.format("some", "900") + LINE.format("full", "3.00"))).read()
    assert (found.value, found.note) == (3.0, "")


def test_a_kernel_without_it_is_told_how_to_have_it(tmp_path: Path) -> None:
    (found,) = Pressure(tmp_path).read()
    assert found.value is None
    assert "psi=1" in found.why
    said(tmp_path, "")
    assert "psi=1" in Pressure(tmp_path).read()[0].why
    (tmp_path / "pressure/memory").unlink()
    (tmp_path / "pressure/memory").mkdir()  # reading it fails, as where it is switched off
    (found,) = Pressure(tmp_path).read()
    assert found.value is None
    assert "psi=1" in found.why


def test_a_group_has_its_own_where_it_has_one(tmp_path: Path) -> None:
    proc, group = said(tmp_path, LINE.format("full", "1.00")), tmp_path / "jar"
    group.mkdir()
    assert len(Pressure(proc, group).read()) == 1
    (group / "memory.pressure").write_text(LINE.format("full", "2.00"))
    host, own = Pressure(proc, group).read()
    assert (host.value, own.key, own.value) == (1.0, ("pressure", str(group)), 2.0)
    (group / "memory.pressure").write_text("")
    assert Pressure(proc, group).read()[1].value is None


@pytest.mark.skipif(not os.access(REAL, os.W_OK), reason="a kernel without PSI, or one that lets us not write to it")
def test_the_kernel_takes_the_trigger() -> None:
    fd = pressure.trigger(REAL)
    assert fd is not None
    try:
        assert not os.get_inheritable(fd)
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        assert not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
    finally:
        os.close(fd)


def test_the_whole_trigger_reaches_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("")
    fd = pressure.trigger(tmp_path / "memory")
    assert fd is not None
    os.close(fd)
    assert (tmp_path / "memory").read_bytes() == b"full 150000 2000000\0", "the kernel cuts the last byte off"


def test_where_there_is_none_there_is_no_trigger(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert pressure.trigger(tmp_path / "nowhere") is None
    assert pressure.trigger(tmp_path) is None
    assert pressure.trigger(Path("/dev/full")) is None, "it cannot be written to"
    assert len(os.listdir("/proc/self/fd")) == before
