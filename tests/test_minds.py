"""Minds as they are kept and read: schema, migration, search, and the same mind again from its export."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from brainjar import minds, portable
from brainjar.cli.main import main
from brainjar.errors import UsageError
from brainjar.messages import Retention
from brainjar.minds import Line, Newer, Range, read_lines
from brainjar.persona.mind import PRUNED, Mind

OLD = (
    "CREATE TABLE lines (id INTEGER PRIMARY KEY, at REAL NOT NULL, life INTEGER NOT NULL,"
    " kind TEXT NOT NULL, source TEXT NOT NULL, content TEXT NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('schema', 1), ('told_deaths', 4)",
    "INSERT INTO lines VALUES (1, 10.5, 1, 'thought', 'subject', 'An old thought of stones.')",
)


def old_mind(path: Path) -> None:
    db = sqlite3.connect(path)
    for statement in OLD:
        db.execute(statement)
    db.commit()
    db.close()


def found(path: Path, **wanted: object) -> list[str]:
    return [line.content for line in read_lines(path, Range(**wanted))]  # type: ignore[arg-type]


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """A state directory with two minds."""
    state = tmp_path / "state"
    for name in ("god", "subject"):
        mind = Mind(state / "minds" / name / "mind.db")
        mind.add(1, [("thought", name, f"I am {name}. *Stars* & <b>stones</b>\x1b[31m."), ("told", "jar", "A death.")])
        mind.add(2, [("heard", "subject", "Grüße, Straße."), ("said", "outside", 'She said "no".')], told_deaths=1)
        mind.close()
    (state / "lock").touch()
    return state


def test_a_mind_of_before_is_brought_up_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    old_mind(path)
    assert found(path, search="STONES") == ["An old thought of stones."], "one that nobody has opened since is read as well"
    mind = Mind(path)
    assert mind.set_aside is None and mind.told_deaths() == 4
    mind.add(2, [("thought", "subject", "A new one of rivers.")])
    assert found(path, search="stones") == ["An old thought of stones."], "what was there before the index is in it"
    assert found(path, search="rivers") == ["A new one of rivers."]
    mind.close()


def test_a_mind_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    old_mind(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (minds.SCHEMA + 1,))
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(Newer, match=r"written by a newer brainjar \(schema 4, this version reads up to 3\): left as it is"):
        Mind(path)
    with pytest.raises(Newer):
        found(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mind.db"], "nothing is set aside, and nothing lies beside it"


def test_lines_are_found_by_what_they_contain_when_they_were_and_what_they_are(jar: Path) -> None:
    path = jar / "minds" / "god" / "mind.db"
    assert found(path, search="straße") == ["Grüße, Straße."]
    assert found(path, search='said "no"') == ['She said "no".']
    assert found(path, search="gr") == ["Grüße, Straße."], "shorter than what the index holds"
    assert found(path, search="nowhere") == []
    assert found(path, search='" OR "1') == []
    assert found(path, life=2, kinds=("said",)) == ['She said "no".']
    lines = list(read_lines(path))
    assert found(path, since=lines[2].at) == [line.content for line in lines[2:]]
    assert found(path, until=lines[2].at) == [line.content for line in lines[:2]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text("abcä \"'*%\0", min_size=1, max_size=12), min_size=1, max_size=8), st.text("abcä \"'*%\0", min_size=1, max_size=5))
@example(["abc", "a\0abc"], "abc")
@example(["abc", "a\0abc"], "\0abc")
def test_the_index_finds_what_reading_all_finds(tmp_path_factory: pytest.TempPathFactory, contents: list[str], search: str) -> None:
    path = tmp_path_factory.mktemp("m") / "mind.db"
    mind = Mind(path)
    mind.add(1, [("thought", "subject", content) for content in contents])
    mind.close()
    assert found(path, search=search) == [content for content in contents if search.casefold() in content.casefold()]


def test_what_is_too_old_or_too_much_is_let_go_a_bounded_number_at_once_and_never_the_newest(tmp_path: Path) -> None:
    mind = Mind(tmp_path / "mind.db")
    assert mind.prune(Retention(seconds=1e-9, bytes=1), least=10) == 0, "nothing is in it"
    for n in range(40):
        mind.add(1, [("thought", "a", f"thought {n} of the sea") for n in range(10 * n, 10 * n + 10)])
    assert mind.prune(Retention(), least=10) == 0, "off by default"
    assert mind.prune(Retention(seconds=3600), least=10) == 0
    assert mind.prune(Retention(seconds=1e-9), least=150) == PRUNED
    assert mind.prune(Retention(seconds=1e-9), least=150) == 50
    assert mind.prune(Retention(seconds=1e-9), least=150) == 0
    assert found(tmp_path / "mind.db") == [f"thought {n} of the sea" for n in range(250, 400)]
    assert found(tmp_path / "mind.db", search="OF THE SEA")[0] == "thought 250 of the sea"
    assert found(tmp_path / "mind.db", search="thought 17 ") == []
    used = mind._used_bytes()
    while mind.prune(Retention(bytes=used // 2), least=10):
        pass
    assert mind.count() >= 10
    assert mind.add(2, [("thought", "a", "and on")]) == 401, "ids are never given twice"
    mind.close()


def test_a_mind_of_a_bounded_size_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / "mind.db"
    mind = Mind(path)
    bound = 512 * 1024
    for n in range(60):
        mind.add(1, [("thought", "a", f"{n} {m} " + os.urandom(400).hex()) for m in range(20)])
        mind.prune(Retention(bytes=bound), least=10)
    newest = mind.newest()
    mind.close()
    assert path.stat().st_size < 3 * bound, "that what was let go is used again comes a while later"
    lines = list(read_lines(path))
    assert lines[-1].id == newest == 1200 and lines[0].id > 600


def test_export_import_export_is_the_same(jar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "other"
    assert main(["export", "--state-dir", str(jar), "--output", str(first)]) == 0
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert main(["import", str(first), "--state-dir", str(other)]) == 0
    assert capsys.readouterr().out == "god: 4 lines\nsubject: 4 lines\n"
    assert main(["export", "--state-dir", str(other), "--output", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    mind = Mind(other / "minds" / "subject" / "mind.db")
    assert mind.told_deaths() == 1 and mind.newest() == 4
    mind.close()
    assert found(other / "minds" / "god" / "mind.db", search="stones") == found(jar / "minds" / "god" / "mind.db", search="stones")
    for path in (other, other / "minds", other / "minds" / "god", other / "minds" / "god" / "mind.db"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert sorted(os.listdir(other)) == ["lock", "minds"]


LINE = '{"record":"line","id":1,"at":1.0,"persona":"a","life":1,"kind":"thought","from":"a","content":"x"}'
HEAD = '{"record":"mind","v":1,"persona":"a","told_deaths":0}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no mind in it"),
        ("{}", "line 1: is no line of an export"),
        (LINE, "line 1: a line of a, whose head is not before it"),
        (f"{HEAD}\n{LINE}\n{LINE}", "line 3: its id 1 does not follow 1"),
        (f"{HEAD}\n{HEAD}", "line 2: a has begun already"),
        (HEAD.replace('"v":1', '"v":9'), "line 1: is of version 9, and this brainjar reads 1"),
        (HEAD.replace('"a"', '"../../etc"'), "line 1: is no line of an export"),
        (f"{HEAD}\n{LINE.replace('thought', 'song')}", "line 2: is no line of an export"),
        (f"{HEAD}\n{LINE[:50]}", "line 2: is no line of an export"),
        (f"{HEAD}\n{LINE.replace('1.0', '1e999')}", "line 2: is no line of an export"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    source, state = tmp_path / "x.jsonl", tmp_path / "state"
    source.write_text(text)
    assert main(["import", str(source), "--state-dir", str(state)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert os.listdir(state) == ["lock"]


def test_a_mind_that_is_there_is_never_written_over(jar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text(f"{HEAD}\n{LINE}\n" + HEAD.replace('"a"', '"god"') + "\n")
    before = (jar / "minds" / "god" / "mind.db").read_bytes()
    assert main(["import", str(source), "--state-dir", str(jar)]) == 2
    assert "god has a mind in" in capsys.readouterr().err
    assert (jar / "minds" / "god" / "mind.db").read_bytes() == before
    assert not (jar / "minds" / "a").exists(), "all of it or nothing"


def test_markdown_has_a_heading_for_each_life_and_nothing_that_acts(jar: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "subject", "--format", "markdown", "--state-dir", str(jar)]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert text.startswith("## subject, life 1\n\nI am subject. \\*Stars\\* & \\<b\\>stones\\</b\\>�\\[31m.\n")
    assert "## subject, life 2\n\n*heard, from subject:* \n\n> Grüße, Straße.\n" in text


def test_thoughts_by_range_and_as_json(jar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thoughts", "--state-dir", str(jar), "--kind", "said", "--kind", "heard", "--life", "2", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["kind"] for line in lines} == {"said", "heard"} and len(lines) == 4
    assert main(["thoughts", "--state-dir", str(jar), "--since", "2100-01-01"]) == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as ended:
        main(["thoughts", "--state-dir", str(jar), "--since", "yesterday"])
    assert ended.value.code == 2
    assert '"yesterday" is no moment' in capsys.readouterr().err


def test_replay_keeps_the_time_between_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "minds" / "a" / "mind.db"
    path.parent.mkdir(parents=True)
    writer = minds.Writer(path, 0)
    for n, at in enumerate((100.0, 110.0, 110.5, 4000.0), 1):
        writer.add(Line(n, at, 1, "thought", "a", f"thought {n}"))
    writer.finish()
    now, slept = [50.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    assert main(["replay", "--state-dir", str(tmp_path), "--speed", "5", "--longest", "60"]) == 0
    assert slept == [0.0, 2.0, 0.1, 60.0]
    assert [line[-9:] for line in capsys.readouterr().out.splitlines()] == [f"thought {n}" for n in range(1, 5)]


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_an_export_or_raise_anything_else(body: bytes) -> None:
    try:
        list(portable.read(io.BytesIO(body), "x"))
    except UsageError:
        pass


def test_a_thought_of_anything_is_kept_whole_and_shown_safely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b[2J\x07\x00[bold]*_<script>\u202e\ufffd\n# " + "x" * (1 << 20)
    state = tmp_path / "state"
    mind = Mind(state / "minds" / "a" / "mind.db")
    mind.add(1, [("thought", "a", wild)])
    mind.close()
    assert found(state / "minds" / "a" / "mind.db") == [wild]
    assert main(["thoughts", "--state-dir", str(state)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1 and not set(shown) & set("\x1b\x07\x00\u202e") and len(shown) > 1 << 20
    assert main(["export", "--state-dir", str(state), "--output", str(tmp_path / "a.jsonl")]) == 0
    assert main(["import", str(tmp_path / "a.jsonl"), "--state-dir", str(tmp_path / "b")]) == 0
    assert found(tmp_path / "b" / "minds" / "a" / "mind.db") == [wild]
