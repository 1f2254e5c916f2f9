"""What the supervisor makes of its engines: who is paused, when another is started, and what is said where none can be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar import config as configs
from brainjar import vitals
from brainjar.config import Config, load
from brainjar.quota import Quota
from brainjar.supervisor import reaper
from brainjar.supervisor.engines import GONE_S, PAUSED, Engine, Engines, environment, secret
from brainjar.supervisor.gate import Claim, Gate
from brainjar.supervisor.leases import Leases
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.reaper import Wait
from brainjar.supervisor.zygotes import Standing

NAMES = ("subject", "observer", "god")
TEXT = '[model]\npath = "model.gguf"\n[inference]\nmode = "engine"\n' + "".join(f'[[persona]]\nname = "{name}"\n' for name in NAMES)


class Worker:
    def __init__(self, name: str, alive: bool = True) -> None:
        self.name, self.alive, self.phase, self.process = name, alive, Phase.READY, None
        self.paused: list[str] = []


class World:
    """Stands for leases and bulletin; it says who was paused and what was announced."""

    def __init__(self) -> None:
        self.now = 100.0
        self.said: list[tuple[str, str]] = []

    def clock(self) -> float:
        return self.now

    def pause(self, worker: Any, why: str) -> None:
        worker.paused.append(why)

    def resume(self, worker: Any, why: str) -> None:
        worker.paused.remove(why)

    def announce(self, type: str, sender: str, text: str, **_: Any) -> None:
        self.said.append((type, text))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "jar.toml"
    path.write_text(TEXT)
    return load(path, allowed_cpus=frozenset({0, 1}))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def made(config: Config, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    def start(self: Engine) -> None:
        self.standing, self.next_start, self.pid, self.killed_at = Standing.LOADING, None, 4711, None

    monkeypatch.setattr(Engine, "start", start)
    monkeypatch.setattr(reaper, "send", lambda *_: None)
    quotas = {name: Quota(cells=512, window=512, cell_bytes=1, worker_bytes=1 << 20) for name in NAMES}
    stand_in: Any = world
    made = Engines(tmp_path, tmp_path / "log", stand_in, world.clock)
    made.adopt(config, quotas, dict.fromkeys(NAMES, 1 << 20))
    yield made
    for engine in made:
        if engine.vitals >= 0:
            os.close(engine.vitals)


def the(made: Engines) -> Engine:
    (engine,) = made
    return engine


def end(made: Engines, world: World, workers: list[Any], *, was_loaded: bool) -> None:
    stand_in: Any = world
    the(made).standing = Standing.ABSENT
    made.ended(the(made), Wait(None, 9), workers, stand_in, was_loaded=was_loaded)


def test_a_death_pauses_those_that_live_and_another_is_started_at_once(made: Engines, world: World) -> None:
    workers = [Worker("subject"), Worker("observer"), Worker("god", alive=False)]
    end(made, world, workers, was_loaded=True)
    assert [worker.paused for worker in workers] == [[PAUSED], [PAUSED], []]
    assert [type for type, _ in world.said] == ["ENGINE"] and the(made).deaths == 1
    assert made.due() == world.now
    made.start_due()
    assert the(made).standing is Standing.LOADING and made.due() is None


def test_one_that_does_not_come_to_be_loaded_is_tried_less_and_less_often(made: Engines, world: World) -> None:
    end(made, world, [Worker("subject")], was_loaded=True)
    waits = []
    for _ in range(4):
        made.start_due()
        end(made, world, [Worker("subject")], was_loaded=False)
        due = made.due()
        assert due is not None
        waits.append(due - world.now)
        made.start_due()
        assert the(made).standing is Standing.ABSENT, "not before its time"
        world.now = due
    assert waits == sorted(waits) and waits[0] >= 1 and waits[-1] > waits[0]
    assert [type for type, _ in world.said] == ["ENGINE"] + ["PRESSURE"] * 4, "one death is one ENGINE"


def test_where_nobody_lives_the_next_birth_starts_it(made: Engines, world: World) -> None:
    end(made, world, [Worker("subject", alive=False)], was_loaded=True)
    assert made.due() is None


def test_an_end_that_was_asked_for_is_no_event(made: Engines, world: World) -> None:
    made.dismiss()
    end(made, world, [Worker("subject")], was_loaded=True)
    assert world.said == [] and made.due() is None and made.gone


def test_one_that_cannot_even_be_started_is_tried_again(made: Engines, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Engine) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Engine, "start", fail)
    end(made, world, [Worker("subject")], was_loaded=True)
    made.start_due()
    due = made.due()
    assert due is not None and due > world.now and "Cannot allocate memory" in the(made).why


def test_one_that_even_sigkill_does_not_end_is_said_once_and_no_other_is_started(made: Engines, world: World) -> None:
    engine, worker = the(made), Worker("subject")
    stand_in: Any = world
    engine.standing, engine.pidfd = Standing.LOADED, 1 << 20
    made.end(engine, "it had stood still", [worker], stand_in)  # type: ignore[list-item]
    assert worker.paused == [PAUSED], "before it has ended, which may be never"
    assert made.unending() == []
    world.now += GONE_S + 1
    assert made.unending() == [engine] and made.unending() == []
    made.start_due()
    assert engine.standing is Standing.LOADED and made.gone, "nor does the jar wait for it when it stops"


def test_one_that_computes_for_long_does_not_stand_still_and_one_that_is_silent_does(made: Engines, world: World) -> None:
    engine = the(made)
    engine.standing, engine.vitals = Standing.LOADED, vitals.create("test-engine")
    record = vitals.Writer(engine.vitals)
    step = 0
    while world.now < 100 + 3 * 120:  # one decode, three times as long as a stall may be
        step += 1
        record.set(beat_ns=1, decode_ns=1, steps=step)
        record.set(beat_ns=step)
        assert made.stalled(world.now) == []
        world.now += 1
    for _ in range(200):
        if found := made.stalled(world.now):
            break
        world.now += 1
    ((stalled, seconds),) = found
    assert stalled is engine and seconds >= 120


def test_the_key_outlives_the_supervisor_and_is_nobody_elses(tmp_path: Path) -> None:
    key = secret(tmp_path)
    assert len(key) == 32 and secret(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "engine.key").stat().st_mode) == 0o600
    (tmp_path / "engine.key").write_bytes(b"short")
    again = secret(tmp_path)
    assert len(again) == 32 and secret(tmp_path) == again


def test_an_engine_sees_the_gpus_that_the_supervisor_sees_and_one_on_the_cpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("A_SECRET", "x")
    assert environment(gpu=True)["CUDA_VISIBLE_DEVICES"] == "1" and environment(gpu=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert "A_SECRET" not in environment(gpu=True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "CUDA_VISIBLE_DEVICES" not in environment(gpu=True)


# ── leases ──


def asked(threads: dict[str, int], concurrent: int, config: Config) -> tuple[str, ...]:
    """Who holds it when all have asked."""

    class Process:
        request, gave_back, cpus, acked = 0, True, (), 0

        class own:
            estimate = None

        class channel:
            listened_to = True

    shares = config.inference.shares[:1] * concurrent if not threads else config.inference.shares
    leases = Leases(shares, {}, lambda _: None, lambda: 0.0)
    leases.engine_threads = threads
    workers: dict[str, Any] = {}
    for persona in config.personas:
        worker: Any = Worker(persona.name)
        worker.persona, worker.process, worker.tell = persona, Process(), lambda _: None
        workers[persona.name] = worker
    leases._workers = workers
    for worker in workers.values():
        leases.ask(worker, 1)
    return leases.gate.holders


def test_where_an_engine_computes_for_all_all_may_think_at_once_on_two_cpus(config: Config) -> None:
    assert asked(dict.fromkeys(NAMES, 0), 3, config) == NAMES


def test_an_explicit_bound_is_kept(tmp_path: Path) -> None:
    (tmp_path / "jar.toml").write_text(TEXT)
    bounded = load(tmp_path / "jar.toml", ["inference.max_concurrent=2"], allowed_cpus=frozenset({0, 1}))
    assert asked(dict.fromkeys(NAMES, 0), 2, bounded) == NAMES[:2]


def test_beside_those_that_compute_for_themselves_its_threads_count() -> None:
    gate = Gate([(0, 1), (2, 3)])
    gate.ask("engine-1", 0.0, Claim(2))
    gate.ask("fork", 0.0, Claim(2))
    gate.ask("engine-2", 0.0, Claim(2))
    assert gate.grant(0.0) == ["engine-1", "fork"]


def test_an_engine_is_told_all_that_it_needs(config: Config) -> None:
    (spec,) = config.engines
    assert spec == configs.Engine(model=config.personas[0].model.shared, personas=NAMES, cpus=(0, 1), threads=2)
