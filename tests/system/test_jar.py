"""The jar as a whole: it starts, is spoken to, stops clean, survives being killed, and is one of its kind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainjar import ledger, minds
from tests.patience import GONE_S, PATIENCE_S
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, alive, until, zombies_of


def thoughts(jar: Jar, name: str) -> list[str]:
    return [line.content for line in minds.read_lines(jar.state_dir / "minds" / name / "mind.db") if line.kind == "thought"]


def nothing_left(jar: Jar, pids: list[int]) -> None:
    assert [pid for pid in pids if alive(pid)] == []
    assert not jar.runtime_dir.exists() or [p for p in jar.runtime_dir.iterdir() if p.is_socket()] == []


def test_a_clean_stop_leaves_no_process_no_socket_no_lock_and_exits_0(make_jar: MakeJar) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        jar = make_jar(THREE).start()
        jar.until_ready()
        pids = jar.descendants()
        assert len(pids) == 5, "one zygote, the senses, three workers"
        assert jar.stop(number) == 0
        nothing_left(jar, pids)
        assert not (jar.state_dir / "jar.json").exists()
    assert ledger.read_deaths(jar.state_dir / "ledger.db") == [], "a stop is no death"


def test_the_life_goes_on_after_a_clean_stop_and_so_does_the_mind(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("RESURRECTION", "subject")
        listener.until("THOUGHT", "subject")
    before = thoughts(jar, "subject")
    assert jar.stop() == 0
    jar.start()
    subject = next(p for p in jar.until_ready()["personas"] if p["name"] == "subject")
    assert (subject["deaths"], subject["life"]) == (1, 2), "a stop suspends a life, a start continues it"
    assert subject["last_death"]["cause"] == "killed"
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    after = thoughts(jar, "subject")
    assert after[: len(before)] == before
    assert len(after) > len(before)
    told = [line.content for line in minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db") if line.kind == "told"]
    assert len(told) == 1, "a death is told once"
    assert jar.status()["supervisor"]["epoch"] == 2


def test_a_killed_supervisor_leaves_nothing_alive_and_the_next_start_works_at_once(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    pids = jar.descendants()
    assert jar.process is not None
    jar.process.kill()
    jar.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), GONE_S, "orphans outlive their supervisor by more than a second")
    jar.start()
    status = jar.until_ready()
    for persona in status["personas"]:
        assert (persona["deaths"], persona["life"]) == (1, 2), persona["name"]
        assert persona["last_death"]["cause"] == "supervisor-lost"
    _, events = jar.ask("events", epoch=2, since=0)
    for name in ("subject", "observer", "god"):
        mine = [e["type"] for e in events if e["sender_id"] == name and e["type"] in ("DEATH", "RESURRECTION")]
        assert mine == ["DEATH", "RESURRECTION"]
    assert jar.stop() == 0
    jar.start()
    jar.until_ready()
    found = ledger.read_deaths(jar.state_dir / "ledger.db")
    assert sorted(d.persona for d in found) == ["god", "observer", "subject"], "closed once, not at every start"


def test_a_second_supervisor_is_refused_and_told_the_pid_of_the_first(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    second = make_jar(ALONE)
    done = subprocess.run(second.argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert f"pid {jar.pid}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    jar.until_ready()


def test_kill_stop_and_restart_wait_for_their_effect_and_say_it(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    killed = jar.brainjar("kill", "subject")
    assert killed.returncode == 0, killed.stderr
    assert "killed-by-operator" in killed.stdout
    assert ledger.read_deaths(jar.state_dir / "ledger.db")[0].evidence.intent == "operator"
    jar.until_ready()
    before = jar.persona("observer")
    restarted = jar.brainjar("restart", "observer")
    assert restarted.returncode == 0, restarted.stderr
    after = jar.persona("observer")
    assert after["pid"] != before["pid"]
    assert (after["life"], after["deaths"]) == (before["life"], 0), "a restart is no death"
    stopped = jar.brainjar("stop", "god")
    assert stopped.returncode == 0
    assert jar.persona("god")["state"] == "stopped"
    nobody = jar.brainjar("kill", "subjekt")
    assert nobody.returncode == 2
    assert "subject" in nobody.stderr
    again = jar.brainjar("kill", "god")
    assert again.returncode == 1
    assert "not alive" in again.stderr
    whole = jar.brainjar("stop")
    assert whole.returncode == 0, whole.stderr
    assert jar.process is not None
    assert jar.process.wait(PATIENCE_S) == 0
    assert jar.brainjar("status").returncode == 3


def test_status_deaths_events_and_thoughts_as_json(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("RESURRECTION", "subject")
        listener.until("THOUGHT", "observer")
    status = json.loads(jar.brainjar("status", "--json").stdout)
    assert {"jar", "supervisor", "personas"} <= set(status)
    assert {"pid", "uptime_s", "rss_bytes"} <= set(status["supervisor"])
    wanted = {"name", "role", "state", "pid", "life", "deaths", "birth", "memory", "cpus", "tokens", "tokens_per_s", "last_death"}
    for persona in status["personas"]:
        assert wanted <= set(persona)
        assert {"cap_bytes", "private_bytes", "layers"} <= set(persona["memory"])
        for layer in persona["memory"]["layers"]:
            assert {"name", "limit_bytes", "used_bytes", "effective"} <= set(layer)
    (death,) = [json.loads(line) for line in jar.brainjar("deaths", "--json").stdout.splitlines()]
    assert {"persona", "life", "at", "cause", "signal", "exit_code", "evidence", "last_words"} <= set(death)
    assert (death["persona"], death["cause"], death["signal"]) == ("subject", "killed", 9)
    events = [json.loads(line) for line in jar.brainjar("events", "--json").stdout.splitlines()]
    first = ["type", "timestamp", "sender_id", "content", "crash_count", "metadata", "v", "epoch", "seq", "topic_seq", "life"]
    assert all(list(e)[: len(first)] == first for e in events)
    numbers = [e["seq"] for e in events]
    assert numbers == sorted(numbers)
    assert {"READY", "STATE", "DEATH", "RESURRECTION", "THOUGHT"} <= {e["type"] for e in events}
    dead = next(e for e in events if e["type"] == "DEATH")
    assert dead["crash_count"] == 1
    lines = [json.loads(line) for line in jar.brainjar("thoughts", "observer", "--json").stdout.splitlines()]
    assert all(set(line) == {"at", "persona", "life", "kind", "from", "content"} for line in lines)
    assert any(line["kind"] == "heard" and line["from"] == "subject" for line in lines), "observer sees subject"


def test_subject_hears_nobody(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(2):
            for name in ("observer", "god", "subject"):
                listener.until("THOUGHT", name)
    kinds = {line.kind for line in minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db")}
    assert kinds == {"thought"}
    seen = {line.source for line in minds.read_lines(jar.state_dir / "minds" / "god" / "mind.db") if line.kind == "heard"}
    assert seen == {"subject", "observer"}


def test_a_stopped_worker_that_does_not_listen_is_ended_by_force(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    status = jar.until_ready()
    pids = jar.descendants()
    for persona in status["personas"]:
        os.kill(persona["pid"], signal.SIGSTOP)
    assert jar.stop() == 0
    nothing_left(jar, pids)


def test_one_that_will_not_stop_delays_nobody(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    status = jar.until_ready()
    pid = {p["name"]: p["pid"] for p in status["personas"]}
    os.kill(pid["observer"], signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as asking, jar.listening() as listener:
        asking.connect(str(jar.runtime_dir / "control"))
        asking.sendall(b'{"cmd":"stop","name":"observer"}\n')
        listener.until("STATE", "observer", lambda e: e.metadata["state"] == "stopping")
        os.kill(pid["subject"], signal.SIGKILL)
        _, before = listener.until("RESURRECTION", "subject")
        assert not any(e.type == "STATE" and e.sender_id == "observer" for e in before), "it was back before the other had stopped"


def test_what_a_subscriber_lost_is_noticed_and_mended(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        assert listener.snapshot is not None
        since = listener.snapshot.seq
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        newest, live = listener.until("RESURRECTION", "subject")
        _, replayed = jar.ask("events", since=since)
    held = {e["seq"]: e for e in replayed if e["type"] != "GAP"}
    for envelope in [*live, newest]:
        if envelope.type in ("DEATH", "RESURRECTION", "STATE", "READY") and envelope.seq > since:
            assert held[envelope.seq]["type"] == envelope.type
    numbers = [e.seq for e in live if e.seq > since]
    assert numbers == list(range(since + 1, since + 1 + len(numbers))), "nothing is lost to who listens"
    with jar.listening() as listener:
        beat, _ = listener.until("HEARTBEAT", "jar")
    assert beat.metadata["topics"]["DEATH.subject"] == 1, "a lost tail shows in the next heartbeat"


def test_a_death_that_was_recorded_but_not_published_is_published_at_the_next_start(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("RESURRECTION", "subject")
    assert jar.stop() == 0
    db = sqlite3.connect(jar.state_dir / "ledger.db")
    with db:
        db.execute("UPDATE journal SET published = 0 WHERE type = 'DEATH'")  # as if it had been killed between the two
    db.close()
    jar.start()
    jar.until_ready()
    _, events = jar.ask("events", since=0)
    (death,) = [e for e in events if e["type"] == "DEATH"]
    assert death["metadata"]["replayed"] is True
    assert jar.stop() == 0
    jar.start()
    jar.until_ready()
    _, events = jar.ask("events", since=0)
    assert [e for e in events if e["type"] == "DEATH"] == []


def test_a_process_of_the_jar_is_not_served_on_the_control_socket(make_jar: MakeJar, tmp_path: Path) -> None:
    """A client that descends from the supervisor is what a worker would be; a subreaper's orphan cannot hide either."""
    code = (
        "import os, socket, subprocess, sys, time\n"
        "from brainjar.supervisor.control import Control\n"
        "from pathlib import Path\n"
        "c = Control(Path(sys.argv[1]), lambda pid: False)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        " print(s.recv(4096).decode())', sys.argv[1] + '/control'], stdout=subprocess.PIPE, text=True)\n"
        "while c.accept() is None and p.poll() is None: time.sleep(0.01)\n"
        "print(len(c.connections), p.communicate()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.startswith("0 ")
    assert "is not served" in done.stdout


def test_the_supervisor_carries_no_model_and_no_screen(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    mapped = Path(f"/proc/{jar.pid}/maps").read_text()
    for library in ("llama", "numpy", "ggml"):
        assert library not in mapped
    assert jar.status()["supervisor"]["rss_bytes"] < 35 * 1024 * 1024
    assert zombies_of(jar.pid) == []


def test_the_state_directory_is_private(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    for path in [jar.state_dir, *jar.state_dir.rglob("*"), jar.runtime_dir, *jar.runtime_dir.rglob("*")]:
        mode = path.lstat().st_mode & 0o777
        assert mode & 0o077 == 0, f"{path} is {mode:o}"


def test_a_caller_that_has_said_all_and_shut_its_end_still_gets_its_answer(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE_S)
        asking.connect(str(jar.runtime_dir / "control"))
        asking.sendall(b'{"cmd":"restart","name":"subject"}\n')
        asking.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: asking.recv(65536), b""))
    assert json.loads(answer)["exit"] == 0


def fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(fd)


def test_a_jar_on_a_full_disk_goes_on_says_so_and_catches_up(make_jar: MakeJar, tmp_path: Path) -> None:
    """What the disk cannot take is published all the same, and written down when it can."""
    disk = tmp_path / "jar" / "state"
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "brainjar-test", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be made here: {mounted.stderr.decode().strip()}")
    try:
        jar = make_jar(ALONE, "--set", "snapshots.disk=false").start()  # what it gives up for want of room would be room
        jar.until_ready()
        with jar.listening() as listener:
            listener.until("THOUGHT", "subject")
            fill(disk / "filler")
            os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
            listener.until("DEATH", "subject")
            until(lambda: jar.status()["supervisor"]["ledger_error"])
            listener.until("PRESSURE", "subject", lambda e: "cannot write" in e.content)
            (disk / "filler").unlink()
            listener.until("RESURRECTION", "subject")
            until(lambda: jar.status()["supervisor"]["ledger_error"] is None)
            listener.until("THOUGHT", "subject")
        assert [d.life for d in ledger.read_deaths(disk / "ledger.db")] == [1]
        assert jar.stop() == 0
    finally:
        jar.clean_up()
        until(lambda: subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode == 0)


def both(jar: Jar, *requests: dict[str, str]) -> list[dict[str, Any]]:
    """Several requests at once, each from a caller of its own; the answers."""
    callers = []
    for _ in requests:
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(PATIENCE_S)
        caller.connect(str(jar.runtime_dir / "control"))
        callers.append(caller)
    for caller, request in zip(callers, requests, strict=True):
        caller.sendall(json.dumps(request).encode() + b"\n")
    answers = []
    for caller in callers:
        with caller, caller.makefile("rb") as lines:
            answers.append(json.loads(lines.readline()))
    return answers


@pytest.mark.parametrize("after", ["stop", "restart"])
def test_a_kill_is_a_death_whatever_is_asked_right_after_it(make_jar: MakeJar, after: str) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    killed, _ = both(jar, {"cmd": "kill", "name": "subject"}, {"cmd": after, "name": "subject"})
    assert "killed-by-operator" in killed["say"]
    assert [d.life for d in ledger.read_deaths(jar.state_dir / "ledger.db")] == [1]
    until(lambda: jar.persona("subject")["state"] in (("stopped",) if after == "stop" else ("ready", "thinking")))
    assert jar.persona("subject")["deaths"] == 1


def test_two_commands_at_once_are_both_answered(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    stopped, restarted = both(jar, {"cmd": "stop", "name": "subject"}, {"cmd": "restart", "name": "subject"})
    assert restarted["exit"] == 0
    assert "restarted meanwhile" in stopped["say"]
    assert ledger.read_deaths(jar.state_dir / "ledger.db") == []


def test_nothing_is_started_in_a_jar_that_stops(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    _, restarted = both(jar, {"cmd": "stop"}, {"cmd": "restart", "name": "subject"})
    assert restarted["exit"] == 1
    assert jar.process is not None
    assert jar.process.wait(PATIENCE_S) == 0


def test_started_with_its_standard_descriptors_closed_it_writes_into_no_file_of_its_own(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE)
    shell = " ".join(shlex.quote(word) for word in jar.argv)
    jar.process = subprocess.Popen(["bash", "-c", f"exec {shell} <&- >&- 2>&-"])
    until(jar._answers)
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert (jar.state_dir / "lock").read_text().strip() == str(jar.pid)
    assert jar.stop() == 0


@pytest.mark.parametrize(("repack", "layout"), [("true", "repacked where llama.cpp can"), ("false", "as in the file")])
def test_weights_are_held_as_the_config_says(make_jar: MakeJar, repack: str, layout: str) -> None:
    jar = make_jar(ALONE, "--set", f"inference.repack={repack}").start()
    jar.until_ready()
    assert jar.persona("subject")["layout"] == f"{layout}, by inference.repack"
    (zygote,) = jar.named("bj-zygote")
    words = Path(f"/proc/{zygote}/cmdline").read_bytes().split(b"\0")
    assert (b"plain" in words) == (repack == "false")
