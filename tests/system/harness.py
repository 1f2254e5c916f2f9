"""A real jar for a test: started, spoken to, listened to, and ended with everything that it started."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brainjar.bus import Subscriber
from brainjar.isolation import cgroups
from brainjar.messages import Envelope, decode_envelope
from tests.patience import PATIENCE_S


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not (a slow pid 1 may leave one about)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def zombies_of(pid: int) -> list[int]:
    found = []
    for stat in (Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdigit()):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def until(what: Callable[[], Any], patience: float = PATIENCE_S, why: object = "") -> Any:
    """Poll `what` until it is true; return it. For facts of /proc, which send no event. `why`: what is said else, or who says it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if got := what():
            return got
        time.sleep(0.01)
    raise AssertionError(f"not within {patience:g} s: {why() if callable(why) else why or what}")


def jar_groups(state_dir: Path) -> list[Path]:
    """The cgroups of the jar that keeps its state there, where it has made one of its own (`Housing`)."""
    parent = cgroups.survey().parent
    return [] if parent is None else list(parent.glob(f"brainjar-*-{zlib.crc32(os.fsencode(state_dir)):08x}"))


def own_memory(pid: int) -> int:
    """Bytes that are its own. Pages of files are left out: how many of a library the kernel maps around a fault is its own affair."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def gone(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


class Listener:
    """A subscriber to everything, connected before it returns from its making."""

    def __init__(self, runtime_dir: Path) -> None:
        self._bus = Subscriber(runtime_dir)
        nonce = secrets.token_hex(8)
        self.snapshot: Envelope | None = None
        end = time.monotonic() + PATIENCE_S
        while self.snapshot is None and time.monotonic() < end:
            self._bus.subscribe(f"SNAP.{nonce}")
            got = self.next(1.0)
            if got is not None and got.type == "SNAP":
                self.snapshot = got
            elif got is not None:
                continue
        assert self.snapshot is not None, "no snapshot"

    def next(self, patience: float = PATIENCE_S) -> Envelope | None:
        body = self._bus.receive(int(patience * 1000))
        return decode_envelope(body) if body is not None else None

    def drain(self) -> None:
        """Pass over what has come already."""
        while self._bus.receive(0) is not None:
            pass

    def catch_up(self) -> None:
        """Pass over all that was said before now. Who did not listen for long has a full queue, and what is said next may be lost to it."""
        now = time.time()
        while (event := self.next()) is not None and event.timestamp < now:
            pass

    def until(
        self, type: str, sender: str | None = None, where: Callable[[Envelope], bool] = lambda _: True
    ) -> tuple[Envelope, list[Envelope]]:
        """The next such event, and everything that came before it."""
        before: list[Envelope] = []
        end = time.monotonic() + PATIENCE_S
        while (left := end - time.monotonic()) > 0:
            got = self.next(left)
            if got is None:
                break
            if got.type == type and sender in (None, got.sender_id) and where(got):
                return got, before
            before.append(got)
        raise AssertionError(f"no {type} of {sender} within {PATIENCE_S:g} s; newest: {[e.topic for e in before[-12:]]}")

    def close(self) -> None:
        self._bus.close()


class Limited:
    """A group with a memory limit, and in it one for a jar and one for whoever else eats from it."""

    def __init__(self, path: Path, limit: int = 1 << 30) -> None:
        """`limit`: bytes. Only where there is a memory cgroup."""
        self.path, self.jars, self.others = path, path / "jar", path / "others"
        self._v1 = cgroups.survey().version == "v1"
        path.mkdir()
        self.set_limit(limit)
        if not self._v1:
            (path / "cgroup.subtree_control").write_text("+memory")
        self.jars.mkdir()
        self.others.mkdir()

    def set_limit(self, limit: int) -> None:
        self._limit = limit
        (self.path / ("memory.limit_in_bytes" if self._v1 else "memory.max")).write_text(str(limit))

    def percent(self) -> float:
        """Of its limit, what is in use and cannot be given back, now; a jar's senses have it from their last look."""
        names = ("memory.usage_in_bytes", "total_") if self._v1 else ("memory.current", "")
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        files = sum(int(stat[f"{names[1]}{name}"]) for name in ("inactive_file", "active_file"))
        return 100 * (int((self.path / names[0]).read_text()) - files) / self._limit

    def jar(self, jar: Jar) -> Jar:
        jar.group = self.jars
        return jar

    def remove(self) -> None:
        for path in (self.jars, self.others, self.path):
            until(lambda path=path: gone(path))  # type: ignore[misc]


class Jar:
    def __init__(
        self,
        root: Path,
        config: Path | str,
        *args: str,
        env: dict[str, str] | None = None,
        view: str = "plain",
        program: Sequence[str] = (sys.executable, "-m", "brainjar"),
    ) -> None:
        """`program`: what is `brainjar` here."""
        self.config = config
        self.state_dir = root / "state"
        self.runtime_dir = root / "run"
        self.output = root / "output"
        self.cli = [*program]
        """Its own program; a command and what it takes come after it."""
        self.argv = [*program, "supervise", "--config", str(config), "--state-dir", str(self.state_dir)]
        self.argv += ["--set", f"jar.runtime_dir={self.runtime_dir}", "--view", view, *args]
        self._env = dict(os.environ) | (env or {})
        self.process: subprocess.Popen[bytes] | None = None
        given = os.environ.get("BRAINJAR_TEST_CGROUP")
        self.group = Path(given) / f"jar-{os.getpid()}-{zlib.crc32(os.fsencode(root)):08x}" if given else None
        """Where the tests are given a delegated group to make others in (tests/vm): one for this jar alone, as its unit would be."""
        self._seen: set[int] = set()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Jar:
        argv = self.argv
        if self.group is not None:
            self.group.mkdir(exist_ok=True)
            argv = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.group), *argv]
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env, start_new_session=True)
        until(lambda: self._answers() or self._ended(), why=self.output)
        assert not self._ended(), self.said()
        return self

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(str(self.runtime_dir / "control")) == 0

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def ask(self, cmd: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """(the closing answer, the events before it) of one request on the control socket."""
        events: list[dict[str, Any]] = []
        why = ""
        try:
            for answer in self._answers_to({"cmd": cmd, **more}):
                if "event" not in answer:
                    return answer, events
                events.append(answer["event"])
        except OSError as error:
            why = f": {error}"
        ended = f"; it has ended, {self.process.poll()}" if self.process is not None and self._ended() else ""
        raise AssertionError(f"the jar hung up on {cmd}{why}{ended}. Its last words: {self.said()[-2000:]}")

    def _answers_to(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE_S)
            s.connect(str(self.runtime_dir / "control"))
            s.sendall(json.dumps(request).encode() + b"\n")
            with s.makefile("rb") as f:
                for line in f:
                    yield json.loads(line)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.ask("status")[0]["status"]
        self._seen |= {p["pid"] for p in status["personas"] if p["pid"]}
        return status

    def persona(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(p for p in self.status()["personas"] if p["name"] == name)
        return found

    def until_ready(self, *names: str) -> dict[str, Any]:
        """Wait until these personas (by default all) are READY; return the status."""

        def ready() -> dict[str, Any] | None:
            status = self.status()
            wanted = [p for p in status["personas"] if not names or p["name"] in names]
            return status if all(p["state"] in ("ready", "thinking") for p in wanted) else None

        found: dict[str, Any] = until(ready, why=self.output)
        return found

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        listener = Listener(self.runtime_dir)
        try:
            yield listener
        finally:
            listener.close()

    def descendants(self) -> list[int]:
        """All that descends from the supervisor; it is their subreaper, so none can hide from this."""
        parents: dict[int, list[int]] = {}
        for stat in (Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdigit()):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, todo = [], [self.pid]
        while todo:
            children = parents.get(todo.pop(), [])
            found += children
            todo += children
        return found

    def named(self, comm: str) -> list[int]:
        """Those of its descendants that the kernel calls so."""
        found = []
        for pid in self.descendants():
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                    found.append(pid)
        return found

    def brainjar(self, *args: str) -> subprocess.CompletedProcess[str]:
        return brainjar(*args, "--state-dir", str(self.state_dir), env=self._env)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def clean_up(self) -> None:
        """End what is left, by pid; a test that failed may leave anything."""
        if self.process is None:
            return
        if self.process.poll() is None:
            left = self.descendants()
            self.process.kill()
            self.process.wait()
            for pid in left:
                until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        # a jar that was killed leaves its empty groups to its next start
        for group in jar_groups(self.state_dir) + ([self.group] if self.group is not None and self.group.is_dir() else []):
            for path in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
                until(lambda path=path: gone(path))  # type: ignore[misc]


def brainjar(*args: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    argv: Sequence[str] = [sys.executable, "-m", "brainjar", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, env=env or dict(os.environ), cwd=cwd, check=False)
