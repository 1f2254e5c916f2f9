"""Each layer of the cap bites: a persona grown past it dies, by that layer and with the right cause, and its siblings think on."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from brainjar import ledger
from brainjar.isolation import cgroups, seccomp
from tests.system.conftest import THREE, MakeJar
from tests.system.harness import Jar, Listener, jar_groups, until
from tests.system.test_death import proc_status

MIB = 1 << 20
CONFIG = THREE.replace("[sampling]", '[watchdog]\ninterval = "1s"\n[sampling]').replace('pause = "50ms"', 'pause = "1h"')


def start(make_jar: MakeJar, tmp_path: Path, attack: str, *args: str, config: str = CONFIG) -> Jar:
    """A jar whose subject carries out `attack` under its first lease; it does not come back."""
    prompt = tmp_path / "attack.md"
    prompt.write_text(f"ATTACK {attack}\n")
    text = config.replace('name = "subject"', f'name = "subject"\nprompt = "{prompt}"')
    return make_jar(text, *args, program=(sys.executable, "-m", "tests.system.hostile")).start()


def death_of_subject(jar: Jar, listener: Listener) -> dict[str, Any]:
    """Its DEATH, which may have been before anybody listened; then the siblings go on thinking, and are unharmed."""
    until(lambda: ledger.read_deaths(jar.state_dir / "ledger.db", "subject"), why=jar.output)
    (death,) = [e["metadata"] for e in jar.ask("events", since=0)[1] if e["type"] == "DEATH" and e["sender_id"] == "subject"]
    listener.drain()
    for name in ("observer", "god"):
        listener.until("THOUGHT", name)
        assert jar.persona(name)["deaths"] == 0
    found: dict[str, Any] = death
    return found


def layers(persona: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in persona["memory"]["layers"]}


def test_the_first_layer_refuses_private_memory_past_the_cap(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = start(make_jar, tmp_path, "grow")
    with jar.listening() as listener:
        death = death_of_subject(jar, listener)
    assert death["cause"] == "cap-rlimit"
    assert death["evidence"]["rlimit_bytes"] == 128 * MIB
    assert 0 < death["tokens"] < 128, "the MiB that it got"


@pytest.mark.skipif(cgroups.survey().parent is None, reason=f"no cgroup can be had here: {cgroups.survey().why}")
def test_the_second_layer_counts_pages_whoever_made_them(make_jar: MakeJar, tmp_path: Path) -> None:
    """Pages copied from the zygote and the room for snapshots, which no rlimit counts; the watch is made to look away."""
    jar = start(make_jar, tmp_path, "swallow when told", "--set", "watchdog.interval=1h")
    jar.until_ready()
    with jar.listening() as listener:
        for senses in jar.named("bj-senses"):
            os.kill(senses, signal.SIGSTOP)
        (jar.state_dir / "minds" / "subject" / "go").touch()
        death = death_of_subject(jar, listener)
    assert (death["cause"], death["signal"]) == ("oom-cgroup", signal.SIGKILL)
    assert death["evidence"]["cgroup"]["killed"] >= 1
    assert death["evidence"]["cgroup"]["own_limit"] >= 1


def test_the_third_layer_sees_what_is_copied_on_write(make_jar: MakeJar, tmp_path: Path) -> None:
    """What it owns is past its cap, but within the room that its cgroup has for snapshots, and nothing that an rlimit counts."""
    jar = start(make_jar, tmp_path, "scribble", config=CONFIG.replace("128MiB", "100MiB"))
    with jar.listening() as listener:
        death = death_of_subject(jar, listener)
        _, events = jar.ask("events", since=0)
    assert (death["cause"], death["signal"], death["evidence"]["intent"]) == ("cap-watch", signal.SIGKILL, "cap")
    assert death["evidence"]["private_bytes"] > 100 * MIB
    (verdict,) = [e for e in events if e["type"] == "VERDICT"]
    (reading,) = verdict["metadata"]["readings"]
    assert reading["private_bytes"] > reading["cap_bytes"] == 100 * MIB
    assert verdict["seq"] < next(e["seq"] for e in events if e["type"] == "DEATH")


def test_every_layer_says_what_it_limits_and_whether_it_is_in_force(make_jar: MakeJar) -> None:
    jar = make_jar(CONFIG).start()
    jar.until_ready()
    until(lambda: all(layers(p)["watch"]["effective"] for p in jar.status()["personas"]))
    found = cgroups.survey() if not jar_groups(jar.state_dir) else None
    for persona in jar.status()["personas"]:
        cap = persona["memory"]["cap_bytes"]
        by_name = layers(persona)
        assert list(by_name) == ["rlimit", "cgroup", "watch"]
        assert by_name["rlimit"]["effective"] and by_name["rlimit"]["limit_bytes"] == cap
        assert by_name["watch"]["limit_bytes"] == cap
        assert 0 < by_name["watch"]["used_bytes"] == persona["memory"]["private_bytes"] < cap
        cgroup = by_name["cgroup"]
        if cgroup["effective"]:
            assert cgroup["limit_bytes"] >= cap
            assert 0 < cgroup["used_bytes"] < cgroup["limit_bytes"]
            assert in_a_group_of_its_own(persona["pid"], persona["name"])
        else:
            assert found is not None and cgroup["why"], "a layer that is not there is said"
        for layer in by_name.values():
            assert layer["counts"]
            assert layer["effective"] != bool(layer["why"])


def in_a_group_of_its_own(pid: int, name: str) -> bool:
    return any(line.endswith(f"/persona-{name}") for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())


def test_a_layer_that_cannot_be_had_is_not_claimed(make_jar: MakeJar) -> None:
    """The exact reader is killed and cannot come back: the watch is blind, says so, and nothing else changes."""
    jar = make_jar(CONFIG).start()
    jar.until_ready()
    until(lambda: all(layers(p)["watch"]["effective"] for p in jar.status()["personas"]))
    (senses,) = jar.named("bj-senses")
    with jar.listening() as listener:
        os.kill(senses, signal.SIGSTOP)  # it hangs, as on a driver
        until(lambda: not any(layers(p)["watch"]["effective"] for p in jar.status()["personas"]), why="a hanging reader is ended")
        for persona in jar.status()["personas"]:
            assert layers(persona)["watch"]["why"]
        listener.until("THOUGHT", "subject")
        until(lambda: all(layers(p)["watch"]["effective"] for p in jar.status()["personas"]), why="and replaced")
    assert sum(p["deaths"] for p in jar.status()["personas"]) == 0


def test_the_death_of_the_zygote_kills_nobody_by_the_watch(make_jar: MakeJar) -> None:
    """Its weights, 95 MiB, become private to the last who share them; with caps of little more than that, all would be past theirs."""
    jar = make_jar(CONFIG, "--set", "persona.subject.memory=100MiB").start()
    before = {p["name"]: p["pid"] for p in jar.until_ready()["personas"]}
    until(lambda: all(layers(p)["watch"]["effective"] for p in jar.status()["personas"]))
    (zygote,) = jar.named("bj-zygote")
    with jar.listening() as listener:
        os.kill(zygote, signal.SIGKILL)
        for name in ("observer", "god"):
            os.kill(before[name], signal.SIGKILL)  # the last sharers but one
            listener.until("DEATH", name)
        for _ in range(4):
            listener.until("HEARTBEAT", "subject")
        listener.until("THOUGHT", "subject")
    subject = jar.persona("subject")
    assert (subject["pid"], subject["deaths"]) == (before["subject"], 0)


def test_a_worker_has_no_capability_gives_way_and_dies_first(make_jar: MakeJar) -> None:
    extra = 'nice = 7\nionice = "idle"\noom_score_adj = 800\n'
    jar = make_jar(CONFIG.replace('name = "subject"\n', f'name = "subject"\n{extra}')).start()
    status = jar.until_ready()
    scores = {}
    for persona in status["personas"]:
        proc = proc_status(persona["pid"])
        assert [int(proc[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
        assert proc["NoNewPrivs"] == "1"
        assert (proc["Seccomp"] == "2") == seccomp.supported()
        assert proc_limit(persona["pid"], "Max file size") == 1 << 30
        assert proc_limit(persona["pid"], "Max core file size") == 0
        scores[persona["name"]] = int(Path(f"/proc/{persona['pid']}/oom_score_adj").read_text())
    subject = next(p for p in status["personas"] if p["name"] == "subject")
    assert os.getpriority(os.PRIO_PROCESS, subject["pid"]) == 7
    assert scores == {"subject": 800, "observer": 500, "god": 500}
    (zygote,) = jar.named("bj-zygote")
    (helper,) = jar.named("bj-senses")
    own, helps, loads = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (jar.pid, helper, zygote))
    assert max(own, 0) < helps < loads < 500, "workers first, the supervisor last"
    assert oom_score(jar.pid) < oom_score(helper) < oom_score(zygote) < oom_score(subject["pid"]), "as the kernel counts"


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score").read_text())


def proc_limit(pid: int, name: str) -> int:
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith(name))
    hard = line[len(name) :].split()[1]
    return resource.RLIM_INFINITY if hard == "unlimited" else int(hard)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each persona a uid of its own")
def test_each_persona_has_a_uid_of_its_own_and_keeps_it(make_jar: MakeJar) -> None:
    jar = make_jar(CONFIG).start()
    uids = {p["name"]: int(proc_status(p["pid"])["Uid"].split()[0]) for p in jar.until_ready()["personas"]}
    assert len(set(uids.values())) == 3
    assert 0 not in uids.values()
    for name, uid in uids.items():
        mind = jar.state_dir / "minds" / name
        assert {path.stat().st_uid for path in [mind, *mind.iterdir()]} == {uid}
        assert proc_status(jar.persona(name)["pid"])["Groups"] == ""
    assert jar.stop() == 0
    jar.start()
    assert uids == {p["name"]: int(proc_status(p["pid"])["Uid"].split()[0]) for p in jar.until_ready()["personas"]}
    assert jar.stop() == 0
    same = make_jar(CONFIG, *(f"--set=persona.{name}.sandbox.user=same" for name in uids)).start()
    with same.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert {proc_status(p["pid"])["Uid"].split()[0] for p in same.status()["personas"]} == {"0"}
    (wall,) = [w for w in same.persona("subject")["sandbox"] if w["name"] == "user"]
    assert not wall["effective"] and "same" in wall["how"]


def test_a_stopped_jar_leaves_no_cgroup(make_jar: MakeJar) -> None:
    jar = make_jar(CONFIG).start()
    jar.until_ready()
    made = jar_groups(jar.state_dir)
    assert jar.stop() == 0
    assert jar_groups(jar.state_dir) == []
    if not made:
        pytest.skip(f"this jar made no group of its own here: {cgroups.survey().why or 'its own was divided'}")


@pytest.mark.skipif(cgroups.survey().version != "v1", reason="groups of the jar's own making are known by name on v1 alone")
def test_the_groups_of_a_killed_supervisor_are_cleared_away_by_the_next(make_jar: MakeJar) -> None:
    jar = make_jar(CONFIG).start()
    jar.until_ready()
    (group,) = jar_groups(jar.state_dir)
    (group / "persona-somebody-of-an-older-config").mkdir()
    assert jar.process is not None
    jar.process.kill()
    jar.process.wait()
    jar.start()
    jar.until_ready()
    assert sorted(path.name for path in group.iterdir() if path.is_dir()) == ["persona-god", "persona-observer", "persona-subject"]
    assert jar.stop() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two who think at once need two CPUs")
def test_who_think_at_once_have_cpus_of_their_own(make_jar: MakeJar) -> None:
    jar = make_jar(CONFIG, "--set", "inference.max_concurrent=2").start()
    jar.until_ready()
    together = 0
    with jar.listening() as listener:
        for _ in range(30):
            listener.until("TOKEN")
            status = jar.status()
            held = [p["cpus"] for p in status["personas"] if p["name"] in status["lease"]]
            cpus = [cpu for one in held for cpu in one]
            assert len(cpus) == len(set(cpus)), "two on one CPU"
            assert sum(p["threads"] for p in status["personas"] if p["name"] in status["lease"]) <= len(os.sched_getaffinity(0))
            together += len(held) == 2
        for name in ("subject", "observer", "god"):
            listener.until("THOUGHT", name)
    assert together, "they do think at once"
