"""Thousands of faults at random moments, against a real supervisor and real processes that hold no model.

Every death must be in the ledger and on the bus exactly once, in order and with its cause; nothing may be left over; and at no instant
may two processes live as one persona. BRAINJAR_CHAOS_FAULTS says how many (`make chaos`: 10,000), BRAINJAR_CHAOS_SEED which ones: a
failure prints its seed.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from brainjar import ledger
from brainjar.bus import Subscriber
from brainjar.messages import Death
from brainjar.supervisor.births import SPARE_DESCRIPTORS
from brainjar.supervisor.bulletin import RING_BYTES
from tests.patience import GONE_S, PATIENCE_S
from tests.system.conftest import MakeJar
from tests.system.harness import Jar, alive, jar_groups, own_memory, until, zombies_of

pytestmark = [pytest.mark.chaos, pytest.mark.system]

FAULTS: Final = int(os.environ.get("BRAINJAR_CHAOS_FAULTS", "2000"))
SEED: Final = int(os.environ.get("BRAINJAR_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
FEW: Final = 4
LOOK_S: Final = 3.0
SESSIONS: Final = 5
"""Supervisors in a row; each but the last is killed."""
PROGRAM: Final = (sys.executable, "-m", "tests.chaos.programs.light")
CAUSES: Final = {
    signal.SIGKILL: {"killed"},
    signal.SIGSEGV: {"segv"},
    signal.SIGABRT: {"abort"},
    signal.SIGBUS: {"bus-error"},
    signal.SIGFPE: {"fpe"},
    signal.SIGUSR1: {"exit-3"},
    signal.SIGUSR2: {"left"},
    signal.SIGALRM: {"exit-1", "exception"},
    signal.SIGVTALRM: {"exit-127"},
    signal.SIGPROF: {"exception"},
    signal.SIGXCPU: {"cap-rlimit", "out-of-memory"},
    signal.SIGTERM: {"left"},
}
"""Signal -> what a death of it may be called. The walls let a worker be sent them; what `programs.faulty` makes of some is an exit."""
HEAD: Final = """
[jar]
name = "chaos"
[model]
name = "smollm2-135m"
context = 512
[restart]
pause = "0s"
intensity = 1000000
reset = "1s"
[watchdog]
stall = "1s"
interval = "500ms"
"""
PROMPTS: Final = ("THINK 50",) * 2 + ("QUIET",) * 5 + ("SLOW 0.1",) * 2 + ("FAILS 5",)


def config(root: Path) -> str:
    text = HEAD
    for n, prompt in enumerate(PROMPTS):
        file = root / f"{n}.md"
        file.write_text(prompt)
        text += f'[[persona]]\nname = "p{n}"\nrole = "isolated"\nmemory = "128MiB"\nprompt = "{file}"\n'
    return text


class Ear(threading.Thread):
    """Hears everything that a jar says, in a thread that does nothing else; who is READY, and who has died."""

    def __init__(self, jar: Jar) -> None:
        super().__init__(daemon=True)
        self.jar = jar
        self.ready: dict[str, tuple[int, int]] = {}
        """Persona -> (pid, birth) while it is."""
        self.dead: set[tuple[str, int]] = set()
        """(persona, birth) of whose death it has heard."""
        self.heard: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._ends = False
        self._bus = Subscriber(jar.runtime_dir, ("READY", "DEATH", "STATE", "THOUGHT"))
        for persona in jar.status()["personas"]:
            if persona["state"] in ("ready", "thinking"):
                self.ready[persona["name"]] = persona["pid"], persona["birth"]
        self.start()

    def run(self) -> None:
        from brainjar.messages import decode_envelope

        while not self._ends:
            body = self._bus.receive(100)
            if body is None:
                continue
            event = decode_envelope(body)
            self.heard[event.type] += 1
            with self.lock:
                if event.type == "READY":
                    self.ready[event.sender_id] = event.metadata["pid"], event.metadata["birth"]
                elif event.type == "DEATH":
                    self.ready.pop(event.sender_id, None)
                    self.dead.add((event.sender_id, event.metadata["birth"]))
                elif event.type == "STATE" and event.metadata["state"] not in ("ready", "thinking", "paused"):
                    self.ready.pop(event.sender_id, None)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self.join()
        self._bus.close()


class Observer(threading.Thread):
    """From outside: never two processes that live as one persona. The kernel says who holds its lock, and /proc who carries its name."""

    def __init__(self, jar: Jar) -> None:
        super().__init__(daemon=True)
        self._state = jar.state_dir
        self.found: list[str] = []
        self.looks = self.held = 0
        self._ends = False
        self.start()

    def run(self) -> None:
        while not self._ends:
            living: dict[str, list[int]] = defaultdict(list)
            # a glob looks at each once more, and fails where it has just ended
            for stat in (Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdigit()):
                with suppress(OSError):
                    head, _, rest = stat.read_text().rpartition(")")
                    name = head.partition("(")[2]
                    if name.startswith("bj-p") and rest.split()[0] != "Z" and self._is_ours(int(stat.parent.name)):
                        living[name].append(int(stat.parent.name))
            for name, pids in living.items():
                if len(pids) > 1 and all(alive(pid) for pid in pids):  # each was seen, and lives still: they have lived at one time
                    self.found.append(f"{name}: {pids}")
                self.held += sum(self._holds(pid, name[3:]) for pid in pids)
            self.looks += 1
            time.sleep(0.005)  # the lock is the kernel's word at every instant; to look at it must not take a core

    def _is_ours(self, pid: int) -> bool:
        return any(str(self._state) in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))

    def _holds(self, pid: int, name: str) -> bool:
        """Whether it has the persona's lock, as its own descriptor tells (`lock:` in fdinfo)."""
        found = False
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(f"/{name}/lock"):
                    found = found or "lock:" in Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
        return found

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self.join()


@contextmanager
def stalled_subscriber(jar: Jar) -> Iterator[None]:
    """Subscribes to everything and reads nothing."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 1)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(f"ipc://{jar.runtime_dir / 'events'}")
    try:
        yield
    finally:
        socket.close()
        context.term()


class Chaos:
    def __init__(self, jar: Jar, clock: Path, rng: random.Random) -> None:
        self.jar, self.clock, self.rng = jar, clock, rng
        self.sent: dict[tuple[str, int], list[int]] = defaultdict(list)
        """(persona, birth) -> the signals that it was sent while it was READY."""
        self.done: Counter[str] = Counter()
        self.struck_at: dict[tuple[str, int], float] = {}
        self._looked_at = time.monotonic()

    def strike(self, ear: Ear) -> None:
        """One fault."""
        kind = self.rng.choices(("worker", "zygote", "senses", "stop", "descriptors", "clock", "order"), weights=(950, 4, 6, 4, 3, 6, 27))[
            0
        ]
        getattr(self, f"_{kind}")(ear)
        self.done[kind] += 1

    def _one(self, ear: Ear) -> tuple[str, int, int]:
        """Somebody who is READY: persona, pid, birth."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with ear.lock:
                free = [(name, pid, birth) for name, (pid, birth) in ear.ready.items()]
            if len(free) >= FEW or (free and time.monotonic() < self._looked_at + LOOK_S):
                return self.rng.choice(free)
            if time.monotonic() > self._looked_at + LOOK_S:
                self._look(ear)
            time.sleep(0.002)
        raise AssertionError(
            f"nobody has been READY for {PATIENCE_S:g} s: {[(p['name'], p['state'], p['reason']) for p in self.jar.status()['personas']]}"
        )

    def _take(self, ear: Ear) -> tuple[str, int, int]:
        """Somebody who is READY, and is not taken again: one fault for a life, so that its cause is known."""
        name, pid, birth = self._one(ear)
        with ear.lock:
            ear.ready.pop(name, None)
        return name, pid, birth

    def _look(self, ear: Ear) -> None:
        """Who lives on after a fault: what a handler raises can be lost in C, where it found its worker. It may be struck again."""
        before = self._looked_at
        self._looked_at = time.monotonic()
        for persona in self.jar.status()["personas"]:
            key = persona["name"], persona["birth"]
            if persona["state"] in ("ready", "thinking") and self.struck_at.get(key, 0.0) < before:
                with ear.lock:
                    ear.ready.setdefault(persona["name"], (persona["pid"], persona["birth"]))

    def _note(self, name: str, birth: int, number: int) -> None:
        self.sent[name, birth].append(number)
        self.struck_at[name, birth] = time.monotonic()

    def _send(self, victim: tuple[str, int, int], number: int) -> None:
        name, pid, birth = victim
        self._note(name, birth, number)
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def _worker(self, ear: Ear) -> None:
        self._send(self._take(ear), self.rng.choice(list(CAUSES)))

    def _stop(self, ear: Ear) -> None:
        """It hangs; the watchdog finds out."""
        self._send(self._take(ear), signal.SIGSTOP)

    def _zygote(self, ear: Ear) -> None:
        for pid in self.jar.named("bj-zygote"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _senses(self, ear: Ear) -> None:
        for pid in self.jar.descendants():
            with suppress(OSError):
                if b"watchdog.senses" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def _descriptors(self, ear: Ear) -> None:
        """EMFILE for a moment: what a newborn needs cannot be had, but for what is on its way already."""
        victims = [self._take(ear) for _ in range(3)]  # before: nobody may come to be READY while it lasts
        soft, hard = resource.prlimit(self.jar.pid, resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir(f"/proc/{self.jar.pid}/fd")))
        resource.prlimit(self.jar.pid, resource.RLIMIT_NOFILE, (used + SPARE_DESCRIPTORS - 8, hard))
        victims = [(name, pid, birth) for name, pid, birth in victims if (name, birth) not in ear.dead]  # of something else meanwhile
        try:
            for victim in victims:
                self._send(victim, self.rng.choice(list(CAUSES)))
            end = time.monotonic() + LOOK_S  # one of them may live on, see `_look`
            while time.monotonic() < end and not ear.dead.issuperset((name, birth) for name, _, birth in victims):
                time.sleep(0.002)
        finally:
            resource.prlimit(self.jar.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def _clock(self, ear: Ear) -> None:
        aside = self.clock.with_suffix(".new")
        aside.write_text(str(self.rng.choice((-86400, -3600, -1, 0, 1, 3600, 86400))))
        aside.rename(self.clock)

    def _order(self, ear: Ear) -> None:
        """By hand: some that are deaths, some that are none."""
        cmd = self.rng.choice(("restart", "kill", "pause", "resume", "status"))
        name, _, birth = self._one(ear)
        if cmd in ("restart", "kill"):
            with ear.lock:
                ear.ready.pop(name, None)
            self._note(name, birth, -1)
        self.jar.ask(cmd, **({} if cmd == "status" else {"name": name}))
        if cmd == "pause":
            self.jar.ask("resume", name=name)


def until_all_live(jar: Jar) -> dict[str, Any]:
    return jar.until_ready()


def standing_still(jar: Jar) -> list[int]:
    """Processes of the jar that were stopped by a signal."""
    found = []
    for pid in jar.descendants():
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                found.append(pid)
    return found


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def heard_deaths(jar: Jar) -> list[dict[str, Any]]:
    """Every DEATH of every epoch that a subscriber could have asked for."""
    found: list[dict[str, Any]] = []
    for epoch in range(1, jar.status()["supervisor"]["epoch"] + 1):
        since = 0
        while True:
            answer, events = jar.ask("events", epoch=epoch, since=since)
            found += [event for event in events if event["type"] == "DEATH" and event["epoch"] == epoch]
            if not answer.get("more") or answer["more"][0] != epoch:
                break
            since = answer["more"][1]
    return found


def told_alike(jar: Jar) -> tuple[list[Death], dict[str, int], list[dict[str, Any]]] | None:
    """The deaths in the ledger, each persona's count of them and the DEATHs on the bus, of one moment.

    None while somebody is still dying: what was struck last may die of it after all live, as a handler waits for its interpreter.
    """
    recorded = ledger.read_deaths(jar.state_dir / "ledger.db")
    personas = jar.status()["personas"]
    heard = heard_deaths(jar)
    if open_births(jar) != len(PROMPTS) or ledger.read_deaths(jar.state_dir / "ledger.db") != recorded:
        return None
    return recorded, {persona["name"]: persona["deaths"] for persona in personas}, heard


def open_births(jar: Jar) -> int:
    db = sqlite3.connect(f"file:{jar.state_dir / 'ledger.db'}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM births WHERE outcome IS NULL").fetchone()[0])
    finally:
        db.close()


def test_thousands_of_faults_lose_no_death_and_leave_nothing(make_jar: MakeJar, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n  {FAULTS} faults, BRAINJAR_CHAOS_SEED={SEED}", flush=True)
    rng = random.Random(SEED)
    clock = tmp_path / "clock"
    clock.write_text("0")
    jar = make_jar(config(tmp_path), "--force", program=PROGRAM, env={"BRAINJAR_TEST_CLOCK": str(clock)})
    chaos = Chaos(jar, clock, rng)
    supervisors_killed = 0
    seen: set[int] = set()
    for session in range(SESSIONS):
        jar.start()
        until_all_live(jar)
        at_first, settled = fds(jar.pid), own_memory(jar.pid)
        with Ear(jar) as ear, Observer(jar) as observer, stalled_subscriber(jar):
            for n in range(FAULTS // SESSIONS):
                if n == FAULTS // SESSIONS // 3:
                    settled = own_memory(jar.pid)
                chaos.strike(ear)
                if rng.random() < 0.3:
                    time.sleep(rng.random() * 0.02)
            seen |= set(jar.descendants())
            if session < SESSIONS - 1:  # while all of that is still under way
                left = jar.descendants()
                assert jar.process is not None
                jar.process.kill()
                jar.process.wait()
                supervisors_killed += 1
                until(lambda left=left: not any(alive(pid) for pid in left), 2 * GONE_S, "who was left by a killed supervisor")  # type: ignore[misc]
        assert observer.looks > 10
        assert observer.held > 10, "who lives holds the lock of its persona, by the kernel's word"
        assert observer.found == []
        assert ear.heard["DEATH"] > 0
    until(lambda: not standing_still(jar), why="the watchdog's end of those that were stopped last")  # or they die while all is counted
    until_all_live(jar)
    # nothing is left over, nothing has grown
    until(lambda: zombies_of(jar.pid) == [], why="zombies")
    until(lambda: fds(jar.pid) <= at_first + 4, why=lambda: f"descriptors: {at_first} at first, now {fds(jar.pid)}")
    assert own_memory(jar.pid) - settled < 2 * RING_BYTES + (2 << 20), f"grew from {settled} to {own_memory(jar.pid)}"
    # the ledger: each birth is closed but those that live, each death once, lives without a hole
    recorded, deaths, heard = until(lambda: told_alike(jar), why="an end to the deaths")
    assert len({(d.persona, d.birth) for d in recorded}) == len(recorded)
    by_birth = {(d.persona, d.birth): d for d in recorded}
    for name in (f"p{n}" for n in range(len(PROMPTS))):
        own = sorted((d for d in recorded if d.persona == name), key=lambda d: d.birth)
        assert [d.life for d in own] == list(range(1, len(own) + 1)), f"{name}: a life is missing or counted twice"
        assert deaths[name] == len(own)
    # the bus: what the ledger has, once each and in the same order; what was replayed is marked
    first = [event for event in heard if not event["metadata"].get("replayed")]
    births = [(event["sender_id"], event["metadata"]["birth"]) for event in first]
    assert Counter(births).most_common(1)[0][1] == 1, "a death was announced twice"
    assert set(births) == set(by_birth), "the bus and the ledger disagree"
    for name in (f"p{n}" for n in range(len(PROMPTS))):
        lives = [event["life"] for event in first if event["sender_id"] == name]
        assert lives == sorted(lives), f"{name}: out of order"
    # what was struck has died of it
    wrong = [problem for key, numbers in chaos.sent.items() if (problem := judged(key, numbers, by_birth.get(key)))]
    assert wrong == []
    # fewer than were sent may have found their victim: it may have been stopped by an order, or its supervisor killed, before
    struck = sum(1 for key in chaos.sent if key in by_birth)
    assert struck >= 0.8 * len(chaos.sent)
    assert jar.stop() == 0
    until(lambda: not any(alive(pid) for pid in seen), 2 * GONE_S, "orphans")
    assert jar_groups(jar.state_dir) == []
    with capsys.disabled():
        causes = ", ".join(f"{cause} {count}" for cause, count in Counter(d.cause for d in recorded).most_common())
        print(f"  {dict(chaos.done)}, {supervisors_killed} supervisors killed; {len(recorded)} deaths: {causes}", flush=True)


def judged(key: tuple[str, int], numbers: list[int], death: Death | None) -> str:
    """What is wrong with how it ended; "" where that is as it was struck."""
    if death is None:
        return ""  # stopped by an order, or not READY any more when it was struck: then there is no death to be told
    allowed = {"supervisor-lost", "watchdog-stalled", "killed-by-operator"}
    for number in numbers:
        allowed |= CAUSES.get(number, set())  # type: ignore[call-overload]
    if numbers == [signal.SIGSTOP]:
        allowed |= {"killed"}
    return "" if death.cause in allowed else f"{key}: {numbers} -> {death.cause} ({death.evidence})"
