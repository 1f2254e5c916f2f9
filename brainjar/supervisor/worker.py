"""One persona as its supervisor holds it: the phase it is in, its past in numbers, and the process of its present birth.

`Worker` lasts as long as the supervisor and holds the snapshot memfds, so that a context outlives its lives. `Process`
is one birth: gate, pidfd, channel, vitals, stderr; closed as a whole.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from pathlib import Path
from typing import Final

import zmq

from brainjar import vitals as vital
from brainjar.bus import Channel
from brainjar.config import Persona
from brainjar.isolation import rlimits
from brainjar.ledger import Record
from brainjar.messages import SHORT_WORDS, Birth, LastDeath, Layer, Memory, PersonaStatus, Ready, encode
from brainjar.supervisor import logs, reaper
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.lifecycle import SHOWN, Phase

HELLO_BYTES: Final = 4096
VOICE_BYTES_PER_S: Final = 128 * 1024
"""What a voice may say in the long run: a model of 1,000 tokens a second says 80 KiB."""
VOICE_BURST: Final = 512 * 1024


class Process:
    """A worker's process, from the request to fork it to its burial."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], runtime_dir: Path, log: Path, name: str, started: float) -> None:
        self.gate, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.gate.setblocking(False)
        self.channel = Channel(context, runtime_dir)
        self.vitals = vital.create(f"brainjar-vitals-{name}")
        self.stderr = logs.append(log)
        self.log_from = logs.size(self.stderr)
        self.pid = 0
        self.pidfd = -1
        self.started = started
        """Monotonic."""
        self.ready_at: float | None = None
        self.ready_wall: float | None = None
        self.ready: Ready | None = None
        self.allowance = float(VOICE_BURST)
        self._earned_at = started
        self.heard = 0
        """Messages taken from its voice."""
        self.malformed = 0
        self.turn = 0
        self.thinking_text = ""
        self.thinking_turn = 0
        self.intent: str | None = None
        self.wait: reaper.Wait | None = None
        self.words = ""
        """What killed a birth that never was: the supervisor's own reason."""

    def earn(self, now: float) -> None:
        """Let its voice say more, the longer it has been since."""
        self.allowance = min(float(VOICE_BURST), self.allowance + (now - self._earned_at) * VOICE_BYTES_PER_S)
        self._earned_at = now

    def hello(self) -> bool:
        """Take the newborn's pidfd from the gate. False: the gate has ended, there will be no worker."""
        try:
            body, fds, _, _ = socket.recv_fds(self.gate, HELLO_BYTES, 4)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not body or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            return False
        self.pidfd = fds[0]
        os.set_inheritable(self.pidfd, False)
        self.pid = _pid_of(self.pidfd)
        return self.pid > 0

    def hand_over(self, birth: Birth, snapshots: tuple[int, int]) -> bool:
        try:
            socket.send_fds(self.gate, [encode(birth)], [self.vitals, *snapshots, self.stderr])
        except OSError:
            return False  # it is dead already: its pidfd says the rest
        return True

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, number)

    def release_gate_end(self) -> None:
        """The zygote has its own copy of the worker's end."""
        self.theirs.close()

    def close(self) -> None:
        self.gate.close()
        self.theirs.close()
        self.channel.close()
        for fd in (self.vitals, self.stderr, self.pidfd):
            if fd >= 0:
                os.close(fd)


def _pid_of(pidfd: int) -> int:
    """The kernel's word on whose pidfd this is; 0 if it is none or that process is reaped."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as f:
            for line in f:
                if line.startswith("Pid:"):
                    return max(0, int(line.split()[1]))
    except (OSError, ValueError):
        pass
    return 0


class Worker:
    def __init__(self, persona: Persona, record: Record, wall: float, remembered_deaths: int) -> None:
        self.persona = persona
        self.name = persona.name
        self.phase = Phase.STOPPED
        self.since = wall
        self.deadline: float | None = None
        """Monotonic; when DEADLINE happens to its phase."""
        self.retry_at: float | None = None
        """Wall clock, for people: when the next life or try begins."""
        self.deaths = record.deaths
        self.births = record.births
        self.last_death = record.last_death
        self.recent: deque[float] = deque(maxlen=remembered_deaths)
        """When it died under this supervisor; monotonic, so that no clock that is set can count a death in or out."""
        self.failed_starts = 0
        self.reason = ""
        self.rises = False
        """Its next READY is a resurrection: it has died since it was last alive."""
        self.died_at = 0.0
        self.start_after_stop = False
        self.stop_when_buried = False
        self.process: Process | None = None
        self.snapshots = (
            os.memfd_create(f"brainjar-a-{self.name}", os.MFD_CLOEXEC),
            os.memfd_create(f"brainjar-b-{self.name}", os.MFD_CLOEXEC),
        )
        self.rate = 0.0
        self._rate_from = (0, 0)

    @property
    def life(self) -> int:
        return self.deaths + 1

    @property
    def pid(self) -> int | None:
        return self.process.pid or None if self.process else None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.pidfd >= 0 and self.process.wait is None

    def vitals(self) -> vital.Vitals:
        return vital.read(self.process.vitals) if self.process else vital.Vitals()

    def measure_rate(self, now: vital.Vitals) -> float:
        """Tokens per second of thinking, over the newest stretch that had any."""
        tokens, think = self._rate_from
        if now.tokens < tokens:
            tokens = think = 0
        if now.think_ns > think and now.tokens > tokens:
            self.rate = (now.tokens - tokens) / ((now.think_ns - think) / 1e9)
            self._rate_from = (now.tokens, now.think_ns)
        return self.rate

    def memory(self, now: vital.Vitals) -> Memory:
        cap = self.persona.memory
        process = self.process
        if process is None or process.ready is None or not self.alive:
            return Memory(
                cap_bytes=cap, layers=(Layer(name="rlimit", limit_bytes=cap, used_bytes=None, effective=False, counts=rlimits.COUNTS),)
            )
        baseline = process.ready.baseline_bytes
        limit = rlimits.data_limit(process.pid)
        used = rlimits.vm_data(process.pid)
        layer = Layer(
            name="rlimit",
            limit_bytes=None if limit is None else limit - baseline,
            used_bytes=None if used is None else max(0, used - baseline),
            effective=limit is not None,
            counts=rlimits.COUNTS,
        )
        return Memory(cap_bytes=cap, private_bytes=now.private_bytes or None, layers=(layer,))

    def status(self, gate: Gate, now: float) -> PersonaStatus:
        seen = self.vitals()
        shown = SHOWN[self.phase]
        if self.phase is Phase.READY and self.name in gate.holders:
            shown = "thinking"
        waiting = gate.waiting_since(self.name)
        process = self.process
        return PersonaStatus(
            name=self.name,
            role=self.persona.role,
            state=shown,
            pid=self.pid if self.alive else None,
            life=self.life,
            deaths=self.deaths,
            birth=self.births,
            memory=self.memory(seen),
            cpus=self.persona.cpus,
            threads=self.persona.threads,
            tokens=seen.tokens,
            tokens_per_s=round(self.measure_rate(seen), 1),
            last_death=self.last_death,
            model=self.persona.model.name or self.persona.model.path.name,
            since=self.since,
            ready_at=process.ready_wall if process else None,
            retry_at=self.retry_at,
            failed_starts=self.failed_starts,
            reason=self.reason,
            sees=self.persona.sees,
            waiting_s=None if waiting is None else round(now - waiting, 3),
            thought=seen.words[-SHORT_WORDS:] if self.alive else "",
        )

    def remember(self, last: LastDeath) -> None:
        self.deaths += 1
        self.last_death = last
        self.recent.append(self.died_at)
        self.rises = True

    def close(self) -> None:
        if self.process:
            self.process.close()
            self.process = None
        for fd in self.snapshots:
            os.close(fd)
