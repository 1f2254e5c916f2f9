"""What a mind has computed outlives its supervisor, on disk: verified, within a budget; what is wrong with it costs time, never a mind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainjar import minds, models
from tests.engine.test_identity import requantise
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, until
from tests.system.test_death import deaths, told
from tests.system.test_jar import fill
from tests.system.test_mortality import FITS_ALL, config

AT_ONCE = '--set=snapshots.write_budget="16TiB"'
"""So large a budget that each turn is kept on disk."""


def place(jar: Jar, name: str = "subject") -> Path:
    return jar.state_dir / "minds" / name / "context.snapshot"


def aside(jar: Jar) -> list[Path]:
    return sorted(place(jar).parent.glob("context.snapshot.damaged-*"))


def events(jar: Jar, type: str, name: str = "subject") -> list[dict[str, Any]]:
    """Of this supervisor, as far as it still holds them."""
    _, found = jar.ask("events", since=0)
    return [event for event in found if event["type"] == type and event["sender_id"] == name]


def born(jar: Jar, name: str = "subject") -> dict[str, Any]:
    """What its first READY under this supervisor said."""
    found: dict[str, Any] = events(jar, "READY", name)[0]["metadata"]
    return found


def snapshot(jar: Jar, name: str = "subject") -> dict[str, Any]:
    found: dict[str, Any] = jar.persona(name)["snapshot"]
    return found


def until_kept(jar: Jar, tokens: int = 1, name: str = "subject") -> dict[str, Any]:
    """Wait until so many tokens of it are on disk."""
    found: dict[str, Any] = until(lambda: told if (told := snapshot(jar, name) or {}).get("disk_tokens", 0) >= tokens else None)
    return found


def think(jar: Jar, thoughts: int = 2) -> None:
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(thoughts):
            listener.until("THOUGHT", "subject")


def killed(jar: Jar) -> None:
    assert jar.process is not None
    left = jar.descendants()
    jar.process.kill()
    jar.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in left))


def test_after_a_stop_and_a_start_it_thinks_on_without_reading_again(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    think(jar, 3)
    before = until(lambda: told if (told := snapshot(jar))["tokens"] > told["disk_tokens"] > 0 else None)
    assert "due in" in before["why"]
    assert jar.stop() == 0, "before the budget allows another write: a clean stop may"
    size = place(jar).stat().st_size
    jar.start()
    jar.until_ready()
    ready = born(jar)
    assert ready["restored_from"] == "disk"
    assert ready["restored_tokens"] >= before["tokens"]
    assert size > ready["restored_tokens"] * 20_000
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert jar.persona("subject")["deaths"] == 0
    assert place(jar).stat().st_mode & 0o777 == 0o600
    assert place(jar).stat().st_uid == place(jar).parent.stat().st_uid


def test_after_the_supervisor_was_killed_it_thinks_on_from_what_is_on_disk(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, AT_ONCE).start()
    jar.until_ready()
    kept = {name: until_kept(jar, 60, name) for name in ("subject", "observer", "god")}
    killed(jar)
    jar.start()
    jar.until_ready()
    for name, before in kept.items():
        ready = born(jar, name)
        assert ready["restored_from"] == "disk", name
        assert ready["restored_tokens"] >= before["disk_tokens"], name
    assert len(told(jar, "subject")) == 1, "and knows that it has died"
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert not any("snapshot" in event["content"] for name in kept for event in events(jar, "PRESSURE", name))


def test_under_a_supervisor_that_lives_the_next_life_takes_what_is_in_memory(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    think(jar, 3)
    with jar.listening() as listener:
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        ready, _ = listener.until("READY", "subject")
    assert ready.metadata["restored_from"] == "memory"
    assert ready.metadata["restored_tokens"] > until_kept(jar)["disk_tokens"], "which is newer"
    assert born(jar)["restored_from"] == "none"


def test_a_window_that_had_grown_is_had_again(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(config(tmp_path, FITS_ALL), AT_ONCE).start()
    jar.until_ready()
    until_kept(jar, 520)
    assert jar.stop() == 0
    jar.start()
    jar.until_ready()
    ready = born(jar)
    assert (ready["restored_from"], ready["n_ctx"]) == ("disk", 1024)
    assert ready["restored_tokens"] >= 520
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert jar.persona("subject")["deaths"] == 0


def test_a_greedy_mind_thinks_the_same_with_a_restart_from_disk_and_without(make_jar: MakeJar, tmp_path: Path) -> None:
    """Bit for bit: what is restored is what was computed, and both feed the same tokens in the same batches after it, as each thought
    ends a batch and nothing is heard; no window slides; one thread; no penalty, of which a sampler's memory would be lost. It
    is asked for a story, as this model says the same in each thought otherwise.
    """
    greedy = ALONE.replace("seed = 7", "temperature = 0\nrepeat_penalty = 1.0").replace("max_tokens = 24", "max_tokens = 60")
    first = "Write a story about a lighthouse keeper, a storm and a ship."
    (tmp_path / "prompt.md").write_text(f'---\nfirst = "{first}"\n---\nYou write stories.')
    greedy += f'threads = 1\nprompt = "{tmp_path}/prompt.md"\n'
    jars = [make_jar(greedy, AT_ONCE, name=name) for name in ("without", "with")]

    def thoughts(jar: Jar) -> list[str]:
        return [line.content for line in minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db") if line.kind == "thought"]

    without, restarted = (jar.start() for jar in jars)
    think(restarted, 1)
    restarted.stop()
    before = len(thoughts(restarted))
    restarted.start()
    think(restarted, 2)
    assert born(restarted)["restored_from"] == "disk"
    until(lambda: len(thoughts(without)) >= before + 2)
    assert thoughts(restarted)[: before + 2] == thoughts(without)[: before + 2]
    assert thoughts(without)[before] != thoughts(without)[0], "or a mind that had lost its past would think the same"


# ── what is wrong with it ──


def flip(at: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with open(path, "r+b") as file:
            file.seek(int(at * (path.stat().st_size - 1)))
            was = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([was[0] ^ 4]))

    return damage


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 9 // 10)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip(0.0), "no snapshot"),
        (flip(0.0001), "header"),
        (flip(0.5), "state is damaged"),
        (flip(1.0), "state is damaged"),
        (cut, "cut short"),
        (lambda path: path.write_bytes(os.urandom(5_000_000)), "no snapshot"),
    ],
    ids=["magic", "header", "middle", "end", "truncated", "noise"],
)
def test_a_damaged_one_is_set_aside_and_its_past_is_read_again(make_jar: MakeJar, damage: Callable[[Path], None], words: str) -> None:
    jar = make_jar(ALONE, AT_ONCE).start()
    think(jar)
    assert jar.stop() == 0
    damage(place(jar))
    jar.start()
    think(jar)
    ready = born(jar)
    assert (ready["restored_from"], ready["restored_tokens"]) == ("none", 0)
    (said,) = [event["content"] for event in events(jar, "PRESSURE") if "snapshot" in event["content"]]
    assert words in said and aside(jar)[0].name in said
    assert len(aside(jar)) == 1
    subject = jar.persona("subject")
    assert (subject["deaths"], subject["birth"]) == (0, 2), "no death, no failed start"
    until_kept(jar)
    assert jar.stop() == 0
    jar.start()
    jar.until_ready()
    assert born(jar)["restored_from"] == "disk", "the next one is whole again"


def test_a_model_that_was_moved_keeps_it_and_another_quantisation_does_not(make_jar: MakeJar, tmp_path: Path) -> None:
    model = tmp_path / "moved" / "m.gguf"
    model.parent.mkdir()
    jar = make_jar(ALONE, AT_ONCE)
    jar.start()
    think(jar)
    assert jar.stop() == 0
    jar.argv += ["--model", str(model)]
    shutil.copyfile(models.lookup("smollm2-135m").path, model)
    jar.start()
    think(jar, 1)
    assert born(jar)["restored_from"] == "disk"
    assert jar.stop() == 0
    requantise(models.lookup("smollm2-135m").path, model)
    jar.start()
    think(jar, 1)
    assert born(jar)["restored_from"] == "none"
    assert any("another model" in event["content"] for event in events(jar, "PRESSURE"))
    assert deaths(jar, "subject") == []


def test_another_mind_or_another_prompt_does_not_take_it(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(ALONE, AT_ONCE).start()
    think(jar)
    assert jar.stop() == 0
    mind = jar.state_dir / "minds" / "subject" / "mind.db"
    mind.rename(tmp_path / "away.db")
    jar.start()
    think(jar)
    assert born(jar)["restored_from"] == "none"
    assert any("another mind" in event["content"] for event in events(jar, "PRESSURE"))
    assert jar.stop() == 0
    (tmp_path / "prompt.md").write_text("You are somebody else.")
    config = tmp_path / "jar" / "matrix.toml"
    config.write_text(config.read_text().replace('name = "subject"', f'name = "subject"\nprompt = "{tmp_path}/prompt.md"'))
    jar.start()
    think(jar, 1)
    assert born(jar)["restored_from"] == "none"
    assert any("another prompt" in event["content"] for event in events(jar, "PRESSURE"))
    assert len(aside(jar)) == 1, "one is kept, not all"


def test_after_a_start_that_failed_it_is_not_tried_again(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, AT_ONCE).start()
    think(jar)
    assert jar.stop() == 0
    too_long = "--set=sampling.max_tokens=250"  # for a thought and this prompt there is no room: each start is refused
    jar.argv.append(too_long)
    jar.start()
    until(lambda: jar.persona("subject")["failed_starts"] >= 2)
    assert len(aside(jar)) == 1
    assert jar.stop() == 0
    jar.argv.remove(too_long)
    jar.start()
    think(jar, 1)
    assert born(jar)["restored_from"] == "none"


# ── the disk ──


def test_a_full_disk_costs_the_snapshot_and_no_turn(make_jar: MakeJar, tmp_path: Path) -> None:
    disk = tmp_path / "jar" / "state"
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "brainjar-test", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be made here: {mounted.stderr.decode().strip()}")
    try:
        jar = make_jar(ALONE, AT_ONCE).start()
        jar.until_ready()
        until_kept(jar)
        fill(disk / "filler")
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - (3 << 20))  # room for a mind, none for a context
        with jar.listening() as listener:
            said, _ = listener.until("PRESSURE", "subject", lambda e: os.strerror(errno.ENOSPC) in e.content)
            first, _ = listener.until("THOUGHT", "subject")
            _, before = listener.until("THOUGHT", "subject")
        assert "context.snapshot" in said.content
        assert not any(e.type == "PRESSURE" for e in before), "it is said once"
        assert snapshot(jar)["why"] == os.strerror(errno.ENOSPC)
        assert snapshot(jar)["disk_tokens"] > 0, "the old one stays"
        until(lambda: not place(jar).with_name("context.snapshot.new").exists(), why="each try takes away what it wrote")
        mind = [line.content for line in minds.read_lines(disk / "minds" / "subject" / "mind.db")]
        assert first.content in mind, "the turn is committed"
        tokens = snapshot(jar)["disk_tokens"]
        (disk / "filler").unlink()
        until_kept(jar, tokens + 1)
        assert jar.persona("subject")["deaths"] == 0
        assert jar.stop() == 0
    finally:
        jar.clean_up()
        until(lambda: subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode == 0)


def test_what_it_writes_is_told_and_outlives_its_lives(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    written = until_kept(jar)["disk_written_bytes_day"]
    with jar.listening() as listener:
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("READY", "subject")
        listener.until("THOUGHT", "subject")
    assert snapshot(jar)["disk_written_bytes_day"] == written > 0
    killed(jar)
    jar.start()
    think(jar, 1)
    assert snapshot(jar)["disk_written_bytes_day"] == written
    total = {"disk": True, "write_budget_bytes_day": 4 << 30, "disk_written_bytes_day": written}
    assert jar.status()["snapshots"] == total
    text = jar.brainjar("status").stdout
    assert "of 4 GiB a day" in text
    assert "due in" in text


def test_within_its_budget_it_writes_once_and_says_when_again(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    think(jar, 4)
    told = until(lambda: told if (told := snapshot(jar))["why"] else None)
    assert "due in" in told["why"]
    assert told["disk_bytes"] - told["disk_written_bytes_day"] < 100_000, "one write, not one for each turn"
    assert told["tokens"] > told["disk_tokens"] > 0


def test_where_it_is_off_nothing_is_written(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set=snapshots.disk=false").start()
    think(jar)
    assert snapshot(jar)["why"] == "snapshots.disk is off"
    assert jar.stop() == 0
    assert sorted(os.listdir(place(jar).parent)) == ["lock", "mind.db"]


def test_a_writer_that_is_killed_leaves_nothing_in_the_way(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, AT_ONCE).start()
    think(jar)
    assert jar.stop() == 0
    begun = place(jar).with_name("context.snapshot.new")
    begun.write_bytes(b"half of one")
    os.chown(begun, place(jar).stat().st_uid, place(jar).stat().st_gid)
    jar.start()
    think(jar, 1)
    assert born(jar)["restored_from"] == "disk"
    until(lambda: not begun.exists())


def test_a_journal_that_nobody_lets_shrink_is_told(make_jar: MakeJar) -> None:
    """The journal of a mind and that of the ledger, made as long as a reader without end would make them."""
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        for database in (place(jar).with_name("mind.db"), jar.state_dir / "ledger.db"):
            os.truncate(f"{database}-wal", 40 << 20)
        told: dict[str, str] = {}
        while len(told) < 2:
            said, _ = listener.until("PRESSURE", None, lambda e: "journal" in e.content)
            told[said.sender_id] = said.content
        listener.until("THOUGHT", "subject")
    assert "mind.db has grown to 40 MiB" in told["subject"]
    assert "ledger.db has grown to 40 MiB" in told["jar"]
    assert jar.persona("subject")["deaths"] == 0
