"""The processes that hold models: which there are, which go, and who takes the place of whom after an upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar.config import Model
from brainjar.messages import Loaded
from brainjar.supervisor.zygotes import LOOK_AGAIN_S, SUCCESSOR_BYTES, Standing, Zygote, Zygotes

A, B = (Model(name=name, path=Path(f"/{name}.gguf"), context=512) for name in "ab")
SIZE = 100 << 20


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.pids = iter(range(100, 200))
        self.charged: list[int] = []
        self.killed: list[int] = []
        self.refuses = False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()

    def start(self: Zygote) -> None:
        if world.refuses:
            raise OSError(11, "no more")
        self.pid, self.standing = next(world.pids), Standing.LOADING

    def kill(self: Zygote) -> None:
        if self.pid:
            world.killed.append(self.pid)

    monkeypatch.setattr(Zygote, "start", start)
    monkeypatch.setattr(Zygote, "kill", kill)
    yield world


@pytest.fixture
def pool(world: World, tmp_path: Path) -> Zygotes:
    made = Zygotes(tmp_path / "log", world.charged.append, lambda: world.now)
    made.adopt({A: (), B: ("no-network",)})
    return made


def load(zygote: Zygote) -> None:
    loaded: Any = Loaded(pid=zygote.pid, seconds=0.0, model_bytes=SIZE, context_bytes=0, n_ctx=512, n_ctx_train=512, description="")
    zygote.standing, zygote.loaded = Standing.LOADED, loaded


def end(zygote: Zygote) -> None:
    zygote.pid, zygote.standing, zygote.loaded = 0, Standing.ABSENT, None


def test_who_is_started_is_charged(pool: Zygotes, world: World) -> None:
    pool.start(pool.of(A))
    assert world.charged == [pool.of(A).pid]


def test_one_that_is_as_wanted_stays_and_another_takes_the_place_of_one_that_is_not(pool: Zygotes, world: World) -> None:
    a, b = pool.of(A), pool.of(B)
    for zygote in (a, b):
        pool.start(zygote)
        load(zygote)
    pool.adopt({A: (), B: ()})
    assert pool.of(A) is a
    assert pool.of(B) is not b
    assert pool.retired == [b]
    assert set(pool) == {a, b, pool.of(B)}


def test_one_that_is_retired_lives_as_long_as_somebody_whom_it_forked(pool: Zygotes, world: World) -> None:
    b = pool.of(B)
    pool.start(b)
    load(b)
    pool.adopt({A: ()})
    assert pool.of(B) is b, "nobody else could fork for who still thinks with it"
    pool.let_go({b.pid})
    assert world.killed == []
    pool.let_go(set())
    assert world.killed == [b.pid]
    assert pool.retired == [b], "until it has ended"
    end(b)
    pool.let_go(set())
    assert pool.retired == []


def test_after_an_upgrade_each_is_replaced_when_there_is_room_one_after_the_other(pool: Zygotes, world: World) -> None:
    before = {model: pool.of(model) for model in (A, B)}
    for zygote in before.values():
        pool.start(zygote)
        load(zygote)
    pool.outdate()
    pool.renew(lambda: SIZE)
    assert len(list(pool)) == 2, "no room for a second copy"
    pool.renew(lambda: 1 << 40)
    assert len(list(pool)) == 2, "it is looked again after a while, not at once"
    for _ in range(2):
        world.now += LOOK_AGAIN_S
        pool.renew(lambda: SIZE + SUCCESSOR_BYTES)
        (successor,) = set(pool) - set(before.values()) - {pool.of(A), pool.of(B)}
        pool.renew(lambda: 1 << 40)
        assert sum(zygote.standing is Standing.LOADING for zygote in pool) == 1, "one at a time"
        assert pool.of(successor.model) is before[successor.model], "until it has loaded the old one forks"
        load(successor)
        assert pool.loads_successor(successor)
        assert pool.of(successor.model) is successor
        assert before[successor.model] in pool.retired
    world.now += LOOK_AGAIN_S
    pool.renew(lambda: 1 << 40)
    assert not any(zygote.standing is Standing.LOADING for zygote in pool), "all are of the new code"


def test_a_successor_that_does_not_load_changes_nothing_and_is_tried_again(pool: Zygotes, world: World) -> None:
    a = pool.of(A)
    pool.start(a)
    load(a)
    pool.outdate()
    pool.renew(lambda: 1 << 40)
    (successor,) = set(pool) - {a, pool.of(B)}
    end(successor)
    assert pool.loads_successor(successor)
    assert pool.of(A) is a
    assert successor not in set(pool)
    pool.renew(lambda: 1 << 40)
    assert len(list(pool)) == 2
    world.now += LOOK_AGAIN_S
    pool.renew(lambda: 1 << 40)
    assert len(list(pool)) == 3


def test_one_that_cannot_be_started_is_no_successor(pool: Zygotes, world: World) -> None:
    pool.start(pool.of(A))
    load(pool.of(A))
    pool.outdate()
    world.refuses = True
    pool.renew(lambda: 1 << 40)
    assert len(list(pool)) == 2


def test_a_successor_that_loads_after_the_config_has_changed_is_not_wanted(pool: Zygotes, world: World) -> None:
    a = pool.of(A)
    pool.start(a)
    load(a)
    pool.outdate()
    pool.renew(lambda: 1 << 40)
    (successor,) = set(pool) - {a, pool.of(B)}
    pool.adopt({B: ("no-network",)})
    load(successor)
    assert pool.loads_successor(successor)
    assert successor in pool.retired


def test_an_ordinary_one_is_no_successor(pool: Zygotes) -> None:
    assert not pool.loads_successor(pool.of(A))


def test_one_that_has_ended_is_of_the_new_code_when_it_is_started_again(pool: Zygotes, world: World) -> None:
    a = pool.of(A)
    pool.start(a)
    load(a)
    pool.outdate()
    end(a)
    pool.renew(lambda: 1 << 40)
    pool.start(a)
    load(a)
    world.now += LOOK_AGAIN_S
    pool.renew(lambda: 1 << 40)
    assert len(list(pool)) == 2
