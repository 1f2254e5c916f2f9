"""A worker that dies, for whatever reason: noticed, recorded once, announced, told to itself, and back again."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from brainjar import ledger, minds
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.messages import Death
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, Listener, alive, until


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def deaths(jar: Jar, name: str) -> list[Death]:
    return ledger.read_deaths(jar.state_dir / "ledger.db", name)


def told(jar: Jar, name: str) -> list[str]:
    return [
        line.content
        for line in minds.read_lines(jar.state_dir / "minds" / name / "mind.db")
        if line.kind == "told" and "You have died" in line.content
    ]


def left_behind(jar: Jar) -> list[Meta]:
    """What describes the snapshots that the supervisor holds for its persona."""
    found = []
    for fd in os.listdir(f"/proc/{jar.pid}/fd"):
        try:
            where = os.readlink(f"/proc/{jar.pid}/fd/{fd}")
            if where.startswith(("/memfd:brainjar-a", "/memfd:brainjar-b")):
                copy = os.open(f"/proc/{jar.pid}/fd/{fd}", os.O_RDWR)
                try:
                    found.append(Snapshots((copy, copy)).peek())
                finally:
                    os.close(copy)
        except OSError:
            continue
    return [meta for meta in found if meta is not None]


def die_and_return(jar: Jar, listener: Listener, name: str, number: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Send `number` to the worker of `name`; return (persona before, DEATH's metadata, persona after)."""
    before = jar.persona(name)
    os.kill(before["pid"], number)
    death, _ = listener.until("DEATH", name)
    _, between = listener.until("RESURRECTION", name)
    assert not any(e.type in ("READY", "TOKEN") and e.sender_id == name for e in between), "alive before it was resurrected"
    listener.until("TOKEN", name)  # it thinks again
    return before, death.metadata, jar.persona(name)


@pytest.mark.parametrize(
    ("number", "cause"),
    [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "segv"), (signal.SIGABRT, "abort"), (signal.SIGBUS, "bus-error")],
)
def test_a_death_by_signal_is_recorded_once_told_and_followed_by_the_next_life(make_jar: MakeJar, number: int, cause: str) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        before, death, after = die_and_return(jar, listener, "subject", number)
    assert (death["cause"], death["signal"], death["exit_code"]) == (cause, number, None)
    assert (death["life"], death["birth"], death["pid"], death["deaths"]) == (1, before["birth"], before["pid"], 1)
    assert (after["life"], after["deaths"], after["birth"]) == (before["life"] + 1, 1, before["birth"] + 1)
    assert after["pid"] != before["pid"]
    assert after["last_death"]["cause"] == cause
    assert [d.life for d in deaths(jar, "subject")] == [1]
    (line,) = told(jar, "subject")
    assert "died once" in line
    for other in ("observer", "god"):
        assert jar.persona(other)["deaths"] == 0
        assert deaths(jar, other) == []


def test_each_death_is_told_with_its_number_and_its_cause(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(3):
            listener.until("TOKEN", "subject")
            die_and_return(jar, listener, "subject", signal.SIGSEGV)
    assert [d.life for d in deaths(jar, "subject")] == [1, 2, 3]
    lines = told(jar, "subject")
    assert len(lines) == 3
    assert "died 3 times" in lines[-1]
    assert "segmentation fault" in lines[-1]


def test_what_it_was_told_is_in_the_models_context_not_only_in_a_table(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        die_and_return(jar, listener, "subject", signal.SIGKILL)
        listener.until("THOUGHT", "subject")
        # what it leaves to its next life says which tokens are computed, and which messages they are
        metas = until(lambda: [meta for meta in left_behind(jar) if any("You have died once" in text for _, text in meta.messages)])
    assert all(meta.n_past >= meta.head + sum(meta.counts[:-1]) for meta in metas)
    assert all(meta.n_past <= len(meta.tokens) for meta in metas)


def test_limits_affinity_and_session_of_a_worker_are_what_the_kernel_says(make_jar: MakeJar) -> None:
    jar = make_jar(THREE.replace('memory = "144MiB"', 'memory = "144MiB"\ncpus = [0]')).start()
    status = jar.until_ready()
    for persona in status["personas"]:
        pid = persona["pid"]
        proc = proc_status(pid)
        assert int(proc["PPid"]) == jar.pid, "the supervisor is its parent"
        assert os.getsid(pid) == pid, "a session of its own"
        assert sorted(os.sched_getaffinity(pid)) == persona["cpus"]
        assert int(proc["CapEff"], 16) == int(proc["CapPrm"], 16) == int(proc["CapBnd"], 16) == 0
        assert proc["NoNewPrivs"] == "1"
        assert proc["Seccomp"] == "2", "it cannot make processes"
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
        (core,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]
        (data,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max data size")]
        soft, hard = data.split()[3:5]
        assert soft == hard != "unlimited"
        layer = persona["memory"]["layers"][0]
        assert layer["name"] == "rlimit" and layer["effective"]
        assert layer["limit_bytes"] == persona["memory"]["cap_bytes"]
        assert 0 < layer["used_bytes"] < layer["limit_bytes"]
        threads = len(os.listdir(f"/proc/{pid}/task"))
        assert threads <= persona["threads"] + 4, "compute threads, two of zmq, the lifeline"
    observer = next(p for p in status["personas"] if p["name"] == "observer")
    assert observer["cpus"] == [0]
    assert observer["threads"] == 1


def test_a_worker_that_leaves_by_itself_is_dead_as_well(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        _, death, after = die_and_return(jar, listener, "subject", signal.SIGTERM)
    assert (death["cause"], death["signal"], death["exit_code"]) == ("left", None, 0)
    assert after["life"] == 2


def test_a_damaged_mind_is_set_aside_under_a_new_name_and_said(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set", "restart.pause=1s").start()
    jar.until_ready()
    mind = jar.state_dir / "minds" / "subject" / "mind.db"
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("DEATH", "subject")
        for suffix in ("-wal", "-shm"):
            mind.with_name(mind.name + suffix).unlink(missing_ok=True)
        mind.write_bytes(b"not a mind" * 1000)
        said, _ = listener.until("PRESSURE", "subject")
        listener.until("THOUGHT", "subject")
    assert "set aside" in said.content
    (aside,) = mind.parent.glob("mind.db.damaged-*")
    assert aside.read_bytes() == b"not a mind" * 1000
    assert told(jar, "subject")


def test_a_mind_that_cannot_be_written_waits_says_so_and_loses_nothing(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set=persona.subject.sandbox.user=same").start()  # or its limits could not be changed from outside
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        pid = jar.persona("subject")["pid"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 1 << 30))  # what a full disk is to a process
        listener.until("PRESSURE", "subject", lambda e: "cannot write" in e.content)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        thought, _ = listener.until("THOUGHT", "subject")
    assert jar.persona("subject")["deaths"] == 0
    assert thought.content in [line.content for line in minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db")]


def test_last_words_are_those_it_had_not_finished(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        begun, _ = listener.until("TOKEN", "subject", lambda e: e.metadata["n"] > 5)
        turn = begun.metadata["turn"]
        os.kill(jar.persona("subject")["pid"], signal.SIGSTOP)
        pid = jar.persona("subject")["pid"]
        os.kill(pid, signal.SIGKILL)
        death, before = listener.until("DEATH", "subject")
    heard = "".join(e.content for e in before if e.type == "TOKEN" and e.metadata["turn"] > turn) or None
    words = death.metadata["last_words"]
    assert words or heard is None
    if heard:
        assert heard in words or words in heard


def test_the_lease_of_the_dead_is_free_at_once(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", "restart.pause=1h").start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("TOKEN", "subject")
        pid = jar.persona("subject")["pid"]
        os.kill(pid, signal.SIGSTOP)  # it may hold the lease for ever now
        until(lambda: jar.status()["lease"] == ["subject"])
        os.kill(pid, signal.SIGKILL)
        listener.until("DEATH", "subject")
        listener.until("TOKEN", "observer")
        listener.until("TOKEN", "god")


def test_who_thinks_is_never_more_than_the_lease_allows(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    turns: list[tuple[str, int]] = []
    with jar.listening() as listener:
        for name in ("subject", "observer", "god"):
            listener.until("THOUGHT", name)  # all of them are in the queue now
        while len(turns) < 10:
            got, _ = listener.until("TOKEN")
            turn = (got.sender_id, got.metadata["turn"])
            if not turns or turns[-1] != turn:
                turns.append(turn)
    assert len(set(turns)) == len(turns), f"two thought at the same time: {turns}"
    thinkers = [name for name, _ in turns]
    for i in range(len(thinkers) - 2):
        assert len(set(thinkers[i : i + 3])) == 3, f"not the one who had waited longest: {thinkers}"


def test_a_dead_zygote_kills_nobody_and_is_replaced(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    status = jar.until_ready()
    workers = {p["pid"] for p in status["personas"]}
    (zygote,) = jar.named("bj-zygote")
    with jar.listening() as listener:
        os.kill(zygote, signal.SIGKILL)
        listener.until("PRESSURE", "jar")
        for name in ("subject", "observer", "god"):
            listener.until("THOUGHT", name)
        assert {p["pid"] for p in jar.status()["personas"]} == workers
        _, _, after = die_and_return(jar, listener, "subject", signal.SIGKILL)
    assert after["deaths"] == 1
    assert not alive(zygote)


def test_a_start_that_never_gets_ready_is_no_death_and_is_tried_again_with_growing_pauses(make_jar: MakeJar, tmp_path: Path) -> None:
    prompt = tmp_path / "long.md"
    prompt.write_text("You are SUBJECT and this goes on and on. " * 200)
    jar = make_jar(THREE.replace('name = "subject"', f'name = "subject"\nprompt = "{prompt}"')).start()
    jar.until_ready("observer", "god")
    with jar.listening() as listener:
        pauses = []
        for _ in range(3):
            state, _ = listener.until("STATE", "subject", lambda e: e.metadata["state"] == "backoff")
            pauses.append(state.metadata["retry_at"] - state.metadata["since"])
        listener.until("THOUGHT", "observer")
    subject = jar.persona("subject")
    assert subject["deaths"] == 0
    assert subject["life"] == 1
    assert subject["failed_starts"] >= 3
    assert deaths(jar, "subject") == []
    assert pauses == sorted(pauses)
    assert pauses[-1] > 1.5 * pauses[0]
    assert "prompt" in subject["reason"]
    assert "context" in subject["reason"]


def test_ready_says_when_the_newborn_ran_first_and_when_its_walls_stood(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    pid = jar.until_ready()["personas"][0]["pid"]
    with jar.listening() as listener:
        killed = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        ready, _ = listener.until("READY", "subject")
    assert killed < ready.metadata["born_ns"] < ready.metadata["walled_ns"] < time.monotonic_ns()
