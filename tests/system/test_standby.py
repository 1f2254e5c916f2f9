"""`restart.standby`: the next life is there already, behind its walls and with the newest context, and a death only releases it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import lab
from brainjar import ledger, minds
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, Listener, alive, brainjar, until
from tests.system.test_death import proc_status, told

STANDBY = "restart.standby=true"


def standby_of(jar: Jar, name: str = "subject", but: int = 0) -> int:
    """Wait until one waits, another than `but`; its pid."""
    found: int = until(lambda: (pid := jar.persona(name)["standby_pid"]) != but and pid, why=jar.output)
    return found


def limits(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


def private(pid: int) -> int:
    fields = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(field[1]) * 1024 for field in fields if field[0] in ("Private_Clean:", "Private_Dirty:"))


def killed(jar: Jar, listener: Listener, name: str = "subject") -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill its worker; what READY and DEATH said."""
    os.kill(jar.persona(name)["pid"], signal.SIGKILL)
    death, _ = listener.until("DEATH", name)
    ready, _ = listener.until("READY", name)
    return ready.metadata, death.metadata


def test_it_waits_behind_the_same_walls_and_is_the_next_life(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", STANDBY).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        waiting = {name: standby_of(jar, name) for name in ("subject", "observer", "god")}
        assert f"next lives that wait: subject (pid {waiting['subject']}), observer" in jar.brainjar("status").stdout
        before = jar.persona("subject")
        living, waits = proc_status(before["pid"]), proc_status(waiting["subject"])
        assert int(waits["PPid"]) == jar.pid and os.getsid(waiting["subject"]) == waiting["subject"]
        for wall in ("Uid", "Gid", "CapBnd", "CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed"):
            assert waits[wall] == living[wall], wall
        assert [limits(waiting["subject"]).splitlines()[i] for i in (3, 6, 7)] == [limits(before["pid"]).splitlines()[i] for i in (3, 6, 7)]
        assert os.readlink(f"/proc/{waiting['subject']}/ns/net") != os.readlink("/proc/self/ns/net")
        planned = json.loads(brainjar("plan", "--config", str(jar.config), "--set", STANDBY, "--json").stdout)["personas"]
        for row in planned:
            owns = private(waiting[row["name"]])
            assert 1 << 20 < owns <= row["standby_bytes"], f"{row['name']}'s has {owns} bytes of its own"
        ready, death = killed(jar, listener)
        assert (ready["pid"], death["pid"]) == (waiting["subject"], before["pid"])
        listener.until("THOUGHT", "subject")
        after = jar.persona("subject")
        assert (after["life"], after["deaths"], after["birth"]) == (2, 1, before["birth"] + 1)
        assert len(told(jar, "subject")) == 1, "it was told of its death, once"
        assert standby_of(jar, but=waiting["subject"]) not in waiting.values()
        assert {name: jar.persona(name)["standby_pid"] for name in ("observer", "god")} == {n: waiting[n] for n in ("observer", "god")}
    assert [d.life for d in ledger.read_deaths(jar.state_dir / "ledger.db")] == [1]
    everybody = jar.descendants()
    assert jar.stop() == 0
    assert not any(alive(pid) for pid in everybody)


def test_what_it_is_told_of_its_death_was_read_while_the_last_life_lived(make_jar: MakeJar) -> None:
    """The guess is that it dies as it died last; the context that is left then ends with what it will be told."""
    jar = make_jar(ALONE, "--set", STANDBY, "--set", "sampling.max_tokens=8").start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        for _ in range(2):
            pid = standby_of(jar)
            killed(jar, listener)
            for _ in range(3):
                listener.until("THOUGHT", "subject")
            standby_of(jar, but=pid)
        os.kill(jar.persona("subject")["pid"], signal.SIGSTOP)  # or it would leave another while this one is looked at
        with lab.left_of(jar, "subject") as snapshots:  # it may stand between a new one and the end of the one before
            meta = snapshots.peek()
        ready, death = killed(jar, listener)
    assert meta is not None
    assert death["cause"] == "killed" and ready["restored_from"] == "memory"
    assert ready["restored_tokens"] == len(meta.ahead) > len(meta.tokens), "more than was said: what it is told now is among it"


def test_one_that_is_killed_is_replaced_and_was_nobodys_life(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set", STANDBY).start()
    jar.until_ready()
    with jar.listening() as listener:
        first = standby_of(jar)
        os.kill(first, signal.SIGKILL)
        second = standby_of(jar, but=first)
        assert not alive(first) and alive(second)
        assert jar.persona("subject")["deaths"] == 0
        ready, _ = killed(jar, listener)
        assert ready["pid"] == second
        # both at once: the long way, and no failed start
        third = standby_of(jar, but=second)
        os.kill(jar.pid, signal.SIGSTOP)
        for pid in (third, second):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(third) and not alive(second))
        os.kill(jar.pid, signal.SIGCONT)
        again, _ = listener.until("READY", "subject", lambda e: e.life == 3)
        assert again.metadata["pid"] not in (first, second, third) and again.metadata["restored_tokens"] > 0
    rows = ledger.read_deaths(jar.state_dir / "ledger.db")
    assert [d.life for d in rows] == [1, 2]
    assert jar.stop() == 0


def test_deaths_that_follow_each_other_at_once_all_count(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set", STANDBY, "--set", "restart.pause=0s").start()
    jar.until_ready()
    with jar.listening() as listener:
        standby_of(jar)
        for life in range(1, 6):
            os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
            listener.until("READY", "subject", lambda e, life=life: e.life == life + 1)  # type: ignore[misc]
        listener.until("THOUGHT", "subject")
    assert [d.life for d in ledger.read_deaths(jar.state_dir / "ledger.db")] == [1, 2, 3, 4, 5]


def test_a_stop_of_one_or_of_all_leaves_none(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", STANDBY).start()
    jar.until_ready()
    waiting = {name: standby_of(jar, name) for name in ("subject", "observer", "god")}
    assert jar.brainjar("stop", "subject").returncode == 0
    until(lambda: not alive(waiting["subject"]))
    assert jar.persona("subject")["standby_pid"] is None and alive(waiting["god"])
    assert jar.brainjar("restart", "subject").returncode == 0
    again = standby_of(jar)
    assert jar.brainjar("restart", "subject").returncode == 0
    assert standby_of(jar, but=again) != again and not alive(again)
    everybody = jar.descendants()
    assert jar.stop() == 0
    assert not any(alive(pid) for pid in everybody)


def test_a_supervisor_that_is_killed_takes_them_along(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", STANDBY).start()
    jar.until_ready()
    waiting = [standby_of(jar, name) for name in ("subject", "observer", "god")]
    assert jar.process is not None
    jar.process.kill()
    jar.process.wait()
    for pid in waiting:
        until(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_it_serves_a_death_while_there_is_no_zygote(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set", STANDBY, "--set", "restart.pause=0s").start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        waits, worker = standby_of(jar), jar.persona("subject")["pid"]
        (zygote,) = jar.named("bj-zygote")
        os.kill(zygote, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        ready, before = listener.until("READY", "subject")
        assert ready.metadata["pid"] == waits and ready.metadata["restored_tokens"] > 0
        assert not [e for e in before if e.type == "DEATH" and e.metadata["pid"] != worker]
        listener.until("THOUGHT", "subject")
        standby_of(jar, but=waits)  # of the zygote that came after
    assert jar.stop() == 0


HASTY = (
    "import sys; from brainjar.supervisor import keeper; keeper.START_S = 3.0;"
    " from brainjar.cli import main; sys.exit(main.main(sys.argv[1:]))"
)


def test_one_that_is_stopped_in_its_tracks_holds_nobody_up_for_ever(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE, "--set", STANDBY, program=(sys.executable, "-c", HASTY)).start()
    jar.until_ready()
    with jar.listening() as listener:
        waits = standby_of(jar)
        os.kill(waits, signal.SIGSTOP)
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        ready, _ = listener.until("READY", "subject", lambda e: e.life == 2)
        assert ready.metadata["pid"] != waits and not alive(waits)
        listener.until("THOUGHT", "subject")
    assert jar.persona("subject")["deaths"] == 1
    assert jar.stop() == 0


def test_a_mind_goes_on_as_if_nothing_had_been_read_ahead(make_jar: MakeJar) -> None:
    """Greedy: what it thinks in one life is the same with and without."""
    thoughts: dict[str, list[str]] = {}
    for standby in ("true", "false"):
        jar = make_jar(ALONE.replace("seed = 7", "temperature = 0"), "--set", f"restart.standby={standby}", name=standby).start()
        jar.until_ready()
        with jar.listening() as listener:
            while len(thoughts.setdefault(standby, [])) < 3:
                listener.until("THOUGHT", "subject")
                lines = minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db")
                thoughts[standby] = [line.content for line in lines if line.kind == "thought"][:3]
        assert jar.stop() == 0
    assert thoughts["true"] == thoughts["false"]
