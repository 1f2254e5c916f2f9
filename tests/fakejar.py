"""A jar that says and answers what a test tells it to: the bus and the control socket of a supervisor, and nothing behind them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from brainjar.bus import Events
from brainjar.messages import (
    JAR,
    Death,
    Envelope,
    LastDeath,
    Memory,
    PersonaStatus,
    Snapshot,
    State,
    Status,
    SupervisorStatus,
    Type,
    encode,
)

PID = 4242


def persona(name: str, state: State = "ready", **more: Any) -> PersonaStatus:
    facts: dict[str, Any] = {
        "name": name,
        "role": name,
        "state": state,
        "pid": 100,
        "life": 1,
        "deaths": 0,
        "birth": 1,
        "memory": Memory(cap_bytes=256 << 20, private_bytes=94 << 20),
        "cpus": (0, 1),
        "threads": 2,
        "tokens": 0,
        "tokens_per_s": 0.0,
        "last_death": None,
        "model": "smollm2-135m",
        "since": 1000.0,
        "ready_at": 1000.0,
        "retry_at": None,
        "failed_starts": 0,
        "reason": "",
        "sees": (),
        "waiting_s": None,
        "thought": "",
    }
    return PersonaStatus(**(facts | more))


def status(*personas: PersonaStatus, epoch: int = 1, lease: tuple[str, ...] = ()) -> Status:
    supervisor = SupervisorStatus(pid=PID, uptime_s=60.0, rss_bytes=24 << 20, version="0", epoch=epoch, ledger_error=None)
    return Status(jar="test", supervisor=supervisor, personas=personas, lease=lease)


def snap(held: Status, *, at: float = 1000.0, seq: int = 0, nonce: str = "n") -> Envelope:
    metadata = msgspec.to_builtins(Snapshot(status=held, topics={}))
    return Envelope(type="SNAP", timestamp=at, sender_id=nonce, metadata=metadata, epoch=held.supervisor.epoch, seq=seq)


def event(type: Type, sender: str = JAR, content: str = "", *, at: float = 1000.0, **more: Any) -> Envelope:
    return Envelope(type=type, timestamp=at, sender_id=sender, content=content, **more)


def death(name: str, cause: str = "killed-by-operator", *, life: int = 1, at: float = 1000.0, replayed: bool = False) -> Envelope:
    record = Death(persona=name, life=life, birth=life, at=at, cause=cause, signal=9, deaths=life, replayed=replayed)
    return event(
        "DEATH", name, f"{name} died in life {life}: {cause}", at=at, life=life, crash_count=life, metadata=msgspec.to_builtins(record)
    )


def last_death(cause: str, at: float) -> LastDeath:
    return LastDeath(cause=cause, signal=9, exit_code=None, at=at)


class FakeJar:
    """Runs in a thread from `with` to its end. What is `say`d goes out as numbered events; `swallow` numbers one and loses it."""

    def __init__(self, base: Path, name: str = "test", epoch: int = 1) -> None:
        self.name, self.epoch = name, epoch
        self.state_dir, self.runtime_dir = base / f"{name}-state", base / f"{name}-run"
        self.status = status(persona("subject"), persona("observer"), epoch=epoch)
        self.seq = 0
        self.held: dict[int, Envelope] = {}
        """What a replay can still give."""
        self.deaf_to_snaps = 0
        """So many requests for a snapshot are lost, as those of a slow joiner are."""
        self.beats = True
        self.requests: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {}
        """By command; a list without a last line is an end without a word."""
        self._lock = threading.Lock()
        self._out: list[Envelope] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FakeJar:
        for directory in (self.state_dir, self.runtime_dir):
            directory.mkdir(parents=True, exist_ok=True)
            card = {"jar": self.name, "pid": PID, "state_dir": str(self.state_dir), "runtime_dir": str(self.runtime_dir), "version": "0"}
            (directory / "jar.json").write_text(json.dumps(card))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.runtime_dir / "control"))
        self._listener.listen()
        self._listener.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """As a killed supervisor does: without a word, its cards and socket files left behind."""
        self._over.set()
        self._thread.join()

    def say(self, type: Type, sender: str = JAR, content: str = "", **more: Any) -> Envelope:
        with self._lock:
            envelope = self._number(type, sender, content, more)
            self.held[envelope.seq] = envelope
            self._out.append(envelope)
        return envelope

    def say_again(self, envelope: Envelope) -> None:
        with self._lock:
            self._out.append(envelope)

    def swallow(self, type: Type, sender: str = JAR, content: str = "", *, hold: bool = True, **more: Any) -> Envelope:
        with self._lock:
            envelope = self._number(type, sender, content, more)
            if hold:
                self.held[envelope.seq] = envelope
        return envelope

    def succeeded(self) -> None:
        """Another supervisor has taken over."""
        with self._lock:
            self.epoch, self.seq, self.held = self.epoch + 1, 0, {}
            self.status = status(*self.status.personas, epoch=self.epoch)

    def _number(self, type: Type, sender: str, content: str, more: dict[str, Any]) -> Envelope:
        self.seq += 1
        return Envelope(type=type, timestamp=time.time(), sender_id=sender, content=content, epoch=self.epoch, seq=self.seq, **more)

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        events = Events(context, self.runtime_dir)
        beat = time.monotonic()
        calls: list[socket.socket] = []
        while not self._over.is_set():
            for topic in events.joined():
                if topic.startswith("SNAP.") and self.deaf_to_snaps:
                    self.deaf_to_snaps -= 1
                elif topic.startswith("SNAP."):
                    with self._lock:
                        answer = snap(self.status, at=time.time(), seq=self.seq - len(self._out), nonce=topic[5:])
                    events.publish(topic, encode(answer))
            if self.beats and time.monotonic() > beat:
                beat += 0.1
                self.say("HEARTBEAT", JAR)
            with self._lock:
                out, self._out = self._out, []
            for envelope in out:
                events.publish(envelope.topic, encode(envelope))
            self._serve(calls)
            time.sleep(0.005)
        for call in calls:
            call.close()
        self._listener.close()
        events.close()
        context.term()

    def _serve(self, calls: list[socket.socket]) -> None:
        try:
            call, _ = self._listener.accept()
        except BlockingIOError:
            return
        call.settimeout(1.0)
        line = call.makefile("rb").readline()
        if not line:  # somebody looked whether anybody listens
            call.close()
            return
        request = json.loads(line)
        self.requests.append(request)
        lines = self.answers.get(request["cmd"], self._answer)(request)
        try:
            call.sendall(b"".join(msgspec.json.encode(answer) + b"\n" for answer in lines))
        except BrokenPipeError:
            pass
        if lines and not lines[-1].get("done"):
            call.close()
        else:
            calls.append(call)

    def _answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        done = {"done": True, "exit": 0, "say": f"{request['cmd']} is done"}
        if request["cmd"] == "status":
            return [done | {"status": msgspec.to_builtins(self.status)}]
        if request["cmd"] == "events":
            with self._lock:
                return [*({"event": msgspec.to_builtins(e)} for seq, e in sorted(self.held.items()) if seq > request["since"]), done]
        return [done]
