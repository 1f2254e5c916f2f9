"""A running jar seen from outside: found, asked, followed without a loss that nobody notices."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.cli.main import main
from brainjar.client import control, find
from brainjar.client.follow import Ended, Follower, follow
from brainjar.client.model import THOUGHT_CHARS, THOUGHTS, TOLD, JarModel
from brainjar.errors import BrainjarError, NoJar, UsageError
from brainjar.ledger import Ledger
from brainjar.messages import Death, Envelope
from brainjar.minds import Range, read_lines
from tests.fakejar import FakeJar, death, event, last_death, persona, snap, status


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the jars of whoever runs the tests is seen."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(find, "_places", lambda: [tmp_path / "xdg" / "brainjar"])
    return tmp_path


@pytest.fixture
def jar(home: Path) -> Iterator[FakeJar]:
    with FakeJar(home / "xdg" / "brainjar") as fake:
        yield fake


def card(fake: FakeJar) -> find.Jar:
    return find.find(None, fake.state_dir)


# ── which jar ──


def test_the_only_running_jar_is_found_without_a_word(jar: FakeJar) -> None:
    found = find.find()
    assert (found.jar, found.state_dir, found.runtime_dir) == ("test", jar.state_dir, jar.runtime_dir)
    assert find.find("test") == found == find.find(None, jar.state_dir) == find.at(jar.runtime_dir)


def test_no_jar_is_exit_3_and_says_where_was_looked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert str(home / "xdg" / "brainjar") in said.err and "brainjar supervise" in said.err and said.err.count("\n") == 1


def test_a_card_whose_supervisor_is_gone_is_no_jar(home: Path) -> None:
    with FakeJar(home / "xdg" / "brainjar") as fake:
        pass
    assert (fake.runtime_dir / "jar.json").exists() and (fake.runtime_dir / "control").exists()
    with pytest.raises(NoJar):
        find.find()
    with pytest.raises(NoJar):
        find.find(None, fake.state_dir)


def test_several_jars_are_listed_and_one_must_be_named(jar: FakeJar, home: Path) -> None:
    with FakeJar(home / "xdg" / "brainjar", "other") as other:
        with pytest.raises(UsageError, match=r"other .*--state-dir.*test .*--jar"):
            find.find()
        assert find.find("other").state_dir == other.state_dir
        with pytest.raises(NoJar, match="no jar third runs"):
            find.find("third")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"jar": 3}', b"\xff" * 100], ids=range(5))
def test_a_card_that_is_none_is_passed_over(jar: FakeJar, content: bytes) -> None:
    broken = jar.runtime_dir.parent / "broken"
    broken.mkdir()
    (broken / "jar.json").write_bytes(content)
    assert find.find().jar == "test"


def test_a_state_directory_is_found_when_nothing_runs(home: Path) -> None:
    with pytest.raises(NoJar):
        find.state_dir()
    kept = home / "states" / "brainjar" / "matrix"
    (kept / "minds").mkdir(parents=True)
    assert find.state_dir() == find.state_dir("matrix") == find.state_dir(None, kept) == kept
    (home / "states" / "brainjar" / "two" / "minds").mkdir(parents=True)
    with pytest.raises(UsageError, match="matrix, two"):
        find.state_dir()
    with pytest.raises(NoJar):
        find.state_dir("three")


@pytest.mark.parametrize("name", ["../subject", "/etc/passwd", "", ".", "subjec", "*", "\x1b[2J"])
def test_a_persona_name_leads_nowhere_but_to_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "subject.log").write_text("x")
    assert find.persona_file(tmp_path, "*.log", "subject") == tmp_path / "subject.log"
    with pytest.raises(UsageError, match="subject") as caught:
        find.persona_file(tmp_path, "*.log", name)
    assert "\x1b" not in str(caught.value)


# ── asking ──


def test_status_comes_back_as_it_was_said(jar: FakeJar) -> None:
    assert control.status(card(jar)) == jar.status


@pytest.mark.parametrize(("code", "error"), [(1, BrainjarError), (2, UsageError), (3, NoJar)])
def test_what_the_jar_refuses_ends_the_command_with_its_exit_status(jar: FakeJar, code: int, error: type[BrainjarError]) -> None:
    jar.answers["kill"] = lambda request: [{"done": True, "exit": code, "say": "it may not be"}]
    with pytest.raises(error, match="it may not be") as caught:
        control.ask(card(jar), "kill", name="subject")
    assert caught.value.exit_code == code


def test_control_commands_say_what_happened(jar: FakeJar, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["kill", "subject"], ["restart", "subject"], ["stop", "subject"], ["stop"]):
        assert main(command) == 0
        assert capsys.readouterr().out == f"{command[0]} is done\n"
    assert [(r["cmd"], r["name"]) for r in jar.requests] == [
        ("kill", "subject"),
        ("restart", "subject"),
        ("stop", "subject"),
        ("stop", None),
    ]


def test_a_jar_that_ends_under_us_is_told_as_that(jar: FakeJar) -> None:
    jar.answers["kill"] = lambda request: [{"event": event("PRESSURE")}]
    with pytest.raises(BrainjarError, match="ended before it answered"):
        control.ask(card(jar), "kill", name="subject")


def test_a_supervisor_that_does_not_answer_is_not_waited_for_for_ever(jar: FakeJar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0.2)
    jar.answers["status"] = lambda request: []
    with pytest.raises(BrainjarError, match="has not answered"):
        control.status(card(jar))


# ── following ──


def take(follower: Follower, until: Callable[[list[Envelope]], bool], seconds: float = 5.0) -> list[Envelope]:
    """What follows, without heartbeats, until there is enough of it."""
    found: list[Envelope] = []
    deadline = time.monotonic() + seconds
    while not until(found):
        assert time.monotonic() < deadline, found
        found += [e for e in follower.take(0.05) if e.type != "HEARTBEAT"]
    return found


@pytest.fixture
def follower(jar: FakeJar) -> Iterator[Follower]:
    following = Follower(card(jar))
    yield following
    following.close()


def test_a_stream_begins_with_a_snapshot_and_has_every_event_after_it_once(jar: FakeJar, follower: Follower) -> None:
    first = take(follower, lambda found: len(found) == 1)
    assert first[0].type == "SNAP"
    said = [jar.say("TOKEN", "subject", str(i)) for i in range(500)]
    jar.say_again(said[7])
    got = take(follower, lambda found: len(found) >= 500)
    assert [e.content for e in got] == [str(i) for i in range(500)]


def test_a_snapshot_that_went_to_nobody_is_asked_for_again(jar: FakeJar) -> None:
    jar.deaf_to_snaps = 1
    following = Follower(card(jar))
    try:
        assert take(following, lambda found: bool(found))[0].type == "SNAP"
    finally:
        following.close()


def test_a_loss_is_mended_from_what_the_jar_still_holds(jar: FakeJar, follower: Follower) -> None:
    take(follower, lambda found: bool(found))
    jar.beats = False
    time.sleep(0.1)
    jar.say("THOUGHT", "subject", "one")
    jar.swallow("DEATH", "subject", "two")
    jar.swallow("RESURRECTION", "subject", "three")
    jar.say("THOUGHT", "subject", "four")
    got = take(follower, lambda found: len(found) >= 4)
    assert [e.content for e in got] == ["one", "two", "three", "four"]
    assert [e.seq for e in got] == list(range(got[0].seq, got[0].seq + 4))


def test_a_lost_tail_shows_with_the_next_heartbeat(jar: FakeJar, follower: Follower) -> None:
    take(follower, lambda found: bool(found))
    jar.swallow("DEATH", "subject", "lost")
    assert [e.content for e in take(follower, lambda found: bool(found))] == ["lost"]


def test_what_nobody_holds_any_more_is_a_gap(jar: FakeJar, follower: Follower) -> None:
    take(follower, lambda found: bool(found))
    jar.beats = False
    time.sleep(0.1)
    jar.swallow("TOKEN", "subject", hold=False)
    jar.swallow("DEATH", "subject", "held")
    jar.swallow("TOKEN", "subject", hold=False)
    jar.swallow("TOKEN", "subject", hold=False)
    last = jar.say("THOUGHT", "subject", "heard")
    got = take(follower, lambda found: bool(found) and found[-1].seq == last.seq)
    assert [(e.type, e.content) for e in got] == [
        ("GAP", "1 event was lost"),
        ("DEATH", "held"),
        ("GAP", "2 events were lost"),
        ("THOUGHT", "heard"),
    ]


def test_a_gap_told_by_the_jar_never_hides_what_comes_later(jar: FakeJar, follower: Follower) -> None:
    """A replay may end with a GAP over events that are on their way at that very moment."""
    take(follower, lambda found: bool(found))
    jar.beats = False
    time.sleep(0.1)
    lost = jar.swallow("DEATH", "subject", hold=False)

    def replay(request: dict[str, Any]) -> list[dict[str, Any]]:
        gap = Envelope(
            type="GAP", timestamp=0, sender_id="jar", epoch=1, seq=lost.seq + 5, metadata={"first": lost.seq, "last": lost.seq + 5}
        )
        return [{"event": gap}, {"done": True}]

    jar.answers["events"] = replay
    for i in range(6):
        jar.say("THOUGHT", "subject", str(i))
    got = take(follower, lambda found: len(found) >= 7)
    assert [(e.type, e.content) for e in got] == [("GAP", "1 event was lost"), *(("THOUGHT", str(i)) for i in range(6))]


def test_another_supervisor_begins_another_stream(jar: FakeJar, follower: Follower) -> None:
    take(follower, lambda found: bool(found))
    jar.succeeded()
    jar.say("READY", "subject", "again")
    got = take(follower, lambda found: any(e.type == "SNAP" for e in found))
    assert got[0].type == "SNAP" and got[0].epoch == 2
    jar.say("THOUGHT", "subject", "on")
    assert take(follower, lambda found: bool(found) and found[-1].content == "on")[-1].epoch == 2


def test_a_jar_that_is_killed_ends_the_stream(home: Path) -> None:
    with FakeJar(home / "xdg" / "brainjar") as fake:
        following = Follower(card(fake))
        take(following, lambda found: bool(found))
    try:
        with pytest.raises(Ended, match="ended without a word"):
            take(following, lambda found: False)
    finally:
        following.close()


def test_events_follow_from_a_number_to_the_shutdown(jar: FakeJar) -> None:
    jar.beats = False
    said = [jar.say("THOUGHT", "subject", str(i)) for i in range(5)]
    threading.Timer(0.5, lambda: jar.say("SHUTDOWN")).start()
    assert [e.content for e in follow(card(jar), (None, said[1].seq))] == ["2", "3", "4", ""]


def test_events_prints_one_envelope_a_line_and_nothing_else(jar: FakeJar, capsys: pytest.CaptureFixture[str]) -> None:
    jar.beats = False
    jar.say("TOKEN", "subject", "a")
    jar.say("DEATH", "subject", "b\x1b[2J")
    time.sleep(0.1)
    assert main(["events", "--json"]) == 0
    assert [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()][-2:] == ["TOKEN", "DEATH"]
    assert main(["events"]) == 0
    said = capsys.readouterr().out
    assert "TOKEN" not in said and "DEATH" in said and "\x1b" not in said


# ── what it is like now ──


def model(*personas: Any, **more: Any) -> JarModel:
    return JarModel.of(snap(status(*(personas or (persona("subject"), persona("observer"))), **more)))


def test_a_life_is_followed_from_death_to_resurrection() -> None:
    m = model()
    p: Any = m.personas["subject"]
    m.fold(event("TOKEN", "subject", "I am", life=1, metadata={"n": 1, "turn": 3}))
    m.fold(event("TOKEN", "subject", " here", life=1, metadata={"n": 2, "turn": 3}))
    assert p.state == "thinking" and p.thought is not None and p.thought.text == "I am here"
    m.fold(death("subject", at=1010.0))
    assert (p.state, p.deaths, p.pid, p.last_cause, p.last_death_at, p.thought) == ("dead", 1, None, "killed-by-operator", 1010.0, None)
    assert m.thoughts[-1].text == "I am here" and m.thoughts[-1].cut == "killed-by-operator"
    m.fold(
        event(
            "STATE", "subject", "dead", life=2, metadata={"state": "dead", "since": 1010.0, "reason": "", "retry_at": 1013.0, "pid": None}
        )
    )
    assert p.retry_at == 1013.0 and p.life == 2
    m.fold(event("STATE", "subject", "starting", life=2, metadata={"state": "starting", "since": 1013.0, "retry_at": None, "pid": None}))
    assert p.retry_at is None
    m.fold(event("RESURRECTION", "subject", "subject lives again", life=2, metadata={"birth": 2, "pid": 101, "after_s": 3.0}))
    m.fold(event("READY", "subject", "subject is ready", life=2, metadata={"pid": 101}))
    assert (p.state, p.pid, p.life) == ("ready", 101, 2)
    assert [(t.type, t.text) for t in m.told] == [
        ("DEATH", "subject died in life 1: killed-by-operator"),
        ("RESURRECTION", "subject lives again, pid 101, after 3.0 s"),
    ]


def test_the_words_of_a_snapshot_go_on_in_the_tokens_after_it() -> None:
    m = model(persona("subject", "thinking", thought="I think"))
    m.fold(event("TOKEN", "subject", ", so", life=1, metadata={"turn": 9}))
    thought = m.personas["subject"].thought
    assert thought is not None and thought.text == "I think, so"
    m.fold(event("TOKEN", "subject", "New", life=1, metadata={"turn": 10}))
    assert [t.text for t in m.thoughts] == ["I think, so"]
    m.fold(event("THOUGHT", "subject", "New one.", life=1, metadata={"turn": 10}))
    assert [t.text for t in m.thoughts] == ["I think, so", "New one."]
    assert m.personas["subject"].state == "ready"


def test_a_pause_cuts_no_thought_short() -> None:
    m = model()
    p: Any = m.personas["subject"]
    m.fold(event("TOKEN", "subject", "I am", life=1, metadata={"n": 1, "turn": 3}))
    for state in ("paused", "ready"):
        m.fold(event("STATE", "subject", state, life=1, metadata={"state": state, "since": 1010.0, "retry_at": None, "pid": 100}))
        assert p.state == state and p.thought is not None and not p.thought.done
    m.fold(event("TOKEN", "subject", " here", life=1, metadata={"n": 2, "turn": 3}))
    assert p.state == "thinking" and p.thought.text == "I am here"


def test_who_holds_the_lease_thinks() -> None:
    m = model()
    m.fold(event("HEARTBEAT", metadata={"lease": ["observer"], "waiting": {"subject": 4.5}, "rss_bytes": 7, "uptime_s": 5.0}, at=1100.0))
    assert m.personas["observer"].state == "thinking" and m.personas["observer"].since == 1100.0
    assert m.personas["subject"].state == "ready" and m.personas["subject"].waiting_s == 4.5
    assert (m.rss_bytes, m.started_at, m.lease) == (7, 1095.0, ("observer",))


def test_a_death_of_an_earlier_supervisor_kills_nobody_now() -> None:
    m = model(persona("subject", "ready", deaths=1, life=2, last_death=last_death("supervisor-lost", 990.0)))
    m.fold(death("subject", "supervisor-lost", at=990.0, replayed=True))
    assert m.personas["subject"].state == "ready" and m.personas["subject"].pid == 100


def test_a_stranger_asks_for_a_new_snapshot() -> None:
    m = model()
    m.fold(event("READY", "newcomer"))
    assert m.incomplete


junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda s: st.lists(s, max_size=3))
KEYS = [
    "state",
    "since",
    "reason",
    "retry_at",
    "pid",
    "turn",
    "tokens",
    "tokens_per_s",
    "private_bytes",
    "lease",
    "waiting",
    "uptime_s",
    "rss_bytes",
]
TYPES = ["READY", "THOUGHT", "TOKEN", "HEARTBEAT", "DEATH", "RESURRECTION", "PRESSURE", "STATE", "SHUTDOWN", "GAP"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TYPES),
            st.sampled_from(["subject", "jar", "nobody"]),
            st.text(max_size=30),
            st.dictionaries(st.sampled_from(KEYS), junk),
        ),
        max_size=40,
    )
)
def test_no_event_breaks_the_model(events: list[tuple[Any, str, str, dict[str, Any]]]) -> None:
    m = model()
    for type, sender, content, metadata in events:
        m.fold(event(type, sender, content, life=1, metadata=metadata))
    for p in m.personas.values():
        assert p.pid is None or isinstance(p.pid, int)
        assert p.retry_at is None or isinstance(p.retry_at, float)


def test_a_month_of_events_takes_no_more_room_than_a_minute() -> None:
    m = model()
    for turn in range(300):
        for _ in range(5):
            m.fold(event("TOKEN", "subject", "x" * 5000, life=1, metadata={"turn": turn}))
        m.fold(death("subject"))
    assert len(m.thoughts) == THOUGHTS and len(m.told) == TOLD and max(len(t.text) for t in m.thoughts) <= THOUGHT_CHARS


# ── minds, deaths, logs: from the files, the jar running or not ──


def mind(path: Path, lines: list[tuple[float, int, str, str, str]]) -> None:
    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE lines (id INTEGER PRIMARY KEY, at REAL, life INTEGER, kind TEXT, source TEXT, content TEXT)")
    db.executemany("INSERT INTO lines (at, life, kind, source, content) VALUES (?, ?, ?, ?, ?)", lines)
    db.commit()
    db.close()


@pytest.fixture
def state(home: Path) -> Path:
    kept = home / "states" / "brainjar" / "matrix"
    mind(kept / "minds/subject/mind.db", [(1.0, 1, "thought", "subject", "Ich BIN Straße"), (3.0, 2, "told", "jar", "You have died once.")])
    mind(kept / "minds/god/mind.db", [(2.0, 1, "heard", "subject", "Ich BIN Straße\x1b[2J")])
    return kept


def test_thoughts_of_everybody_are_merged_by_time(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thoughts", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["at"], line["persona"], line["kind"], line["from"]) for line in lines] == [
        (1.0, "subject", "thought", "subject"),
        (2.0, "god", "heard", "subject"),
        (3.0, "subject", "told", "jar"),
    ]
    assert set(lines[0]) == {"at", "persona", "life", "kind", "from", "content"}


def test_thoughts_are_searched_in_any_case_of_letters(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thoughts", "--search", "ich bin STRASSE"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 2 and "\x1b" not in said
    assert main(["thoughts", "subject", "--search", "died", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["content"] == "You have died once."


def test_an_unknown_mind_is_one_line_and_exit_2(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thoughts", "subjet"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "subject" in said.err and said.err.count("\n") == 1


def test_a_damaged_mind_is_one_line_and_exit_1(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "minds/god/mind.db").write_bytes(b"no database at all " * 100)
    assert main(["thoughts", "god"]) == 1
    assert "god/mind.db" in capsys.readouterr().err


def test_lines_are_read_from_a_directory_with_an_awkward_name(tmp_path: Path) -> None:
    path = tmp_path / "100% #1?" / "mind.db"
    mind(path, [(1.0, 1, "thought", "x", "a"), (2.0, 1, "thought", "x", "b")])
    assert [line.content for line in read_lines(path, Range(after=1))] == ["b"]
    assert list(read_lines(tmp_path / "nowhere.db")) == []


def test_deaths_are_read_from_the_ledger_without_a_jar(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deaths"]) == 0 and capsys.readouterr().out == ""
    ledger = Ledger(state / "ledger.db")
    ledger.begin("subject", 1, 1, 5.0)
    ledger.died(Death(persona="subject", life=1, birth=1, at=9.0, cause="segv", signal=11, last_words="I was\n\x1b[31m", deaths=1))
    ledger.close()
    assert main(["deaths", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["persona"], line["cause"], line["signal"], line["evidence"]["exit_code"]) == ("subject", "segv", 11, None)
    assert main(["deaths"]) == 0
    said = capsys.readouterr().out
    assert "segv" in said and "I was" in said and said.count("\n") == 1 and "\x1b" not in said


def test_a_damaged_ledger_is_one_line_and_exit_1(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "ledger.db").write_bytes(b"x" * 5000)
    assert main(["deaths"]) == 1
    said = capsys.readouterr()
    assert "ledger.db" in said.err and said.err.count("\n") == 1


def test_logs_come_out_as_they_were_written(state: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (state / "logs").mkdir()
    (state / "logs" / "subject.log").write_bytes(b"line\n\xff\x1b[0m\n")
    assert main(["logs", "subject"]) == 0
    assert capfdbinary.readouterr().out == b"line\n\xff\x1b[0m\n"


def test_status_shows_every_persona(jar: FakeJar, capsys: pytest.CaptureFixture[str]) -> None:
    jar.status = status(
        persona(
            "subject", "dead", pid=None, life=3, deaths=2, retry_at=time.time() + 2.8, last_death=last_death("cap-rlimit", time.time())
        ),
        persona("god", "backoff", pid=None, reason="the model is gone"),
    )
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "dead (again in 2." in said and "cap-rlimit" in said and "god: the model is gone" in said and "256 MiB" in said
    assert main(["status", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["jar"] == "test" and [p["name"] for p in line["personas"]] == ["subject", "god"]


def test_nothing_is_left_open(home: Path) -> None:
    with FakeJar(home / "xdg" / "brainjar") as fake:
        control.status(card(fake))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            control.status(card(fake))
            following = Follower(card(fake))
            take(following, lambda found: bool(found))
            following.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 10  # the fake keeps its callers' ends
