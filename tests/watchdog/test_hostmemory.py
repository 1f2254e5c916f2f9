"""Memory of the host and of the group around the jar: what the kernel says, or nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from brainjar.watchdog.hostmemory import HostMemory
from brainjar.watchdog.reading import Reading

MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 250 kB\nShmem: 10 kB\nSwapTotal: 200 kB\nSwapFree: 150 kB\n"
V2 = {"memory.current": "600000\n", "memory.max": "800000\n", "memory.stat": "anon 1\ninactive_file 150000\nactive_file 50000\nshmem 7\n"}
V1 = {
    "memory.usage_in_bytes": "600000\n",
    "memory.limit_in_bytes": "800000\n",
    "memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 150000\ntotal_active_file 50000\n",
}


def fake(tmp_path: Path, meminfo: str | None = MEMINFO, group: dict[str, str] | None = None) -> tuple[Path, Path]:
    """(a /proc, the group in which its reader is)."""
    proc, groups = tmp_path / "proc", tmp_path / "cg"
    (proc / "self").mkdir(parents=True)
    (groups / "jar").mkdir(parents=True)
    if meminfo is not None:
        (proc / "meminfo").write_text(meminfo)
    if group is not None:
        v1 = "memory.limit_in_bytes" in group
        (proc / "self/cgroup").write_text("4:memory:/jar\n" if v1 else "0::/jar\n")
        kind = "cgroup cgroup rw,memory" if v1 else "cgroup2 cgroup2 rw"
        (proc / "self/mountinfo").write_text(f"30 1 0:26 / {groups} rw - {kind}\n")
        for name, text in group.items():
            (groups / "jar" / name).write_text(text)
    return proc, groups / "jar"


def read(reader: HostMemory) -> dict[tuple[str, str], Reading]:
    return {reading.key: reading for reading in reader.read()}


def test_what_is_not_available_is_in_use(tmp_path: Path) -> None:
    found = read(HostMemory(fake(tmp_path)[0]))
    host, swap = found.pop(("host-memory", "host")), found.pop(("swap", "host"))
    assert (host.value, host.used_bytes, host.total_bytes, host.why, host.note) == (75.0, 750 * 1024, 1000 * 1024, "", "")
    assert (swap.value, swap.used_bytes, swap.total_bytes, swap.why) == (25.0, 50 * 1024, 200 * 1024, "")
    assert not found, "no group counts memory"


@pytest.mark.parametrize(("shmem", "said"), [("49", ""), ("50", "50 KiB of it"), ("1001", ""), ("much", "")])
def test_shared_memory_is_told_where_it_is_much_and_makes_sense(tmp_path: Path, shmem: str, said: str) -> None:
    (host, _) = HostMemory(fake(tmp_path, MEMINFO.replace("Shmem: 10", f"Shmem: {shmem}"))[0]).read()
    assert host.value == 75.0
    assert host.note.startswith(said) and bool(host.note) is bool(said)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MemAvailable: 250", "MemAvailable: 1001"),
        ("MemAvailable: 250", "MemAvailable: -1"),
        ("MemAvailable: 250", "MemAvailable: many"),
        ("MemAvailable: 250 kB", "MemAvailable:"),
        ("MemAvailable", "Other"),
        ("MemTotal: 1000", "MemTotal: 0"),
        ("MemTotal", "Other"),
    ],
)
def test_memory_that_makes_no_sense_is_not_known(tmp_path: Path, old: str, new: str) -> None:
    assert old in MEMINFO
    (host, swap) = HostMemory(fake(tmp_path, MEMINFO.replace(old, new))[0]).read()
    assert (host.value, host.used_bytes, host.total_bytes) == (None, None, None)
    assert host.why
    assert swap.value == 25.0, "the other one is told"


@pytest.mark.parametrize(
    ("total", "free", "why"),
    [("0", "0", "there is no swap"), ("200", "201", "free"), ("-200", "1", "does not tell"), ("", "", "does not tell")],
)
def test_swap_that_is_not_there_or_makes_no_sense_is_not_known(tmp_path: Path, total: str, free: str, why: str) -> None:
    (host, swap) = HostMemory(fake(tmp_path, f"MemTotal: 4 kB\nMemAvailable: 1 kB\nSwapTotal: {total} kB\nSwapFree: {free} kB\n")[0]).read()
    assert swap.value is None
    assert why in swap.why
    assert host.value == 75.0


@pytest.mark.parametrize("meminfo", [None, "", "\x00\xff", "MemTotal: 0 kB\nMemAvailable: 0 kB\n"])
def test_without_a_meminfo_nothing_is_known(tmp_path: Path, meminfo: str | None) -> None:
    readings = HostMemory(fake(tmp_path, meminfo)[0]).read()
    assert [(r.value, bool(r.why)) for r in readings] == [(None, True)] * 2


@pytest.mark.parametrize("group", [V1, V2], ids=["v1", "v2"])
def test_the_file_cache_of_the_group_around_the_jar_is_not_in_use(tmp_path: Path, group: dict[str, str]) -> None:
    proc, jar = fake(tmp_path, group=group)
    found = read(HostMemory(proc))["host-memory", str(jar)]
    assert (found.value, found.used_bytes, found.total_bytes, found.why) == (50.0, 400_000, 800_000, "")


@pytest.mark.parametrize("group", [V1, V2], ids=["v1", "v2"])
def test_a_limit_that_changes_is_read_anew(tmp_path: Path, group: dict[str, str]) -> None:
    proc, jar = fake(tmp_path, group=group)
    reader, limit = HostMemory(proc), jar / ("memory.max" if "memory.max" in group else "memory.limit_in_bytes")
    limit.write_text("1000000\n")
    assert read(reader)["host-memory", str(jar)].value == 40.0
    for none in ("max\n", "9223372036854771712\n", f"{1000 * 1024}\n"):
        limit.write_text(none)
        assert ("host-memory", str(jar)) not in read(reader), f"{none!r} bounds nothing more than the host does"
    limit.write_text("500000\n")
    assert read(reader)["host-memory", str(jar)].value == 80.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.current", ""),
        ("memory.current", "-1"),
        ("memory.current", "many"),
        ("memory.current", "199999"),
        ("memory.max", ""),
        ("memory.max", "0"),
        ("memory.max", "many"),
        ("memory.stat", ""),
        ("memory.stat", "inactive_file 1\n"),
        ("memory.stat", "inactive_file 1\nactive_file -1\n"),
        ("memory.stat", "inactive_file 1\nactive_file\nshmem 5\n"),
    ],
)
def test_a_group_that_makes_no_sense_is_not_known(tmp_path: Path, name: str, text: str) -> None:
    proc, jar = fake(tmp_path, group=V2)
    reader = HostMemory(proc)
    (jar / name).write_text(text)
    found = read(reader)["host-memory", str(jar)]
    assert (found.value, found.used_bytes) == (None, None)
    assert found.why.startswith("the group ")
    (jar / name).unlink()
    assert read(reader)["host-memory", str(jar)].value is None


def test_this_very_host_in_a_millisecond() -> None:
    reader = HostMemory()
    host, swap, *around = reader.read()
    assert host.value is not None and 0 < host.value < 100
    assert swap.value is not None or swap.why
    assert len(around) <= 1
    times = []
    for _ in range(50):
        started = time.perf_counter()
        reader.read()
        times.append(time.perf_counter() - started)
    assert sorted(times)[25] < 0.001
