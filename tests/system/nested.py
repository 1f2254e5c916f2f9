"""A real systemd to run units in: that of a machine which is there for nothing else (`Machine`), or one that is the first process of
namespaces of its own, in groups of its own (`Nested`).

That needs root, `unshare` and `nsenter`, systemd, and the hierarchies of cgroup version 1 beside version 2 (a host with version 2 alone
runs such tests in a guest: `make test-vm`). It sees the host's files through overlays that go with it; nothing of the host is written.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE_S
from tests.system.harness import until

CGROUPS: Final = Path("/sys/fs/cgroup")
SYSTEMD: Final = Path("/lib/systemd/systemd")
TARGETS: Final = [
    "basic",
    "sysinit",
    "shutdown",
    "sockets",
    "timers",
    "paths",
    "slices",
    "local-fs",
    "umount",
    "final",
    "rescue",
    "emergency",
    "network",
]
UNSHARE: Final = ["unshare", "--cgroup", "--pid", "--mount", "--uts", "--ipc", "--net", "--fork", "--kill-child"]
INIT: Final = r"""
set -eu
units=$1; shift
mount --make-rprivate /
mount -t proc proc /proc
umount -l /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for c in "$@"; do
    mkdir "/sys/fs/cgroup/$c"
    o=$c; [ "$c" != systemd ] || o=none,name=systemd
    mount -t cgroup -o "$o" cgroup "/sys/fs/cgroup/$c"
done
mkdir /sys/fs/cgroup/unified
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/log/journal
for d in etc var; do
    mkdir -p "/run/ovl/$d/u" "/run/ovl/$d/w"
    mount -t overlay -o "lowerdir=/$d,upperdir=/run/ovl/$d/u,workdir=/run/ovl/$d/w" overlay "/$d"
done
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
ip link set lo up 2>/dev/null || true
exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=nested "SYSTEMD_UNIT_PATH=$units:/etc/systemd/system" \
    "SYSTEMD_GENERATOR_PATH=$units/none" \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no
"""


ON_A_MACHINE: Final = bool(os.environ.get("BRAINJAR_TEST_MACHINE"))


def why_not() -> str:
    """Why there can be none here; "" where there can."""
    if ON_A_MACHINE:
        return ""
    if os.geteuid() != 0:
        return "a nested systemd needs root"
    for needed in ("unshare", "nsenter", "ip"):
        if shutil.which(needed) is None:
            return f"no {needed} here"
    if not SYSTEMD.exists() or not Path("/lib/systemd/system/systemd-journald.service").exists():
        return "no systemd here: apt-get install systemd"
    if not (CGROUPS / "unified/cgroup.procs").exists() or not _hierarchies():
        return "cgroup version 1 beside version 2 is needed here; make test-vm has a guest with version 2 alone"
    if not os.access(CGROUPS / "unified", os.W_OK):
        return "the cgroups cannot be written here"
    return ""


def refused() -> str:
    """Why its namespaces and mounts are not to be had, though all that they need is there; "" where they are. Nothing of it is left."""
    overlay = "mkdir -p /run/u /run/w && mount -t overlay -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w overlay /etc"
    script = f"mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && {overlay}"
    tried = subprocess.run([*UNSHARE, "bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return f"no namespaces and mounts for a systemd of its own here: {tried.stderr.strip()[-200:]}" if tried.returncode else ""


def _hierarchies() -> list[str]:
    """Of version 1, by the names of their directories."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(fields[1]).name for fields in lines if fields[2] == "cgroup"]


class Manager:
    """One of the two."""

    units: Path

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def pids(self, group: str) -> list[int]:
        """Of a control group and those below it, as this process numbers them."""
        raise NotImplementedError

    def _enter(self) -> list[str]:
        """What a command is led in by."""
        raise NotImplementedError

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command in there says."""
        done = self._done(*argv)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def code(self, *argv: str) -> int:
        """The exit status of a command in there."""
        return self._done(*argv).returncode

    def _done(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._enter(), *argv], capture_output=True, text=True, timeout=10 * PATIENCE_S, check=False)

    def show(self, unit: str) -> Mapping[str, str]:
        """Its properties."""
        return dict(line.split("=", 1) for line in self.run("systemctl", "show", unit).splitlines() if "=" in line)

    def install(self, name: str, text: str) -> None:
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.run("systemctl", "daemon-reload")

    def journal(self, *argv: str) -> str:
        return self.run("journalctl", "--no-pager", *argv)


def _pids(tops: Iterable[Path]) -> list[int]:
    return [int(pid) for top in tops for procs in top.rglob("cgroup.procs") for pid in procs.read_text().split()]


class Machine(Manager):
    """The systemd of this machine. BRAINJAR_TEST_MACHINE says that it may be used: a guest that forgets all of it."""

    units = Path("/run/systemd/system")

    def start(self) -> None:
        self._before = set(self.units.iterdir()) if self.units.exists() else set()
        self.units.mkdir(exist_ok=True)

    def stop(self) -> None:
        for path in set(self.units.iterdir()) - self._before:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.run("systemctl", "daemon-reload")

    def pids(self, group: str) -> list[int]:
        return _pids([CGROUPS / group.lstrip("/")])

    def _enter(self) -> list[str]:
        return []


class Nested(Manager):
    def __init__(self, place: Path) -> None:
        self.units = place / "units"
        self._name = f"brainjar-nested-{os.getpid()}"
        self._outer: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._console = place / "console"

    def start(self) -> None:
        (self.units / "multi-user.target.wants").mkdir(parents=True)
        for name in TARGETS:
            (self.units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        multi_user = "[Unit]\nDefaultDependencies=no\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n"
        (self.units / "multi-user.target").write_text(multi_user)
        for name in ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"):
            shutil.copy(Path("/lib/systemd/system") / name, self.units / name)
        (self.units / "multi-user.target.wants/systemd-journald.service").symlink_to("../systemd-journald.service")
        v1 = _hierarchies()
        for group in self._groups():
            group.mkdir()
        cpuset = CGROUPS / "cpuset"
        if (cpuset / self._name).exists():
            for key in ("cpuset.cpus", "cpuset.mems"):
                (cpuset / self._name / key).write_text((cpuset / key).read_text())
            (cpuset / self._name / "cgroup.clone_children").write_text("1")
        script = self.units.parent / "init.sh"
        script.write_text(INIT)
        joins = "".join(f'echo $$ >"{group}/cgroup.procs"; ' for group in self._groups())
        namespaces = f"exec {' '.join(UNSHARE)} bash"
        with open(self._console, "wb") as console:
            argv = ["bash", "-c", f'{joins}{namespaces} "$@"', "nested", str(script), str(self.units), *v1]
            self._outer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        self._pid = until(self._first, why=lambda: self._console.read_text())
        until(lambda: self.run("systemctl", "is-system-running", check=False).strip() == "running", why=lambda: self._console.read_text())

    def _groups(self) -> list[Path]:
        return [CGROUPS / name / self._name for name in (*_hierarchies(), "unified")]

    def _first(self) -> int:
        assert self._outer is not None and self._outer.poll() is None, self._console.read_text()
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def pids(self, group: str) -> list[int]:
        return _pids((CGROUPS / "systemd").glob(f"{self._name}{group}"))

    def _enter(self) -> list[str]:
        into = ["-m", "-p", "-u", "-i", "-n", "-C", "env"]
        return ["nsenter", "-t", str(self._pid), *into, f"SYSTEMD_UNIT_PATH={self.units}:/etc/systemd/system"]

    def stop(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # all of its pid namespace goes with it
        if self._outer is not None:
            self._outer.kill()
            self._outer.wait()
        for group in self._groups():
            _remove(group)


def _remove(top: Path, patience_s: float = 10.0) -> None:
    """A tree of groups whose processes are just ending."""
    end = time.monotonic() + patience_s
    while top.exists():
        for group in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
            try:
                group.rmdir()
            except OSError:
                pass
        assert time.monotonic() < end, f"{top} cannot be removed"
        time.sleep(0.02)
