"""A jar of a drill's own: started from a config, in directories of its own, listened to, and ended with all that it started.

It is a client like any other; the jar that runs already, if there is one, is never touched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from brainjar import ledger, minds, paths
from brainjar.client import control
from brainjar.client.find import Jar as Card
from brainjar.client.find import is_running
from brainjar.client.follow import Follower
from brainjar.errors import BrainjarError
from brainjar.isolation import bonds
from brainjar.messages import Death, Envelope, PersonaStatus, Status, encode
from brainjar.supervisor.bulletin import FLEETING, FLEETING_RING, JOURNALLED, RING, Ring

START_S: Final = 300.0
RING_ITEM_BYTES: Final = 128
"""What Python needs for each event in a ring beyond its body: a tuple, a number, two headers."""
"""A large model may have to be loaded."""


class TooLate(BrainjarError):
    """What was waited for did not come."""


class Jar:
    def __init__(self, place: Path, options: Sequence[str]) -> None:
        """`place`: an empty directory. `options`: of `supervise`, the config among them."""
        self.state_dir, self.runtime_dir = place / "state", place / "run"
        self._log = place / "output"
        self._argv = [sys.executable, "-m", "brainjar", "supervise", *options, "--state-dir", str(self.state_dir), "--view", "none"]
        self._argv += ["--set", "jar.name=drill", "--set", f"jar.runtime_dir={self.runtime_dir}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._follower: Follower | None = None
        self._come: deque[Envelope] = deque()
        self.seen: list[Envelope] = []
        """Of what came: what is on record for ever, and the gaps."""
        self._rings = Ring(RING), Ring(FLEETING_RING)
        """Every event that was taken notice of, in order."""

    def __enter__(self) -> Jar:
        env = dict(os.environ) | paths.import_environment()
        with open(self._log, "ab") as out:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                start_new_session=True,
                preexec_fn=partial(bonds.end_with, os.getpid()),  # this process has one thread yet
            )
        try:
            self._until(lambda: is_running(self.runtime_dir), START_S, "the jar to answer")
            self._follower = Follower(self.card)
            self.until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._follower is not None:
            self._follower.close()
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _until(self, what: Callable[[], bool], patience_s: float, words: str) -> None:
        end = time.monotonic() + patience_s
        while not what():
            if self._process is not None and self._process.poll() is not None:
                last = self._log.read_text(errors="replace").strip().splitlines()
                raise BrainjarError(f"the drill's jar has ended: {last[-1] if last else 'it said nothing'}")
            if time.monotonic() > end:
                raise TooLate(f"waited {patience_s:g} s for {words}")
            time.sleep(0.05)

    @property
    def card(self) -> Card:
        return Card(jar="drill", pid=self.pid, state_dir=self.state_dir, runtime_dir=self.runtime_dir)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # ── asked ──

    def status(self) -> Status:
        return control.status(self.card)

    def persona(self, name: str) -> PersonaStatus:
        return next(persona for persona in self.status().personas if persona.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(persona.name for persona in self.status().personas)

    def ask(self, cmd: str, **more: Any) -> str:
        return control.ask(self.card, cmd, **more)

    def deaths(self) -> list[Death]:
        return ledger.read_deaths(self.state_dir / "ledger.db")

    def mind(self, name: str) -> list[minds.Line]:
        return list(minds.read_lines(self.state_dir / "minds" / name / "mind.db"))

    def until_ready(self, patience_s: float = START_S) -> Status:
        found: list[Status] = []

        def ready() -> bool:
            found[:] = [self.status()]
            return all(persona.state in ("ready", "thinking", "paused") for persona in found[0].personas)

        self._until(ready, patience_s, "all personas to be ready")
        return found[0]

    # ── heard ──

    def _next(self, patience_s: float) -> Envelope | None:
        """The next event; None: there is none within so long."""
        assert self._follower is not None
        end = time.monotonic() + patience_s
        while not self._come:
            left = end - time.monotonic()
            self._come.extend(event for event in self._follower.take(max(0.0, min(left, 0.5))) if event.type != "SNAP")
            if left <= 0 and not self._come:
                return None
        event = self._come.popleft()
        self._rings[event.type in FLEETING].add(event.seq, encode(event))
        if event.type in JOURNALLED or event.type == "GAP":
            self.seen.append(event)
        return event

    def listen(self, seconds: float) -> list[Envelope]:
        """What comes within so long."""
        end = time.monotonic() + seconds
        found: list[Envelope] = []
        while (left := end - time.monotonic()) > 0:
            if (event := self._next(left)) is not None:
                found.append(event)
        return found

    def until(
        self, type: str, sender: str | None = None, where: Callable[[Envelope], bool] = lambda _: True, patience_s: float = 120.0
    ) -> Envelope:
        """The next such event; what comes before it is passed over. Raise `TooLate`."""
        end = time.monotonic() + patience_s
        while (left := end - time.monotonic()) > 0:
            event = self._next(left)
            if event is not None and event.type == type and sender in (None, event.sender_id) and where(event):
                return event
        raise TooLate(f"waited {patience_s:g} s for {type}{f' of {sender}' if sender else ''}")

    # ── seen from outside ──

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def held_bytes(self) -> int:
        """What the supervisor holds of these events for who missed them: it grows until its rings are full, and that is no leak."""
        return sum(ring.bytes + RING_ITEM_BYTES * len(ring.items) for ring in self._rings)

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def descendants(self) -> dict[int, str]:
        """pid -> state letter of all that descends from the supervisor."""
        parents: dict[int, list[tuple[int, str]]] = {}
        for stat in (Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdigit()):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append((int(stat.parent.name), fields[0]))
        found: dict[int, str] = {}
        todo = [self.pid]
        while todo:
            for pid, letter in parents.get(todo.pop(), ()):
                found[pid] = letter
                todo.append(pid)
        return found

    def memory_bytes(self) -> int:
        """Σ PSS of all its processes: what they take of this machine, shared pages counted once."""
        total = 0
        for pid in (self.pid, *self.descendants()):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
        return total
