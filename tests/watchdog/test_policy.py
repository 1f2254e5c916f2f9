"""The watchdog's policy: each rule on a table, and what must never be under whatever readings come."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainjar.config import Watchdog
from brainjar.watchdog.policy import POINTS, STALE_S, TERM_S, Candidate, Level, Mark, Policy, Verdict, marks
from brainjar.watchdog.reading import Reading, Sense

CONFIG = Watchdog(interval=5.0, cooldown=15.0)
SUBJECT = Candidate(name="subject", pid=11, expendable=10, private_bytes=50)
OBSERVER = Candidate(name="observer", pid=12, expendable=10, private_bytes=90)
GOD = Candidate(name="god", pid=13, expendable=0, private_bytes=900)
ALL = (SUBJECT, OBSERVER, GOD)


def host(value: float | None) -> Reading:
    return Reading(sense="host-memory", where="host", value=value, used_bytes=1, total_bytes=2)


def heat(value: float | None) -> Reading:
    return Reading(sense="heat", where="cpu-thermal", value=value)


def gpu(value: float | None, by: dict[int, int] | None = None) -> Reading:
    return Reading(sense="gpu-memory", where="GPU 0", value=value, by=by or {})


class Box:
    """A policy, the personas it judges and a clock; verdicts are carried out as the supervisor would."""

    def __init__(self, config: Watchdog = CONFIG, personas: Sequence[Candidate] = ALL) -> None:
        self.policy = Policy(config)
        self.now = 1000.0
        self.personas = {one.name: one for one in personas}
        self.stubborn = False
        """Victims do not go."""

    def read(self, *readings: Reading, after: float = 0.1) -> list[tuple[str, str | None]]:
        self.now += after
        found = self.policy.judge(self.now, readings, tuple(self.personas.values()))
        for verdict in found:
            self.carry_out(verdict)
        return [(one.step, one.persona) for one in found]

    def carry_out(self, verdict: Verdict) -> None:
        if verdict.persona is None:
            return
        one = self.personas[verdict.persona]
        if verdict.step in ("pause", "resume"):
            self.personas[one.name] = Candidate(
                name=one.name,
                pid=one.pid,
                expendable=one.expendable,
                private_bytes=one.private_bytes,
                paused=verdict.step == "pause",
                ending=one.ending,
            )
        elif verdict.step in ("term", "kill") and not self.stubborn:
            del self.personas[one.name]


# ── levels ──

LEVELS = [
    (70.0, Level.CALM, Level.CALM),
    (80.0, Level.CALM, Level.WARN),
    (79.9, Level.WARN, Level.WARN),
    (74.9, Level.WARN, Level.CALM),
    (90.0, Level.CALM, Level.PAST),
    (89.9, Level.CALM, Level.WARN),
    (89.9, Level.PAST, Level.PAST),
    (84.9, Level.PAST, Level.WARN),
    (95.0, Level.CALM, Level.OVER),
    (94.9, Level.OVER, Level.PAST),
    (0.0, Level.OVER, Level.CALM),
]


@pytest.mark.parametrize(("value", "before", "after"), LEVELS)
def test_a_level_is_left_lower_than_it_is_entered(value: float, before: Level, after: Level) -> None:
    assert marks(CONFIG)["host-memory"].level(value, before) is after


def test_marks_come_from_the_config() -> None:
    found = marks(Watchdog(gpu_memory=70, gpu_memory_kill=85, temperature=75, temperature_resume=60, pressure=30, disk=99))
    assert (found["gpu-memory"].past, found["gpu-memory"].over) == (70, 85)
    assert found["heat"] == Mark(low=60, warn=65, past=75)
    assert (found["pressure"].past, found["pressure"].low, found["disk"].past) == (30, 15, 99)


def test_a_hundred_percent_is_never_passed_whatever_is_read() -> None:
    found = marks(Watchdog(host_memory=100, host_memory_kill=100, gpu_memory=100, gpu_memory_kill=100, pressure=100, disk=100))
    for sense in ("host-memory", "gpu-memory", "pressure", "disk"):
        assert found[sense].level(100.0, Level.CALM) is Level.CALM
        assert found[sense].level(250.0, Level.CALM) is Level.CALM
    box = Box(Watchdog(host_memory=100, host_memory_kill=100))
    assert [box.read(host(100.0)) for _ in range(5)] == [[]] * 5
    assert marks(Watchdog(host_memory_kill=100))["host-memory"].level(100.0, Level.CALM) is Level.PAST, "and no kill without a pause"


@given(st.floats(1, 99.9), st.sampled_from(["host-memory", "gpu-memory", "pressure", "disk"]))
def test_every_level_can_be_left_however_low_the_mark(mark: float, sense: Sense) -> None:
    kill = (mark + 100) / 2
    config = Watchdog(host_memory=mark, host_memory_kill=kill, gpu_memory=mark, gpu_memory_kill=kill, pressure=mark, disk=mark)
    assert marks(config)[sense].level(0.0, Level.OVER) is Level.CALM


# ── the ladder ──


def test_pause_then_term_then_kill_each_on_readings_past_the_mark() -> None:
    box = Box()
    box.stubborn = True
    assert box.read(host(85)) == [("warn", None)]
    assert box.read(host(91)) == [("past", None)], "one reading is none"
    assert box.policy.unconfirmed == {("host-memory", "host")}
    assert box.read(host(91)) == [("pause", "observer")], "equally expendable: who owns more"
    assert box.read(host(91), after=CONFIG.interval - 0.2) == [], "the pause may still help"
    assert box.read(host(91), after=0.3) == [("term", "observer")]
    assert box.read(host(91), after=TERM_S - 0.1) == []
    assert box.read(host(91), after=0.2) == [("kill", "observer")]
    assert box.read(host(99)) == [], "its end is awaited"


def test_no_pause_where_there_is_no_time_for_one() -> None:
    box = Box()
    assert box.read(host(97)) == [("past", None)]
    assert box.read(host(97)) == [("kill", "observer")]


def test_a_reading_below_the_mark_between_two_takes_the_first_one_back() -> None:
    box = Box()
    box.read(host(91))
    assert box.read(host(89)) == []
    assert box.read(host(91)) == []
    assert box.read(host(91)) == [("pause", "observer")]


def test_who_does_not_go_is_spared_when_the_danger_is_over() -> None:
    box = Box()
    box.stubborn = True
    for _ in range(2):
        box.read(host(91))
    assert box.read(host(91), after=6) == [("term", "observer")]
    assert box.read(host(60), after=TERM_S + 1) == [("calm", None)], "it may still go"
    assert box.read(host(60), after=CONFIG.cooldown) == [("spare", "observer")]
    assert box.read(host(60)) == [("resume", "observer")]


def test_who_does_not_go_does_not_hide_another_danger() -> None:
    box = Box()
    box.stubborn = True
    for _ in range(2):
        box.read(heat(86))
    while ("term", "observer") not in box.read(heat(86), after=8):
        pass
    assert box.read(heat(82), host(99), after=1) == [("past", None)]
    assert box.read(heat(82), host(99), after=3) == [("kill", "observer")]


def test_the_next_victim_waits_for_the_end_of_the_last_one_and_the_cool_down_after_it() -> None:
    box = Box()
    box.read(host(97))
    assert box.read(host(97)) == [("kill", "observer")]
    ended = box.now + 0.1
    while (seen := box.read(host(97))) == []:
        assert box.now < ended + CONFIG.cooldown + 1
    assert seen == [("kill", "subject")]
    assert box.now >= ended + CONFIG.cooldown


def test_the_last_one_to_go_is_the_least_expendable_and_then_there_is_nobody() -> None:
    box = Box()
    gone: list[str | None] = []
    for _ in range(1000):
        gone += [persona for step, persona in box.read(host(97), after=0.5) if step == "kill"]
    assert gone == ["observer", "subject", "god"]
    assert box.policy.danger


def test_whom_not_even_the_kernel_can_end_is_not_waited_for_for_ever() -> None:
    box = Box()
    box.stubborn = True
    box.read(host(97))
    assert box.read(host(97)) == [("kill", "observer")]
    box.personas["observer"] = Candidate(name="observer", pid=12, expendable=10, private_bytes=90, ending=True)
    assert box.read(host(97), after=CONFIG.cooldown - 0.5) == []
    assert box.read(host(97), after=1) == [("kill", "subject")]


def test_births_wait_until_the_low_mark() -> None:
    box = Box()
    danger = []
    for value in (70, 91, 86, 84.9):
        box.read(host(value))
        danger.append(box.policy.danger)
    assert [bool(one) for one in danger] == [False, True, True, False]
    assert "91.0 %" in danger[1] and "85.0 %" in danger[1]


def test_room_in_swap_leaves_it_at_a_pause_and_its_end_does_not() -> None:
    box = Box()

    def swap(value: float) -> Reading:
        return Reading(sense="swap", where="host", value=value)

    box.read(host(97), swap(20))
    assert box.read(host(97), swap(20)) == [("pause", "observer")]
    for _ in range(20):
        assert box.read(host(97), swap(20), after=5) == []
    assert box.read(host(97), swap(95)) == [("kill", "observer")]


def test_a_limit_around_the_jar_is_judged_like_the_host_and_swap_does_not_help_it() -> None:
    box = Box()
    group = Reading(sense="host-memory", where="/sys/fs/cgroup/jar", value=97)
    swap = Reading(sense="swap", where="host", value=0.0)
    box.read(group, swap)
    assert box.read(group, swap) == [("kill", "observer")]


def test_pressure_alone_pauses_and_then_ends() -> None:
    box = Box()
    stalled = Reading(sense="pressure", where="host", value=60.0)
    box.read(stalled)
    assert box.read(stalled) == [("pause", "observer")]
    assert box.read(stalled, after=6) == [("term", "observer")]


# ── heat ──


def test_heat_pauses_one_after_the_other_and_takes_a_life_only_when_nobody_is_left_to_pause() -> None:
    box = Box()
    steps = []
    for _ in range(400):
        steps += box.read(heat(88), after=0.5)
        if steps[-1][0] == "term":
            break
    assert steps == [("past", None), ("pause", "observer"), ("pause", "subject"), ("pause", "god"), ("term", "observer")]


def test_who_was_paused_for_heat_goes_on_below_the_lower_mark_the_last_one_first() -> None:
    box = Box()
    for _ in range(2):
        box.read(heat(86))
    assert box.read(heat(86), after=6) == [("pause", "subject")]
    assert box.read(heat(81), after=60) == [], "below the mark, and not below the lower one"
    assert box.read(heat(79)) == [("calm", None), ("resume", "subject")]
    assert box.read(heat(79)) == [], "one at a time"
    assert box.read(heat(79), after=5) == [("resume", "observer")]


# ── GPU ──


def test_on_a_gpu_goes_who_has_most_there_and_nobody_who_has_nothing() -> None:
    box = Box()
    by = {SUBJECT.pid: 5, GOD.pid: 700, 999: 10_000}
    box.read(gpu(95, by))
    assert box.read(gpu(95, by)) == [("kill", "subject")], "god has more, and goes last"


@pytest.mark.parametrize("by", [{}, {999: 10_000}])
def test_a_gpu_that_others_fill_is_told_once_and_costs_nobody_anything(by: dict[int, int]) -> None:
    box = Box()
    assert box.read(gpu(95, by)) == [("past", None)]
    assert box.read(gpu(95, by)) == [("warn", None)]
    assert [box.read(gpu(95, by), after=30) for _ in range(10)] == [[]] * 10


# ── what cannot be told ──


@pytest.mark.parametrize("reading", [host(None), heat(None), gpu(None)])
def test_what_has_no_value_leads_to_nothing(reading: Reading) -> None:
    box = Box()
    assert [box.read(reading, after=5) for _ in range(20)] == [[]] * 20


def test_a_sense_that_falls_silent_counts_as_calm_after_a_while_and_never_as_past() -> None:
    box = Box()
    for _ in range(2):
        box.read(heat(88))
    for _ in range(5):
        assert box.read(heat(None), after=STALE_S / 6) == []
    assert box.read(heat(None), after=STALE_S) == [("calm", None), ("resume", "observer")]
    assert not box.policy.danger


def test_a_full_disk_is_told_and_costs_nobody_anything() -> None:
    box = Box()
    full = Reading(sense="disk", where="/var/lib/brainjar", value=99.0)
    assert [step for step, _ in box.read(full)] == ["past"]
    assert [box.read(full, after=60) for _ in range(5)] == [[]] * 5
    assert not box.policy.danger


def test_who_is_ending_already_is_waited_for_and_what_it_leaves_is_read_first() -> None:
    ends = Candidate(name="observer", pid=12, expendable=10, private_bytes=90, ending=True)
    box = Box(personas=(SUBJECT, ends))
    assert [step for _ in range(5) for step, _ in box.read(host(97))] == ["past"]
    del box.personas["observer"]
    assert box.read(host(97)) == [], "its memory may not be free yet"
    assert box.read(host(97)) == []
    assert box.read(host(97)) == [("kill", "subject")]


def test_who_is_ending_and_does_not_end_is_not_waited_for_for_ever() -> None:
    box = Box(personas=(SUBJECT, Candidate(name="observer", pid=12, expendable=10, private_bytes=90, ending=True)))
    for _ in range(2):
        box.read(host(97))
    assert box.read(host(97), after=CONFIG.cooldown - 0.2) == []
    assert box.read(host(97), after=0.3) == [("kill", "subject")]


def test_a_sense_that_is_gone_is_dropped_when_it_is_calm_and_whom_it_paused_goes_on() -> None:
    box = Box()
    for _ in range(2):
        box.read(heat(88))
    assert not box.policy.drop(("heat", "cpu-thermal"))
    box.read(after=STALE_S + 1)
    assert box.policy.drop(("heat", "cpu-thermal"))
    assert [one.key for one in box.policy.newest] == []
    assert box.read(after=6) == [], "it has been resumed with the first look"
    assert not any(one.paused for one in box.personas.values())


@pytest.mark.parametrize("interval", [5.0, 60.0])
def test_an_old_value_counts_as_long_as_the_next_one_may_take(interval: float) -> None:
    box = Box(Watchdog(interval=interval))
    full = Reading(sense="disk", where="/", value=96.0)
    box.read(full)
    assert box.read(after=max(STALE_S, 3 * interval) - 1) == []
    assert [step for step, _ in box.read(after=2)] == ["calm"]


def test_what_comes_near_and_goes_again_is_not_worth_keeping() -> None:
    policy = Policy(CONFIG)
    kept = [
        (one.step, one.lasting, len(one.readings)) for value in (85, 60, 91, 60) for one in policy.judge(0.0, (host(value), gpu(1)), ALL)
    ]
    assert kept == [("warn", False, 1), ("calm", False, 1), ("past", True, 1), ("calm", True, 1)]


def test_a_verdict_names_the_readings_that_led_to_it() -> None:
    policy = Policy(CONFIG)
    swap = Reading(sense="swap", where="host", value=96.0)
    policy.judge(0.0, (host(97), swap), ALL)
    (verdict,) = policy.judge(1.0, (host(98),), ALL)
    assert (verdict.readings, verdict.mark) == ((host(98), swap), 90)
    assert "observer is killed" in verdict.text and "98.0 %" in verdict.text and "90.0 %" in verdict.text


# ── whatever comes ──

SENSES: list[tuple[Sense, str]] = [
    ("host-memory", "host"),
    ("host-memory", "/unit"),
    ("swap", "host"),
    ("pressure", "host"),
    ("gpu-memory", "GPU 0"),
    ("heat", "cpu"),
    ("disk", "/"),
]
READING = st.builds(
    lambda key, value, by: Reading(sense=key[0], where=key[1], value=value, by=by),
    st.sampled_from(SENSES),
    st.none() | st.floats(0, 120),
    st.dictionaries(st.sampled_from([11, 12, 13, 999]), st.integers(1, 9), max_size=3),
)
LAPS = st.lists(st.tuples(st.floats(0.05, 20), st.lists(READING, max_size=4, unique_by=lambda one: one.key), st.booleans()), max_size=60)


@settings(max_examples=300)
@given(LAPS)
def test_never_two_victims_in_one_cool_down_nor_a_step_without_a_fresh_reading_past_its_mark(
    laps: list[tuple[float, list[Reading], bool]],
) -> None:
    policy = Policy(CONFIG)
    limits = marks(CONFIG)
    now, living, paused = 0.0, {one.name: one for one in ALL}, set[str]()
    ended_at, victim, dying = float("-inf"), None, False
    paused_by_us: set[str] = set()
    past_before: dict[tuple[Sense, str], bool] = {}
    for wait, readings, goes in laps:
        now += wait
        if dying and goes and victim is not None:
            del living[victim]
            ended_at, dying = now, False
        personas = [
            Candidate(
                name=one.name,
                pid=one.pid,
                expendable=one.expendable,
                private_bytes=one.private_bytes,
                paused=one.name in paused,
                ending=dying and one.name == victim,
            )
            for one in living.values()
        ]
        found = policy.judge(now, readings, personas)
        fresh = {one.key: one for one in readings}
        steps = [one for one in found if one.step in ("pause", "term", "kill")]
        assert len(steps) <= 1, "one at a time"
        for verdict in steps:
            assert verdict.persona in living, "only who lives, and so never the supervisor"
            reading = fresh[verdict.sense, verdict.where]
            assert reading.value is not None and reading.value >= limits[verdict.sense].past, "read past its mark just now"
            assert past_before.get(reading.key), "and the time before"
            if verdict.step == "pause":
                paused.add(verdict.persona)
                paused_by_us.add(verdict.persona)
                continue
            if verdict.sense == "gpu-memory" and verdict.persona != victim:
                assert reading.by.get(living[verdict.persona].pid)
            over = limits[verdict.sense].over
            if not (dying and verdict.persona == victim):
                assert now >= ended_at + CONFIG.cooldown, "not within the cool-down"
                assert verdict.persona in paused or (over is not None and reading.value >= over), "a pause first, where there is time"
                ended_at = now
            victim, dying = verdict.persona, True
        for verdict in found:
            if verdict.step == "resume":
                assert verdict.persona in paused_by_us and not policy.danger
                paused.discard(verdict.persona)
            if verdict.step == "spare":
                dying = False
                ended_at = now
        for key, reading in fresh.items():
            mark = limits.get(key[0])
            past_before[key] = mark is not None and reading.value is not None and reading.value >= mark.past


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_between_the_low_mark_and_the_mark_nothing_flaps(values: list[float]) -> None:
    mark = marks(CONFIG)["host-memory"]
    level = Level.PAST
    for value in values:
        level = mark.level(mark.low + value / 100 * (mark.past - mark.low - 0.001), level)
        assert level is Level.PAST
    assert mark.low == mark.past - POINTS


def test_a_long_interval_makes_no_long_ladder() -> None:
    box = Box(Watchdog(interval=3600.0, cooldown=15.0))
    for _ in range(2):
        box.read(host(91))
    assert box.read(host(91), after=14.0) == []
    assert box.read(host(91), after=1.1) == [("term", "observer")]


def test_the_sense_that_a_victim_was_chosen_for_may_vanish_before_it_ends() -> None:
    box = Box()
    box.stubborn = True
    for _ in range(2):
        box.read(host(91))
    assert box.read(host(91), after=6) == [("term", "observer")]
    box.read(host(10))
    assert not box.policy.drop(("host-memory", "host"))
    assert box.read(after=CONFIG.cooldown) == [("spare", "observer")]
    assert box.policy.drop(("host-memory", "host"))
