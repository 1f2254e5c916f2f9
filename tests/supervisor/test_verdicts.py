"""The watchdog at work, between senses that are scripted and a jar without workers: when it asks, what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from brainjar.config import Watchdog
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.verdicts import EARLY, KEEP_AGAIN_S, NVML_FIRST_S, Verdicts
from brainjar.watchdog.policy import STALE_S
from brainjar.watchdog.reading import Answer, Group, Reading
from brainjar.watchdog.sampling import ABSENT_S


class Scripted:
    """Stands for keeper, leases, bulletin and senses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gate = Gate([(0,), (1,)])
        self.leases = self
        self.workers: dict[str, Any] = {}
        self.said: list[tuple[str, str, bool]] = []
        self.asked: list[Group] = []
        self.hanging: dict[Group, float] = {}
        self.why = ""

    def clock(self) -> float:
        return self.now

    def grant(self) -> None:
        pass

    def announce(self, type: str, sender: str, text: str, *, journal: bool, metadata: dict[str, Any], **_: Any) -> None:
        self.said.append((type, metadata["step"], journal))

    def free(self, group: Group) -> bool:
        return group not in self.hanging

    def ask(self, group: Group, now: float) -> None:
        self.asked.append(group)

    def hung(self, now: float) -> dict[Group, float]:
        return self.hanging


@pytest.fixture
def world() -> Scripted:
    return Scripted()


@pytest.fixture
def verdicts(world: Scripted) -> Verdicts:
    stand_in: Any = world
    return Verdicts(Watchdog(), stand_in, stand_in, stand_in, dry_run=False)


def asks(verdicts: Verdicts, world: Scripted, after: float) -> list[Group]:
    world.now += after
    world.asked.clear()
    if world.now >= verdicts.next_at:
        verdicts.ask(world.now)
    return list(world.asked)


def host(value: float) -> Reading:
    return Reading(sense="host-memory", where="host", value=value, total_bytes=24 << 30)


def answer(verdicts: Verdicts, world: Scripted, group: Group, *readings: Reading, why: str = "") -> None:
    verdicts.answered(Answer(group=group, readings=readings, why=why), world.now)


def shown(verdicts: Verdicts) -> dict[tuple[str, str], tuple[float | None, str]]:
    return {(one.sense, one.where): (one.value, one.why) for one in verdicts.status().senses}


def test_drivers_are_asked_after_the_first_births_and_memory_at_once(verdicts: Verdicts, world: Scripted) -> None:
    assert asks(verdicts, world, 0.0) == ["memory", "disk"]
    assert asks(verdicts, world, NVML_FIRST_S) == ["gpu", "heat"]


def test_each_answer_says_when_it_is_asked_again(verdicts: Verdicts, world: Scripted) -> None:
    asks(verdicts, world, NVML_FIRST_S)
    answer(verdicts, world, "memory", host(89.99))
    answer(verdicts, world, "gpu", Reading(sense="gpu-memory", where="GPU", why="no driver"))
    answer(verdicts, world, "disk", Reading(sense="disk", where="/", value=10.0, total_bytes=1 << 40))
    assert asks(verdicts, world, 0.11) == ["memory"]
    assert asks(verdicts, world, (1 - EARLY) * ABSENT_S - 0.2) == ["memory", "heat", "disk"]
    assert asks(verdicts, world, EARLY * ABSENT_S + 0.2) == ["memory", "gpu", "heat", "disk"]


@pytest.mark.parametrize(("apart", "asked"), [(1.0, ["memory", "disk"]), (2.0, ["memory"])])
def test_who_is_nearly_due_is_asked_with_who_is_due(verdicts: Verdicts, world: Scripted, apart: float, asked: list[Group]) -> None:
    """Of 5 s each, a quarter is nearly."""
    asks(verdicts, world, NVML_FIRST_S)
    world.hanging = {"gpu": 0.0, "heat": 0.0}
    answer(verdicts, world, "memory", Reading(sense="host-memory", where="host", value=0.0, total_bytes=1 << 40))
    world.now += apart
    answer(verdicts, world, "disk", Reading(sense="disk", where="/", value=0.0, total_bytes=1 << 50))
    left = Watchdog().interval - apart
    assert asks(verdicts, world, left - 0.01) == [], "that somebody is nearly due is no reason to wake"
    assert asks(verdicts, world, 0.01) == asked


def test_who_is_asked_often_has_no_other_asked_before_its_time(verdicts: Verdicts, world: Scripted) -> None:
    asks(verdicts, world, NVML_FIRST_S)
    world.hanging = {"gpu": 0.0, "heat": 0.0}
    answer(verdicts, world, "disk", Reading(sense="disk", where="/", value=0.0, total_bytes=1 << 50))
    count = 0
    for _ in range(int((1 - EARLY) * Watchdog().interval / 0.11) - 1):
        answer(verdicts, world, "memory", host(89.99))
        asked = asks(verdicts, world, 0.11)
        count += "memory" in asked
        assert "disk" not in asked
    assert count > 20


def test_a_reading_past_its_mark_is_taken_again_at_once(verdicts: Verdicts, world: Scripted) -> None:
    asks(verdicts, world, 0.0)
    answer(verdicts, world, "memory", host(91))
    assert asks(verdicts, world, 0.0) == ["memory"]
    answer(verdicts, world, "memory", host(91))
    assert asks(verdicts, world, 0.0) == []


def test_the_kernels_word_of_a_standstill_has_memory_read_at_once(verdicts: Verdicts, world: Scripted) -> None:
    asks(verdicts, world, 0.0)
    answer(verdicts, world, "memory", host(10))
    assert asks(verdicts, world, 0.0) == []
    answer(verdicts, world, "trigger")
    assert asks(verdicts, world, 0.0) == ["memory"]


def test_what_two_groups_say_of_heat_is_told_apart(verdicts: Verdicts, world: Scripted) -> None:
    zone, chip = Reading(sense="heat", where="cpu-thermal", value=50.0), Reading(sense="heat", where="GPU 0", value=60.0)
    for _ in range(3):
        answer(verdicts, world, "heat", zone)
        answer(verdicts, world, "gpu", chip)
        assert shown(verdicts) == {("heat", "cpu-thermal"): (50.0, ""), ("heat", "GPU 0"): (60.0, "")}


def test_what_is_no_longer_there_goes_and_what_was_past_its_mark_first_grows_stale(verdicts: Verdicts, world: Scripted) -> None:
    cool, hot = Reading(sense="heat", where="a", value=50.0), Reading(sense="heat", where="b", value=90.0)
    answer(verdicts, world, "heat", cool, hot)
    assert verdicts.danger
    answer(verdicts, world, "heat")
    assert shown(verdicts) == {("heat", "b"): (None, "is no longer there")}
    world.now += STALE_S + 1
    verdicts.beat(world.now)
    assert not verdicts.danger
    answer(verdicts, world, "heat")
    assert shown(verdicts) == {}


def test_a_reader_that_fails_says_why_of_all_that_it_read(verdicts: Verdicts, world: Scripted) -> None:
    answer(verdicts, world, "disk", Reading(sense="disk", where="/", value=10.0))
    answer(verdicts, world, "disk", why="its reader failed: ZeroDivisionError")
    assert shown(verdicts) == {("disk", "/"): (None, "its reader failed: ZeroDivisionError")}
    answer(verdicts, world, "disk", Reading(sense="disk", where="/", value=10.0))
    assert shown(verdicts) == {("disk", "/"): (10.0, "")}


def test_what_hangs_is_shown_also_when_it_has_never_answered(verdicts: Verdicts, world: Scripted) -> None:
    world.hanging = {"gpu": 7.0, "look": 7.0}
    verdicts.beat(world.now)
    assert shown(verdicts)[("gpu-memory", "")] == (None, "has not answered for 7 s")
    world.hanging = {}
    answer(verdicts, world, "gpu", Reading(sense="gpu-memory", where="GPU 0", value=1.0))
    assert list(shown(verdicts)) == [("gpu-memory", "GPU 0")]


def test_with_no_sense_left_a_danger_ends_and_with_it_all_that_followed(verdicts: Verdicts, world: Scripted) -> None:
    answer(verdicts, world, "memory", host(92))
    assert world.gate.limit == 1 and verdicts.danger
    world.hanging = {"memory": 1.0}
    for _ in range(int(STALE_S) + 2):
        world.now += 1.0
        verdicts.beat(world.now)
    assert world.gate.limit == 2 and not verdicts.danger


def test_what_flaps_fills_no_ledger(verdicts: Verdicts, world: Scripted) -> None:
    for _ in range(40):
        for value in (91.0, 50.0):
            world.now += 0.5
            answer(verdicts, world, "memory", host(value))
    assert [said[1] for said in world.said] == ["past", "calm"] * 40, "all of it is on the bus"
    assert [step for _, step, kept in world.said if kept] == ["past", "calm"]
    world.now += KEEP_AGAIN_S
    answer(verdicts, world, "memory", host(91))
    assert world.said[-1] == ("PRESSURE", "past", True)


def test_a_reader_that_has_never_worked_is_shown_with_its_reason(verdicts: Verdicts, world: Scripted) -> None:
    answer(verdicts, world, "disk", why="its reader failed")
    assert shown(verdicts) == {("disk", ""): (None, "its reader failed")}
