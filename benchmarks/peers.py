"""Other supervisors, to be measured in the same run: got once into `.bench`, installed nowhere else.

circus and supervisor come from PyPI into a virtual environment of their own, s6 and runit from Debian's packages, unpacked.
Each of them keeps `count` copies of one small C program (`programs/stamp.c`), which writes when its first instruction ran. A
peer that cannot be had is named with the reason. The floor is `programs/floor.py`: what Python can do with a pidfd and
posix_spawn, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.machine import ROOT
from tests.system.harness import alive, until

HOME: Final = ROOT / ".bench"
PYPI: Final = {"circus": "0.19.0", "supervisor": "4.3.0"}
"""As measured when the figures to reach were set."""
DEBIAN: Final = ("s6", "runit")
PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.002


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    stamp: Path
    root: Path
    """Where Debian's packages are unpacked."""
    bin: Path
    """Of the virtual environment."""
    versions: dict[str, str]
    absent: dict[str, str]
    """Those that could not be had, and why."""

    @classmethod
    def get(cls, home: Path = HOME) -> Peers:
        """Fetch what is not there yet. Raise `SystemExit` without a C compiler: then nothing can be compared."""
        home.mkdir(exist_ok=True)
        versions: dict[str, str] = {}
        absent: dict[str, str] = {}
        for get, names in ((_from_pypi, tuple(PYPI)), (_from_debian, DEBIAN)):
            for name in names:
                try:
                    versions[name] = get(home, name)
                except (OSError, subprocess.CalledProcessError) as error:
                    absent[name] = _reason(error)
        return cls(stamp=_compile(home), root=home / "root", bin=home / "venv" / "bin", versions=versions, absent=absent)


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or error.stdout or "").strip().splitlines()
        return f"{error.cmd[0]} ended with {error.returncode}: {said[-1] if said else 'it said nothing'}"
    return f"{error.filename or ''}: {error.strerror}"


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run([str(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=True).stdout


def _compile(home: Path) -> Path:
    source, program = Path(__file__).parent / "programs" / "stamp.c", home / "stamp"
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    for words in (("-static",), ()):  # static where libc can be had so: nothing to load before its first instruction
        try:
            _run(os.environ.get("CC", "cc"), "-O2", *words, "-o", program, source)
            return program
        except (OSError, subprocess.CalledProcessError) as error:
            why = _reason(error)
    raise SystemExit(f"error: {source} cannot be compiled: {why}; install a C compiler, or set CC")


def _from_pypi(home: Path, name: str) -> str:
    place = home / "venv"
    if not (place / "bin" / "python").exists():
        venv.create(place, with_pip=True)
    done = home / f"{name}-{PYPI[name]}"
    if not done.exists():
        _run(place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{name}=={PYPI[name]}")
        done.touch()
    return PYPI[name]


def _from_debian(home: Path, name: str) -> str:
    done = home / name
    if not done.exists():
        parcels = home / "debs"
        parcels.mkdir(exist_ok=True)
        depends = re.findall(r"Depends: (lib(?!c6)\S+)", _run("apt-cache", "depends", name))
        deeper = [lib for one in depends for lib in re.findall(r"Depends: (lib(?!c6)\S+)", _run("apt-cache", "depends", one))]
        for package in dict.fromkeys([name, *depends, *deeper]):
            _run("apt-get", "download", "-q", package, cwd=parcels)
            (parcel,) = parcels.glob(f"{package}_*.deb")
            _run("dpkg", "-x", parcel, home / "root")
        (parcel,) = parcels.glob(f"{name}_*.deb")
        done.write_text(_run("dpkg-deb", "--field", parcel, "Version").strip())
    return done.read_text()


# ── one of them at work ──


class Contestant:
    """A supervisor with `count` copies of the stamp program. Made by the functions below, started at once."""

    def __init__(self, name: str, place: Path, count: int, argv: list[str], env: dict[str, str], stop: int = signal.SIGTERM) -> None:
        self.name = name
        self.count = count
        self._stop = stop
        self._log = stamps_of(place)
        self.output = place / "output"
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(
                argv, cwd=place, env=dict(os.environ) | env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def births(self) -> list[tuple[int, int]]:
        """(CLOCK_MONOTONIC ns of its first instruction, pid) of each child so far, in the order of their writing."""
        return read_stamps(self._log)

    def until_births(self, wanted: int, patience: float = PATIENCE_S) -> list[tuple[int, int]]:
        """Wait until so many were born in all. Raise TimeoutError."""
        end = time.monotonic() + patience
        while len(found := self.births()) < wanted:
            if time.monotonic() > end or self.process.poll() is not None:
                said = self.output.read_text(errors="replace").strip().splitlines()
                raise TimeoutError(f"{self.name}: {len(found)} of {wanted} births; it said {said[-1] if said else 'nothing'}")
            time.sleep(LOOK_S)
        return found

    def children(self) -> list[int]:
        """The living, of all that were ever born."""
        return [pid for _, pid in self.births() if is_stamp(pid)]

    def respawn_ms(self, patience: float = PATIENCE_S) -> float:
        """Kill its newest child; return milliseconds until the next one's first instruction."""
        before = self.births()
        start = time.monotonic_ns()
        os.kill(before[-1][1], signal.SIGKILL)
        return (self.until_births(len(before) + 1, patience)[-1][0] - start) / 1e6

    def storm_ms(self, patience: float = PATIENCE_S) -> float:
        """Kill all its children at one instant; return milliseconds until the first instruction of the last that comes back."""
        before, pids = len(self.births()), self.children()
        if len(pids) != self.count:
            raise TimeoutError(f"{self.name}: {len(pids)} of {self.count} children live")
        start = time.monotonic_ns()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return (max(at for at, _ in self.until_births(before + self.count, patience)[before:]) - start) / 1e6

    def close(self) -> None:
        """Stop it and wait for all that it started; end what it leaves."""
        family = descendants(self.process.pid)
        self.process.send_signal(self._stop)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(AssertionError):
            until(lambda: not any(map(alive, family)), 10)  # runsvdir leaves before its runsvs, which still write
        for pid in {*filter(alive, family), *self.children()}:  # a child that was born meanwhile is known by its stamp
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stamps_of(place: Path) -> Path:
    return place / "stamps"


def read_stamps(file: Path) -> list[tuple[int, int]]:
    """(ns, pid) of each whole line."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return [(int(at), int(pid)) for at, pid in (line.split() for line in text.splitlines(keepends=True) if line.endswith("\n"))]


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_stamp(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.partition("(")[2].startswith("stamp)") and stat.rpartition(")")[2].split()[0] != "Z"


Start = Callable[[Peers, Path, int], Contestant]


def circus(check_delay: float | None) -> Start:
    """`check_delay` None: its default of 5 s. The events are published at `pub` in its place."""

    def start(peers: Peers, place: Path, count: int) -> Contestant:
        config = place / "circus.ini"
        delay = "" if check_delay is None else f"check_delay = {check_delay}\n"
        config.write_text(
            f"[circus]\n{delay}endpoint = ipc://{place}/ctl\npubsub_endpoint = ipc://{place}/pub\nstatsd = False\n"
            f"[watcher:w]\ncmd = {peers.stamp} {stamps_of(place)}\nnumprocesses = {count}\ngraceful_timeout = 1\n"
        )
        name = f"circus, check_delay {check_delay or '5 (default)'}"
        return Contestant(name, place, count, [str(peers.bin / "circusd"), "--log-level", "warning", str(config)], {})

    return start


def supervisord(peers: Peers, place: Path, count: int) -> Contestant:
    config = place / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon = true\nlogfile = {place}/log\npidfile = {place}/pid\n"
        f"[program:w]\ncommand = {peers.stamp} {stamps_of(place)}\nautorestart = true\nstartsecs = 1\n"
        f"numprocs = {count}\nprocess_name = %(program_name)s%(process_num)04d\n"
    )
    return Contestant("supervisord (default)", place, count, [str(peers.bin / "supervisord"), "-c", str(config)], {})


def runit(peers: Peers, place: Path, count: int) -> Contestant:
    for n in range(count):
        _script(place / "scan" / f"w{n}" / "run", f"exec {peers.stamp} {stamps_of(place)}\n")
    path = f"{peers.root}/usr/bin:{os.environ['PATH']}"
    program = peers.root / "usr/bin/runsvdir"
    return Contestant("runit", place, count, [str(program), str(place / "scan")], {"PATH": path}, signal.SIGHUP)


def s6(peers: Peers, place: Path, count: int) -> Contestant:
    """With readiness told, without which each of its restarts waits a second."""
    if count != 1:
        raise ValueError("one s6-supervise keeps one child")
    service = place / "w"
    _script(service / "run", f"echo >&3\nexec 3>&-\nexec {peers.stamp} {stamps_of(place)}\n")
    (service / "notification-fd").write_text("3\n")
    libraries = ":".join(str(lib.parent) for lib in sorted(peers.root.rglob("libs6.so*"))[:1])
    env = {"PATH": f"{peers.root}/usr/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": libraries}
    program = next(iter(sorted(peers.root.rglob("bin/s6-supervise"))), peers.root / "usr/bin/s6-supervise")
    return Contestant("s6, told of readiness", place, count, [str(program), str(service)], env)


def floor(peers: Peers, place: Path, count: int) -> Contestant:
    argv = [sys.executable, str(Path(__file__).parent / "programs" / "floor.py"), str(count), f"ipc://{place}/pub", str(peers.stamp)]
    return Contestant("floor: Python, pidfd, posix_spawn", place, count, [*argv, str(stamps_of(place))], {})


def _script(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{text}")
    file.chmod(0o755)
