"""The watchdog on real processes: one chosen worker goes, for a reason that can be read, and the others think on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar.supervisor.loop import HEARTBEAT_S
from brainjar.watchdog.gpu import Gpus
from tests import nvml
from tests.system.conftest import THREE, MakeJar, needs_groups
from tests.system.harness import Jar, Limited, Listener, until

MIB = 1 << 20


def watched(*lines: str, config: str = THREE) -> str:
    return config.replace("[sampling]", "[watchdog]\n" + "\n".join(lines) + "\n[sampling]")


def hostile(make_jar: MakeJar, tmp_path: Path, attack: str, text: str, *args: str, **more: Any) -> Jar:
    """A jar whose subject carries out `attack`."""
    prompt = tmp_path / "attack.md"
    prompt.write_text(f"ATTACK {attack}\n")
    text = text.replace('name = "subject"', f'name = "subject"\nprompt = "{prompt}"')
    return make_jar(text, *args, program=(sys.executable, "-m", "tests.system.hostile"), **more)


def go(jar: Jar, name: str = "subject") -> None:
    (jar.state_dir / "minds" / name / "go").touch()


def of(jar: Jar, type: str, **metadata: Any) -> list[dict[str, Any]]:
    """What has been said of that type so far, with that in it."""
    _, events = jar.ask("events", since=0)
    return [e for e in events if e["type"] == type and metadata.items() <= e["metadata"].items()]


def senses_of(jar: Jar, sense: str) -> list[dict[str, Any]]:
    return [one for one in jar.status()["watchdog"]["senses"] if one["sense"] == sense]


def thinks_on(listener: Listener, *names: str) -> None:
    listener.drain()
    for name in names:
        listener.until("THOUGHT", name)


# ── memory, in a group with a limit ──


class Hog:
    """Somebody else in the jar's group, who takes as much as is said."""

    def __init__(self, group: Path) -> None:
        code = (
            "import sys, mmap\n"
            "kept = []\n"
            "for line in sys.stdin:\n"
            "    kept.append(bytearray(int(line)))\n"
            "    kept[-1][::mmap.PAGESIZE] = b'x' * len(kept[-1][::mmap.PAGESIZE])\n"
            "    print(flush=True)\n"
        )
        argv = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group), sys.executable, "-c", code]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def take(self, size: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def hog(limited: Limited) -> Iterator[Hog]:
    made = Hog(limited.others)
    yield made
    made.end()


def used(jar: Jar, limited: Limited) -> float | None:
    found = [one["value"] for one in senses_of(jar, "host-memory") if one["where"].startswith(str(limited.path))]
    return found[0] if found else None


@needs_groups
def test_one_persona_goes_for_somebody_elses_hunger_and_is_not_born_before_there_is_room(
    limited: Limited, make_jar: MakeJar, hog: Hog
) -> None:
    text = watched('interval = "1s"', 'cooldown = "2s"', "host_memory = 80").replace(
        'name = "observer"', 'name = "observer"\nexpendable = 50'
    )
    jar = limited.jar(make_jar(text)).start()
    jar.until_ready()
    with jar.listening() as listener:
        until(lambda: used(jar, limited) is not None)
        while limited.percent() < 84:
            hog.take(10 * MIB)
        past, _ = listener.until("PRESSURE", "jar", lambda e: e.metadata.get("step") == "past")
        paused, _ = listener.until("VERDICT", "observer", lambda e: e.metadata["step"] == "pause")
        ended, _ = listener.until("VERDICT", "observer", lambda e: e.metadata["step"] == "term")
        death, _ = listener.until("DEATH", "observer")
        assert (death.metadata["cause"], death.metadata["exit_code"]) == ("watchdog-host-memory", 0), "it ended itself, when it was told to"
        assert death.metadata["evidence"]["verdict"] == ended.content
        (reading, *_) = ended.metadata["readings"]
        assert reading["value"] >= ended.metadata["mark"] == 80
        assert past.seq < paused.seq < ended.seq < death.seq
        waits = until(lambda: (p := jar.persona("observer"))["reason"] and p)
        assert waits["state"] == "dead" and "its next birth waits" in waits["reason"] and waits["retry_at"] is None
        status = jar.status()
        assert status["lease_limit"] == 1 and status["watchdog"]["danger"]
        hog.end()
        listener.until("RESURRECTION", "observer")
        listener.until("VERDICT", "observer", lambda e: e.metadata["step"] == "resume")
        thinks_on(listener, "observer", "subject")
    assert [jar.persona(name)["deaths"] for name in ("subject", "god")] == [0, 0]
    assert jar.stop() == 0
    with sqlite3.connect(jar.state_dir / "ledger.db") as ledger:
        kept = [(kind, who) for kind, who in ledger.execute("SELECT type, persona FROM journal WHERE published = 1 ORDER BY seq")]
    ledger.close()
    assert ("PRESSURE", "jar") in kept and kept.count(("VERDICT", "observer")) == 3


@needs_groups
def test_a_persona_that_fills_the_box_is_killed_before_the_kernel_has_to(limited: Limited, make_jar: MakeJar, tmp_path: Path) -> None:
    text = watched('interval = "1s"', "host_memory = 70").replace('"128MiB"', '"2GiB"')
    jar = limited.jar(hostile(make_jar, tmp_path, "hoard when told", text, "--force", "--set", "persona.subject.expendable=20")).start()
    jar.until_ready()
    with jar.listening() as listener:
        go(jar)
        death, before = listener.until("DEATH")
        assert (death.sender_id, death.metadata["cause"]) == ("subject", "watchdog-host-memory")
        assert [e.metadata["step"] for e in before if e.type == "VERDICT"] in (["pause", "kill"], ["pause", "term"], ["kill"])
        assert death.metadata["evidence"]["kernel_oom_kills"] in (None, 0)
        listener.until("RESURRECTION", "subject")
        thinks_on(listener, "observer", "god")


# ── stalls ──

STALL = ('stall = "4s"', 'interval = "1s"')


def steps(jar: Jar, name: str) -> list[str]:
    return [e["metadata"]["step"] for e in of(jar, "VERDICT", kind="stalled") if e["sender_id"] == name]


def test_one_that_is_stopped_gives_up_its_lease_and_its_life(make_jar: MakeJar) -> None:
    jar = make_jar(watched(*STALL)).start()
    jar.until_ready()
    with jar.listening() as listener, jar.listening() as dying:  # on a busy machine it dies while the others are listened to
        listener.until("TOKEN", "subject")
        os.kill(jar.persona("subject")["pid"], signal.SIGSTOP)
        revoked, _ = listener.until("VERDICT", "subject")
        assert revoked.metadata["step"] == "revoke" and "no sign of life" in revoked.content
        thinks_on(listener, "observer")  # while it is still there, or would have waited for its lease
        death, _ = dying.until("DEATH", "subject")
        assert death.metadata["cause"] == "watchdog-stalled"
        assert steps(jar, "subject")[:2] == ["revoke", "term"]
        dying.until("RESURRECTION", "subject")
        thinks_on(listener, "subject")
    assert [jar.persona(name)["deaths"] for name in ("observer", "god")] == [0, 0]


def test_one_that_beats_and_decodes_nothing_is_stalled_as_well(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = hostile(make_jar, tmp_path, "spin", watched(*STALL)).start()
    with jar.listening() as listener:
        death, before = listener.until("DEATH", "subject")
        assert (death.metadata["cause"], death.metadata["exit_code"]) == ("watchdog-stalled", 0), "TERM was enough"
        said = [e for e in before if e.type == "VERDICT"]
        assert said[-1].metadata["step"] == "term" and "computed nothing" in said[-1].content
        (reading,) = said[-1].metadata["readings"]
        assert reading["stuck_s"] >= 4 > reading["silent_s"]
        thinks_on(listener, "observer", "god")


def test_one_that_hangs_in_native_code_says_where_before_it_dies(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = hostile(make_jar, tmp_path, "hang", watched(*STALL)).start()
    with jar.listening() as listener:
        death, _ = listener.until("DEATH", "subject")
    assert (death.metadata["cause"], death.metadata["signal"]) == ("watchdog-stalled", signal.SIGABRT)
    stack = "\n".join(death.metadata["evidence"]["stderr"])
    assert "Fatal Python error: Aborted" in stack and "in hang" in stack
    assert "Aborted" in death.content and "File" not in death.content


def test_one_that_lies_about_its_progress_gives_the_lease_back_or_goes(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = hostile(make_jar, tmp_path, "lie", watched(*STALL)).start()
    jar.until_ready("observer", "god")
    until(lambda: jar.persona("subject")["state"] == "thinking")
    with jar.listening() as listener:
        said = jar.brainjar("pause", "subject")
        assert said.returncode == 0, said.stderr
        assert "has not given back the lease" in of(jar, "VERDICT", kind="stalled")[0]["content"]
        assert steps(jar, "subject") == ["term", "abort"], "TERM it hears, and goes on"
        thinks_on(listener, "observer", "god")
    assert jar.persona("subject")["last_death"]["cause"] == "watchdog-stalled"


def test_a_mind_that_cannot_be_written_holds_up_nobody_and_is_no_stall(make_jar: MakeJar) -> None:
    jar = make_jar(watched('stall = "8s"', 'interval = "1s"')).start()
    jar.until_ready()
    with jar.listening() as listener:
        thinks_on(listener, "observer")
        with sqlite3.connect(jar.state_dir / "minds" / "observer" / "mind.db", isolation_level=None) as mind:
            mind.execute("BEGIN EXCLUSIVE")
            listener.until("PRESSURE", "observer", lambda e: "thinking waits" in e.content)
            end = time.monotonic() + 16
            while time.monotonic() < end:  # longer than it takes to be called stalled, and ended
                thinks_on(listener, "subject", "god")
            assert "observer" not in jar.status()["lease"]
            assert jar.brainjar("pause", "observer").stdout == "observer is paused\n"
            jar.brainjar("resume", "observer")
            mind.execute("ROLLBACK")
        mind.close()
        thinks_on(listener, "observer")
    assert of(jar, "VERDICT") == [] and jar.persona("observer")["deaths"] == 0


def test_who_nags_while_it_is_paused_fills_no_ledger(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = hostile(make_jar, tmp_path, "nag", THREE).start()
    jar.until_ready("observer", "god")
    jar.ask("pause", name="subject")
    with jar.listening() as listener:
        for _ in range(3):
            thinks_on(listener, "observer", "god")
    states = [e for e in of(jar, "STATE") if e["sender_id"] == "subject"]
    assert [e["metadata"]["state"] for e in states].count("paused") <= 2 and len(states) < 10


def test_a_supervisor_that_was_itself_stopped_kills_nobody(make_jar: MakeJar) -> None:
    jar = make_jar(watched('stall = "3s"', 'interval = "1s"')).start()
    jar.until_ready()
    births = [p["birth"] for p in jar.status()["personas"]]
    os.kill(jar.pid, signal.SIGSTOP)
    end = time.monotonic() + 8
    while time.monotonic() < end:  # the workers wait for a lease that nobody gives
        time.sleep(0.5)
    os.kill(jar.pid, signal.SIGCONT)
    with jar.listening() as listener:
        thinks_on(listener, "subject", "observer", "god")
    assert [p["birth"] for p in jar.status()["personas"]] == births
    assert of(jar, "VERDICT") == []


# ── near the cap ──


def test_a_mind_near_its_cap_is_told_so_once(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = hostile(make_jar, tmp_path, "brim", watched('interval = "1s"')).start()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        listener.until("THOUGHT", "subject")
        listener.until("THOUGHT", "subject")
    (warned,) = of(jar, "PRESSURE", kind="cap")
    (reading,) = warned["metadata"]["readings"]
    assert warned["sender_id"] == "subject" and 0.95 <= reading["used_bytes"] / reading["limit_bytes"] < 1
    (line,) = [line for line in _thoughts(jar, "subject") if line["kind"] == "told"]
    assert line["content"].startswith("Your memory is nearly full: ") and "128 MiB" in line["content"]


# ── leaks ──


def test_one_that_leaks_is_recycled_between_two_thoughts_and_knows_it(make_jar: MakeJar, tmp_path: Path) -> None:
    text = watched('interval = "500ms"', 'leak_window = "12s"', 'leak_horizon = "1h"')
    jar = hostile(make_jar, tmp_path, "leak", text).start()
    with jar.listening() as listener:
        verdict, _ = listener.until("VERDICT", "subject", lambda e: e.metadata["step"] == "recycle")
        death, before = listener.until("DEATH", "subject")
        assert (death.metadata["cause"], death.metadata["signal"]) == ("recycled", None)
        assert death.metadata["last_words"] == "", "no thought was cut off"
        assert [e.type for e in before if e.sender_id == "subject" and e.type in ("THOUGHT", "STATE")][-1] == "THOUGHT"
        (reading,) = verdict.metadata["readings"]
        assert reading["bytes_per_minute"] > 0 and reading["cap_in_s"] < 3600
        listener.until("RESURRECTION", "subject")
    told = [line for line in _thoughts(jar, "subject") if line["kind"] == "told"]
    assert "planned end" in told[0]["content"]


def _thoughts(jar: Jar, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in jar.brainjar("thoughts", name, "--json").stdout.splitlines()]


def test_the_slope_and_what_follows_from_it_are_shown(make_jar: MakeJar, tmp_path: Path) -> None:
    text = watched('interval = "500ms"', 'leak_window = "12s"', 'leak_horizon = "0s"')
    jar = hostile(make_jar, tmp_path, "leak", text).start()
    seen = until(lambda: (p := jar.persona("subject"))["cap_in_s"] is not None and p)
    assert seen["growth_bytes_s"] > 0
    assert seen["cap_in_s"] == pytest.approx((128 * MIB - seen["memory"]["private_bytes"]) / seen["growth_bytes_s"], rel=0.5)
    assert "at its cap in" in jar.brainjar("status").stdout


# ── heat and GPUs ──


class Driver:
    """A stand-in for NVIDIA's, which the real pynvml loads."""

    def __init__(self, directory: Path) -> None:
        library = nvml.build(directory)
        if library is None:
            pytest.skip(nvml.WHY_NOT)
        self._file = directory / "nvml.txt"
        self.env = {"LD_LIBRARY_PATH": str(directory)}

    def say(self, *lines: str) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_text("\n".join(("devices 1", "name Stand-in", *lines)) + "\n")
        aside.rename(self._file)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    directory = tmp_path / "driver"
    directory.mkdir()
    return Driver(directory)


COOL = ("memory 100 1000", "temperature 50", "utilization 10")


def test_heat_pauses_one_after_the_other_and_lets_them_go_on_below_the_lower_mark(make_jar: MakeJar, driver: Driver) -> None:
    driver.say(*COOL)
    jar = make_jar(watched('interval = "1s"', 'cooldown = "1h"', "temperature = 80"), env=driver.env).start()
    jar.until_ready()
    until(lambda: [one["value"] for one in senses_of(jar, "heat") if one["where"] == "GPU 0"] == [50.0])
    with jar.listening() as listener:
        driver.say("memory 100 1000", "temperature 88", "utilization 10")
        order = [listener.until("VERDICT", where=lambda e: e.metadata["step"] == "pause")[0].sender_id for _ in range(3)]
        assert order[-1] == "god" and set(order) == {"subject", "observer", "god"}
        until(lambda: [p["state"] for p in jar.status()["personas"]] == ["paused"] * 3)
        assert [p["paused"] for p in jar.status()["personas"]] == [["heat"]] * 3
        tokens = [p["tokens"] for p in jar.status()["personas"]]
        driver.say("memory 100 1000", "temperature 77", "utilization 10")
        until(lambda: [one["value"] for one in senses_of(jar, "heat") if one["where"] == "GPU 0"] == [77.0])
        assert [p["tokens"] for p in jar.status()["personas"]] == tokens, "nobody thinks between the two marks"
        driver.say(*COOL)
        back = [listener.until("VERDICT", where=lambda e: e.metadata["step"] == "resume")[0].sender_id for _ in range(3)]
        assert back == order[::-1]
        thinks_on(listener, "subject", "observer", "god")
    assert [p["deaths"] for p in jar.status()["personas"]] == [0, 0, 0]


def test_gpu_memory_past_its_mark_costs_who_has_it_and_nobody_else(make_jar: MakeJar, driver: Driver) -> None:
    driver.say(*COOL)
    jar = make_jar(watched('interval = "1s"'), env=driver.env).start()
    pid = next(p["pid"] for p in jar.until_ready()["personas"] if p["name"] == "god")
    with jar.listening() as listener:
        driver.say("memory 950 1000", f"process {pid} 600", "process 999999 200", "temperature 50", "utilization 90")
        verdict, _ = listener.until("VERDICT")
        assert (verdict.sender_id, verdict.metadata["step"], verdict.metadata["where"]) == ("god", "kill", "GPU 0")
        driver.say(*COOL)
        death, _ = listener.until("DEATH")
        assert (death.sender_id, death.metadata["cause"]) == ("god", "watchdog-gpu-memory")
        listener.until("RESURRECTION", "god")


@pytest.mark.parametrize(
    "lines",
    [
        ("memory 990 1000", "error process 3"),
        ("memory 990 1000", "process 0 600"),
        ("memory 990 1000", "process 999999 600"),
        ("memory 0 0", "temperature 0", "utilization 0"),
        ("error memory 3", "error temperature 3", "error utilization 3"),
        ("memory 2000 1000", "temperature 9999"),
    ],
    ids=["no process list", "no pids", "of others", "zeros", "not supported", "nonsense"],
)
def test_a_driver_that_does_not_say_whose_it_is_costs_nobody_anything(make_jar: MakeJar, driver: Driver, lines: tuple[str, ...]) -> None:
    driver.say(*lines)
    jar = make_jar(watched('interval = "1s"'), env=driver.env).start()
    jar.until_ready()
    until(lambda: senses_of(jar, "gpu-memory"))
    with jar.listening() as listener:
        thinks_on(listener, "subject", "observer", "god")
    assert of(jar, "VERDICT") == []
    (found,) = senses_of(jar, "gpu-memory")
    assert (found["value"] is None) == bool(found["why"])


def test_a_driver_that_hangs_from_the_first_is_said(make_jar: MakeJar, driver: Driver) -> None:
    driver.say(*COOL, "hang")
    jar = make_jar(watched('interval = "1s"'), env=driver.env).start()
    until(lambda: any("has not answered" in one["why"] for one in senses_of(jar, "gpu-memory")))
    jar.until_ready()
    assert senses_of(jar, "host-memory")[0]["value"] is not None


def test_a_driver_that_hangs_costs_only_itself(make_jar: MakeJar, driver: Driver) -> None:
    driver.say(*COOL)
    jar = make_jar(watched('interval = "1s"'), env=driver.env).start()
    jar.until_ready()
    until(lambda: any(one["value"] == 10.0 for one in senses_of(jar, "gpu-memory")))
    (senses,) = jar.named("bj-senses")
    driver.say(*COOL, "hang memory")
    until(lambda: any("has not answered" in one["why"] for one in senses_of(jar, "gpu-memory")))
    with jar.listening() as listener:
        thinks_on(listener, "subject", "observer")
    until(lambda: all(layer["effective"] for p in jar.status()["personas"] for layer in p["memory"]["layers"] if layer["name"] == "watch"))
    assert senses_of(jar, "host-memory")[0]["value"] is not None
    assert jar.named("bj-senses") == [senses], "nobody had to replace it"
    driver.say(*COOL)
    os.kill(senses, signal.SIGKILL)
    until(lambda: (now := jar.named("bj-senses")) and now != [senses])
    until(lambda: any(one["value"] == 10.0 for one in senses_of(jar, "gpu-memory")))


# ── the process that senses ──


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_senses_that_die_or_hang_are_replaced_and_nobody_dies_of_it(make_jar: MakeJar, number: int) -> None:
    jar = make_jar(watched('interval = "1s"')).start()
    jar.until_ready()
    until(lambda: senses_of(jar, "host-memory"))
    (first,) = jar.named("bj-senses")
    os.kill(first, number)
    until(lambda: (now := jar.named("bj-senses")) and first not in now)
    until(lambda: jar.status()["watchdog"]["blind"] == "")
    until(lambda: all(layer["effective"] for p in jar.status()["personas"] for layer in p["memory"]["layers"] if layer["name"] == "watch"))
    assert of(jar, "VERDICT") == [] and [p["deaths"] for p in jar.status()["personas"]] == [0, 0, 0]


# ── pausing, by hand ──


def test_a_paused_persona_goes_on_at_the_same_word(make_jar: MakeJar) -> None:
    jar = make_jar(THREE.replace("max_tokens = 24", "max_tokens = 120"), "--set", "model.context=768").start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("TOKEN", "subject", lambda e: e.metadata["n"] >= 10)
        assert jar.brainjar("pause", "subject").stdout == "subject is paused\n"
        before = jar.persona("subject")
        assert before["state"] == "paused" and before["paused"] == ["operator"] and before["thought"]
        thinks_on(listener, "observer", "god", "observer")
        after = jar.persona("subject")
        assert (after["tokens"], after["thought"], after["pid"]) == (before["tokens"], before["thought"], before["pid"])
        assert jar.brainjar("resume", "subject").stdout == "subject may think again\n"
        thought, _ = listener.until("THOUGHT", "subject")
        assert thought.content.startswith(before["thought"].strip()[:20])
        assert thought.metadata["turn"] == 1
        assert thought.metadata["seconds"] < 60
    assert jar.persona("subject")["deaths"] == 0


def test_a_pause_lasts_over_a_death(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        jar.ask("pause", name="subject")
        jar.ask("kill", name="subject")
        listener.until("RESURRECTION", "subject")
        thinks_on(listener, "observer", "god")
        alive = until(lambda: (p := jar.persona("subject"))["state"] == "paused" and p)
        assert (alive["life"], alive["tokens"]) == (2, 0)
        jar.ask("resume", name="subject")
        thinks_on(listener, "subject")


def test_what_cannot_be_paused_or_resumed_is_said(make_jar: MakeJar) -> None:
    jar = make_jar().start()
    jar.until_ready()
    assert jar.brainjar("pause", "subjct").returncode == 2
    assert "did you mean subject?" in jar.brainjar("pause", "subjct").stderr
    assert jar.brainjar("resume", "subject").stdout == "subject is not paused by hand\n"
    jar.brainjar("pause", "subject")
    assert jar.brainjar("pause", "subject").stdout == "subject is paused already\n"


# ── nothing to do ──


def test_while_nobody_thinks_or_listens_it_wakes_as_seldom_as_the_watchdog_may(make_jar: MakeJar) -> None:
    jar = make_jar(watched('interval = "1h"')).start()
    jar.until_ready()
    for name in ("subject", "observer", "god"):
        jar.ask("pause", name=name)
    until(lambda: jar.status()["lease"] == [])

    def laps() -> int:
        text = Path(f"/proc/{jar.pid}/status").read_text()
        return int(text.split("voluntary_ctxt_switches:")[1].split()[0])

    def rests() -> bool:
        before = laps()
        time.sleep(2 * HEARTBEAT_S)
        return laps() == before

    until(rests)
    with jar.listening() as listener:  # whoever looks is shown at once that it lives, and then each second
        for _ in range(3):
            listener.until("HEARTBEAT", "jar")
    until(rests)
    jar.ask("resume", name="subject")
    with jar.listening() as listener:
        thinks_on(listener, "subject")


# ── a dry run ──


def test_a_dry_run_says_what_it_would_do_and_does_nothing(make_jar: MakeJar, driver: Driver, tmp_path: Path) -> None:
    driver.say("memory 100 1000", "temperature 99", "utilization 10")
    text = watched('interval = "1s"', 'cooldown = "1s"', 'stall = "4s"')
    jar = hostile(make_jar, tmp_path, "spin", text, "--watchdog-dry-run", "--set", "inference.max_concurrent=2", env=driver.env).start()
    jar.until_ready()
    with jar.listening() as listener:
        until(lambda: {e["metadata"]["step"] for e in of(jar, "VERDICT", dry_run=True)} >= {"pause", "term", "revoke"})
        thinks_on(listener, "observer", "god")
    assert of(jar, "VERDICT", dry_run=False) == []
    assert all(e["content"].startswith("(dry run") for e in of(jar, "VERDICT"))
    status = jar.status()
    assert status["watchdog"]["dry_run"] and status["watchdog"]["danger"] == ""
    assert [one["level"] for one in senses_of(jar, "heat") if one["where"] == "GPU 0"] == ["past"]
    assert status["lease_limit"] == min(2, len(os.sched_getaffinity(0))), "not shrunk"
    assert [(p["deaths"], p["paused"]) for p in status["personas"]] == [(0, [])] * 3
    assert "only says what it would do" in jar.brainjar("status").stdout


# ── a real GPU ──


def test_a_real_nvidia_gpu_is_read(make_jar: MakeJar) -> None:
    readings = {reading.key: reading for reading in Gpus().read()}
    if ("gpu-memory", "GPU 0") not in readings:
        pytest.skip(f"no NVIDIA GPU here: {readings['gpu-memory', 'GPU'].why}")
    jar = make_jar(watched('interval = "1s"')).start()
    until(lambda: any(one["where"] == "GPU 0" and one["value"] is not None for one in senses_of(jar, "gpu-memory")))
    assert 0 < next(one["value"] for one in senses_of(jar, "gpu-memory") if one["where"] == "GPU 0") < 100
    assert of(jar, "VERDICT") == []
