"""The shipped unit in a real systemd: ready, watched, ended and started again, and what it leaves."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar import paths, unitfile
from tests.patience import EMULATED
from tests.system import nested
from tests.system.conftest import ALONE, THREE
from tests.system.harness import alive, until
from tests.system.nested import Machine, Manager, Nested

pytestmark = pytest.mark.skipif(bool(nested.why_not()), reason=nested.why_not() or "-")
CONFIG = "/etc/brainjar/brainjar.toml"
WATCHDOG_S = 20 if EMULATED else 3
"""Short, and long enough for a machine that is emulated."""
QUOTA = 0.8 if EMULATED else 0.3
"""Of a core. It computes all the time, so that a whole one is what it would take; on one that is emulated it starts slowly enough."""
TOP = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "brainjar"
PYTHON = f"{sys.executable} -m brainjar"


def dropin(*more: str, instance: bool = False) -> str:
    """What lets the unit run a brainjar that lies in a checkout, with models there: it sees those, read-only, and nothing else of them."""
    seen = dict.fromkeys((sys.base_prefix, str(TOP), str(paths.models_dir()), sys.prefix))
    tmp = any(path.startswith(("/tmp/", "/var/tmp/")) for path in seen)
    lines = [
        "[Service]",
        "ExecStart=",
        f"ExecStart={PYTHON} supervise --config {'/etc/brainjar/%i.toml' if instance else CONFIG}",
        "ExecReload=",
        f"ExecReload={PYTHON} reload --state-dir ${{STATE_DIRECTORY}}",
        f"Environment=PYTHONPATH={TOP}",
        "ProtectHome=tmpfs",
        f"PrivateTmp={'no' if tmp else 'yes'}",
        f"Environment=BRAINJAR_MODELS={paths.models_dir()}",
    ]
    return "\n".join([*lines, *(f"BindReadOnlyPaths={path}" for path in seen), "RestartSec=100ms", *more, ""])


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    if not nested.ON_A_MACHINE and (reason := nested.refused()):
        pytest.skip(reason)
    made = Machine() if nested.ON_A_MACHINE else Nested(tmp_path_factory.mktemp("nested"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Unit:
    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.name = "brainjar.service"

    def start(self, config: str = THREE, *more: str) -> None:
        shipped = (paths.systemd_dir() / "brainjar.service").read_text()
        self.manager.install(self.name, unitfile.render(shipped, unitfile.Wanted(program=str(PROGRAM), config=CONFIG)))
        self.manager.install(f"{self.name}.d/test.conf", dropin(*more))
        self.configure(config)
        if self.manager.code("systemctl", "start", self.name):
            raise AssertionError(self.manager.journal("-u", self.name, "-o", "cat")[-3000:])

    def configure(self, text: str) -> None:
        self.manager.run("bash", "-c", 'mkdir -p /etc/brainjar; printf %s "$1" >"$0"', CONFIG, text)

    def show(self, key: str) -> str:
        return self.manager.show(self.name).get(key, "")

    def brainjar(self, *argv: str) -> str:
        """As root in there, who may speak to any jar."""
        environment = [f"PYTHONPATH={TOP}", "PYTHONSAFEPATH=1"]
        named = () if "--jar" in argv else ("--state-dir", "/var/lib/brainjar")  # there may be other jars on this machine
        return self.manager.run("env", *environment, sys.executable, "-m", "brainjar", *argv, *named)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.brainjar("status", "--json"))
        return found

    def persona(self, name: str) -> dict[str, Any]:
        return next(one for one in self.status()["personas"] if one["name"] == name)

    def end(self) -> None:
        self.manager.run("systemctl", "stop", self.name, check=False)
        self.manager.run("systemctl", "reset-failed", self.name, check=False)
        self.manager.run("bash", "-c", "rm -rf /var/lib/private/brainjar /var/lib/brainjar /etc/brainjar")


@pytest.fixture
def unit(manager: Manager) -> Iterator[Unit]:
    one = Unit(manager)
    yield one
    one.end()


def pids_in(manager: Manager, unit: str) -> list[int]:
    """Of its control group and those below, as this process numbers them."""
    return manager.pids(manager.show(unit)["ControlGroup"])


def test_it_is_ready_when_its_minds_are_and_a_death_is_no_failure(unit: Unit) -> None:
    unit.start()
    assert unit.show("ActiveState") == "active", "Type=notify: start returns when it is ready"
    assert [one["state"] in ("ready", "thinking") for one in unit.status()["personas"]] == [True] * 3
    assert unit.show("StatusText").startswith("3/3 live, ") and "0 deaths" in unit.show("StatusText")
    assert unit.show("MainPID") != "0" and unit.show("NRestarts") == "0"
    unit.brainjar("kill", "subject")
    until(lambda: unit.persona("subject")["life"] == 2, why="it lives again")
    until(lambda: "1 deaths" in unit.show("StatusText"), why=lambda: unit.show("StatusText"))
    assert unit.show("ActiveState") == "active" and unit.show("NRestarts") == "0"
    # the journal knows who, how often and of what
    entries = [json.loads(line) for line in unit.manager.journal("-o", "json", "BRAINJAR_EVENT=DEATH").splitlines()]
    assert [(one["BRAINJAR_PERSONA"], one["BRAINJAR_LIFE"], one["BRAINJAR_CAUSE"], one["PRIORITY"]) for one in entries] == [
        ("subject", "1", "killed-by-operator", "4")
    ]
    assert "subject died in life 1" in entries[0]["MESSAGE"] and entries[0]["_SYSTEMD_UNIT"] == unit.name
    assert len(unit.manager.journal("-o", "cat", "-u", unit.name, "BRAINJAR_EVENT=READY").splitlines()) >= 3
    # the walls of the personas stand inside the unit's
    for persona in unit.status()["personas"]:
        guards = {guard["name"]: guard["effective"] for guard in persona["sandbox"]}
        assert {"capabilities", "network", "files", "processes"} <= {name for name, stands in guards.items() if stands}, persona["sandbox"]
    pids = pids_in(unit.manager, unit.name)
    assert len(pids) >= 5
    unit.manager.run("systemctl", "stop", unit.name)
    assert unit.show("Result") == "success" and not any(alive(pid) for pid in pids)


def test_a_reload_is_waited_for_and_one_that_cannot_be_fails(unit: Unit) -> None:
    unit.start()
    pid = unit.show("MainPID")
    unit.configure(THREE + '[[persona]]\nname = "fourth"\nrole = "subject"\nmemory = "128MiB"\n')
    unit.manager.run("systemctl", "reload", unit.name)
    assert [one["name"] for one in unit.status()["personas"]] == ["subject", "observer", "god", "fourth"]
    unit.configure("[jar]\nname = 3\n")
    assert unit.manager.code("systemctl", "reload", unit.name) != 0
    assert unit.show("ActiveState") == "active" and unit.show("MainPID") == pid
    assert sum(one["deaths"] for one in unit.status()["personas"]) == 0


def test_a_supervisor_that_hangs_is_replaced_and_nothing_is_lost(unit: Unit) -> None:
    unit.start(THREE, f"WatchdogSec={WATCHDOG_S}s", "TimeoutAbortSec=1s")
    before = int(unit.show("MainPID"))
    time.sleep(WATCHDOG_S + 1.0)
    assert int(unit.show("MainPID")) == before and unit.show("NRestarts") == "0", "it is heard of in time"
    unit.brainjar("kill", "god")
    until(lambda: unit.persona("god")["life"] == 2, why="it lives again")
    thoughts = unit.brainjar("thoughts", "--json").splitlines()
    pids = pids_in(unit.manager, unit.name)
    unit.manager.run("kill", "-STOP", str(before))
    until(lambda: unit.show("NRestarts") == "1" and unit.show("ActiveState") == "active", why=lambda: unit.manager.show(unit.name))
    assert "Failed with result 'watchdog'" in unit.manager.journal("-u", unit.name, "-o", "cat")
    assert not any(alive(pid) for pid in pids), "nobody of before lives on"
    assert unit.persona("god")["deaths"] == 2 and {one["deaths"] for one in unit.status()["personas"]} == {1, 2}
    after = unit.brainjar("thoughts", "--json").splitlines()
    assert thoughts and set(thoughts) <= set(after), "what was thought is there"


def test_the_dashboard_serves_inside_the_unit(unit: Unit) -> None:
    unit.start(THREE + "[web]\nenabled = true\n")
    until(lambda: unit.status()["web"]["serves"], why=lambda: unit.status()["web"])
    asks = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8095/readyz').read().decode())"
    assert unit.manager.run(sys.executable, "-c", asks).strip() == "ok", "it may ask the jar"
    unit.manager.run("systemctl", "stop", unit.name)
    assert unit.show("Result") == "success"


def test_an_upgrade_is_no_restart_and_the_watchdog_goes_on(unit: Unit) -> None:
    unit.start(THREE, f"WatchdogSec={WATCHDOG_S}s")
    pid, births = unit.show("MainPID"), [one["birth"] for one in unit.status()["personas"]]
    assert "upgraded from" in unit.brainjar("upgrade")
    time.sleep(WATCHDOG_S + 2.0)
    assert (unit.show("ActiveState"), unit.show("NRestarts"), unit.show("MainPID")) == ("active", "0", pid)
    assert [one["birth"] for one in unit.status()["personas"]] == births
    unit.manager.run("systemctl", "reload", unit.name)
    assert unit.show("StatusText").startswith("3/3 live")


def test_a_supervisor_that_is_killed_is_started_again_and_leaves_nothing(unit: Unit) -> None:
    unit.start()
    pids = pids_in(unit.manager, unit.name)
    unit.manager.run("systemctl", "kill", "--kill-who=main", "-s", "KILL", unit.name)
    until(lambda: unit.show("NRestarts") == "1" and unit.show("ActiveState") == "active", why=lambda: unit.manager.show(unit.name))
    assert not any(alive(pid) for pid in pids)
    assert {one["deaths"] for one in unit.status()["personas"]} == {1}
    deaths = [json.loads(line)["cause"] for line in unit.brainjar("deaths", "--json").splitlines()]
    assert set(deaths) == {"supervisor-lost"}


def test_what_can_never_work_is_not_tried_again(unit: Unit) -> None:
    with pytest.raises(AssertionError):
        unit.start("[jar]\nname = 3\n")
    assert unit.show("ActiveState") == "failed" and unit.show("ExecMainStatus") == "2" and unit.show("NRestarts") == "0"
    assert "jar.name" in unit.manager.journal("-u", unit.name, "-o", "cat")
    with pytest.raises(AssertionError):
        unit.start(THREE, "MemoryMax=120M")
    assert unit.show("ActiveState") != "active"
    assert "allows 120 MiB" in unit.manager.journal("-u", unit.name, "-o", "cat"), "what it would need, and what to change"


def test_a_hostile_worker_gains_nothing_inside_the_unit(unit: Unit) -> None:
    """The walls of a persona are built of what the unit's hardening leaves: none of them may be missing for it."""
    run = f"{sys.executable} -m tests.system.hostile supervise --config {CONFIG}"
    for attack in ("lift", "look", "others", "network"):
        text = THREE.replace('name = "subject"', 'name = "subject"\nprompt = "/etc/brainjar/attack.md"\nrole = "subject"')
        unit.manager.run(
            "bash", "-c", 'mkdir -p /etc/brainjar; printf %s "$0" >/etc/brainjar/attack.md', f"---\nfirst = '1'\n---\nATTACK {attack}\n"
        )
        unit.start(text, "ExecStart=", f"ExecStart={run}")
        matches = ("BRAINJAR_EVENT=THOUGHT", "BRAINJAR_PERSONA=subject", f"_PID={unit.show('MainPID')}")
        found = until(lambda matches=matches: unit.manager.journal("-o", "json", *matches).splitlines(), why=attack)  # type: ignore[misc]
        assert json.loads(found[0])["MESSAGE"] == "subject: {}", attack
        assert {one["deaths"] for one in unit.status()["personas"]} == {0}
        unit.manager.run("systemctl", "stop", unit.name)
        unit.manager.run("bash", "-c", "rm -rf /var/lib/private/brainjar")


def test_the_cpu_that_the_whole_may_have_is_all_that_it_gets(unit: Unit) -> None:
    unit.start(THREE, f"CPUQuota={100 * QUOTA:.0f}%")

    def used_s() -> float:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids_in(unit.manager, unit.name)]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    began, used = time.monotonic(), used_s()
    time.sleep(5.0)
    share = (used_s() - used) / (time.monotonic() - began)
    assert 0.05 < share < 1.2 * QUOTA, share
    assert unit.show("ActiveState") == "active"


def test_what_install_writes_starts_and_what_uninstall_leaves_is_what_was_thought(manager: Manager, unit: Unit) -> None:
    if not PROGRAM.exists():
        pytest.skip(f"no command brainjar beside {sys.executable}")
    environment = ("env", f"PYTHONPATH={TOP}", "PYTHONSAFEPATH=1", f"BRAINJAR_MODELS={paths.models_dir()}", str(PROGRAM), "systemd")
    refused = manager.run(*environment, "install", "--dry-run", check=False)
    unit.configure(THREE)
    if "write: /etc/systemd/system/brainjar.service" not in refused:
        pytest.skip("the interpreter of this test lies where other users may not go: that is refused, as it should be")
    manager.install("brainjar.service.d/test.conf", dropin())
    (manager.units / unit.name).unlink(missing_ok=True)  # of an earlier test
    shown = manager.run(*environment, "install", "--now", "--yes")
    assert "written: /etc/systemd/system/brainjar.service" in shown
    assert unit.show("ActiveState") == "active" and unit.show("UnitFileState") == "enabled"
    manager.run("systemctl", "stop", unit.name)
    manager.run("systemctl", "start", "multi-user.target")
    until(lambda: unit.show("ActiveState") == "active", why="what the machine starts at its boot starts it")
    memory = unit.show("MemoryMax")
    assert 100 << 20 < int(memory) < 4 << 30, "what the config needs, and not a share of the machine"
    assert "is as it is to be" in manager.run(*environment, "install")
    manager.run(*environment, "uninstall", "--yes")
    assert unit.show("ActiveState") == "inactive"
    assert manager.code("test", "-e", "/etc/systemd/system/brainjar.service") == 1
    assert manager.code("test", "-s", "/var/lib/private/brainjar/ledger.db") == 0 and manager.code("test", "-s", CONFIG) == 0


def test_two_jars_live_beside_each_other(manager: Manager, unit: Unit) -> None:
    shipped = (paths.systemd_dir() / "brainjar.service").read_text()
    manager.install("brainjar@.service", unitfile.render(shipped, unitfile.Wanted(program=str(PROGRAM), config=CONFIG, instance=True)))
    manager.install("brainjar@.service.d/test.conf", dropin(instance=True))
    names = ("one", "two")
    try:
        for name in names:
            text = ALONE.replace('name = "test"', f'name = "{name}"')
            manager.run("bash", "-c", 'mkdir -p /etc/brainjar; printf %s "$1" >"$0"', f"/etc/brainjar/{name}.toml", text)
            manager.run("systemctl", "start", f"brainjar@{name}.service")
        for name in names:
            assert json.loads(unit.brainjar("status", "--json", "--jar", name))["jar"] == name
            assert manager.show(f"brainjar@{name}.service")["StatusText"].startswith("1/1 live")
        unit.brainjar("kill", "subject", "--jar", "one")
        found = {name: json.loads(unit.brainjar("status", "--json", "--jar", name))["personas"][0]["deaths"] for name in names}
        assert found == {"one": 1, "two": 0}
    finally:
        for name in names:
            manager.run("systemctl", "stop", f"brainjar@{name}.service", check=False)
        manager.run("bash", "-c", "rm -rf /var/lib/private/brainjar-jars")


# ── version 2 alone: groups for workers below a unit of nobody in particular ──

needs_v2 = pytest.mark.skipif(
    not nested.ON_A_MACHINE or (nested.CGROUPS / "memory").exists(),
    reason="needs a machine of its own with cgroup version 2 alone: make test-vm",
)


def group_of(unit: Unit, persona: str) -> Path:
    """Where its worker is."""
    path = Path(f"/proc/{unit.persona(persona)['pid']}/cgroup").read_text().rpartition("::")[2].strip()
    assert path.startswith(unit.show("ControlGroup") + "/"), path
    return nested.CGROUPS / path.lstrip("/")


def procs(group: Path) -> list[int]:
    """Pids of those in it."""
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


@needs_v2
def test_what_is_delegated_to_nobody_in_particular_holds_each_worker(unit: Unit) -> None:
    text = THREE.replace('name = "god"', 'name = "god"\ncpus = [0]\ncpu_quota = "50%"') + "[web]\nenabled = true\n"
    unit.start(text)
    group = group_of(unit, "god")
    assert (group / "cpuset.cpus").read_text().strip() == "0" and (group / "cpu.max").read_text().split()[0] != "max"
    assert int((group / "memory.max").read_text()) >= 160 << 20
    for one in unit.status()["personas"]:
        layers = {layer["name"]: layer["effective"] for layer in one["memory"]["layers"]}
        assert layers == {"rlimit": True, "cgroup": True, "watch": True}, one["memory"]
        assert {"threads"} <= {guard["name"] for guard in one["sandbox"] if guard["effective"]}
    # everybody else has a leaf too: the supervisor with its senses, the zygote, the dashboard
    top = nested.CGROUPS / unit.show("ControlGroup").lstrip("/")
    until(lambda: procs(top / "web") == [unit.status()["web"]["pid"]], why=lambda: unit.status()["web"])
    assert int((top / "web/memory.max").read_text()) == 256 << 20
    (zygote,) = top.glob("zygote-*")
    assert procs(zygote) == [int(zygote.name.removeprefix("zygote-"))]
    assert int(unit.show("MainPID")) in procs(top / "supervisor")
    (senses,) = (pid for pid in procs(top / "supervisor") if Path(f"/proc/{pid}/comm").read_text().strip() == "bj-senses")
    # the kernel is to wake the senses when the jar stands still for want of memory, and when the host does
    watched = {os.readlink(f"/proc/{senses}/fd/{name}") for name in os.listdir(f"/proc/{senses}/fd")}
    assert "/proc/pressure/memory" in watched
    handed_over = (top / "memory.pressure").stat().st_uid == Path(f"/proc/{senses}").stat().st_uid  # by systemd from 254 on
    assert (str(top / "memory.pressure") in watched) == handed_over


@needs_v2
def test_a_worker_over_its_own_limit_is_one_death_and_the_unit_stays(unit: Unit) -> None:
    unit.start()
    before = {one["name"]: one["pid"] for one in unit.status()["personas"]}
    (group_of(unit, "subject") / "memory.max").write_text(str(4 << 20))  # as if it had taken all of its own
    until(lambda: unit.persona("subject")["deaths"] >= 1, why="it dies of that")
    assert json.loads(unit.brainjar("deaths", "--json").splitlines()[0])["cause"] == "oom-cgroup"
    assert (unit.show("ActiveState"), unit.show("Result"), unit.show("NRestarts")) == ("active", "success", "0")
    after = {one["name"]: one for one in unit.status()["personas"]}
    for name in ("observer", "god"):
        assert after[name]["pid"] == before[name] and after[name]["deaths"] == 0


@needs_v2
def test_the_whole_over_its_limit_is_ended_and_comes_back_with_nothing_lost(unit: Unit) -> None:
    unit.start(THREE, "RestartSec=2s")
    until(lambda: unit.brainjar("thoughts", "--json").splitlines(), why="somebody has thought")
    unit.brainjar("kill", "god")
    until(lambda: unit.persona("god")["life"] == 2, why="it lives again")
    thoughts = set(unit.brainjar("thoughts", "--json").splitlines())
    limit = nested.CGROUPS / unit.show("ControlGroup").lstrip("/") / "memory.max"
    limit.write_text(str(8 << 20))  # no worker's group is over its own: the unit's is
    until(lambda: unit.show("NRestarts") != "0" and unit.show("ActiveState") == "active", why=lambda: unit.manager.show(unit.name))
    # with OOMPolicy=continue the result is that of the main process, which was killed; who did it is said beside it
    assert "killed by the OOM killer" in unit.manager.journal("-u", unit.name, "-o", "cat")
    assert unit.persona("god")["deaths"] >= 2 and thoughts <= set(unit.brainjar("thoughts", "--json").splitlines())


@needs_v2
def test_a_users_own_systemd_keeps_a_jar_in_groups_of_its_own(manager: Manager) -> None:
    user = pwd.getpwnam("tester")  # of the guest
    environment = (f"XDG_RUNTIME_DIR=/run/user/{user.pw_uid}", f"PYTHONPATH={TOP}", "PYTHONSAFEPATH=1")
    theirs = ("runuser", "-u", user.pw_name, "--", "env", f"HOME={user.pw_dir}", *environment)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(manager.run(*theirs, sys.executable, "-m", "brainjar", "status", "--json"))
        return found

    def write(path: str, text: str) -> None:
        manager.run(*theirs, "bash", "-c", 'mkdir -p "$(dirname "$0")"; printf %s "$1" >"$0"', f"{user.pw_dir}/.config/{path}", text)

    def show(key: str) -> str:
        return manager.run(*theirs, "systemctl", "--user", "show", "-P", key, "brainjar").strip()

    manager.run("loginctl", "enable-linger", user.pw_name)
    try:
        until(lambda: manager.code(*theirs, "systemctl", "--user", "show-environment") == 0, why="their systemd is there")
        write("systemd/user/brainjar.service", (paths.systemd_dir() / "brainjar-user.service").read_text())
        lines = [
            "[Service]",
            "ExecStart=",
            f"ExecStart={PYTHON} supervise --config %h/.config/brainjar/brainjar.toml",
            f"Environment=PYTHONPATH={TOP} BRAINJAR_MODELS={paths.models_dir()}",
        ]
        write("systemd/user/brainjar.service.d/x.conf", "\n".join([*lines, ""]))
        write("brainjar/brainjar.toml", THREE)
        manager.run(*theirs, "systemctl", "--user", "daemon-reload")
        manager.run(*theirs, "systemctl", "--user", "start", "brainjar")
        assert show("ActiveState") == "active" and show("StatusText").startswith("3/3 live, ")
        group = show("ControlGroup")
        assert f"user@{user.pw_uid}.service" in group
        for one in status()["personas"]:
            where = Path(f"/proc/{one['pid']}/cgroup").read_text().rpartition("::")[2].strip()
            assert where == f"{group}/persona-{one['name']}"
            assert int((nested.CGROUPS / where.lstrip("/") / "memory.max").read_text()) >= 128 << 20
            assert {layer["name"]: layer["effective"] for layer in one["memory"]["layers"]}["cgroup"], one["memory"]
        manager.run(*theirs, sys.executable, "-m", "brainjar", "kill", "subject")
        until(lambda: next(one["life"] for one in status()["personas"] if one["name"] == "subject") == 2, why="it lives again")
        assert (show("ActiveState"), show("NRestarts")) == ("active", "0")
        pids = manager.pids(group)
        manager.run(*theirs, "systemctl", "--user", "stop", "brainjar")
        assert show("Result") == "success" and len(pids) >= 5 and not any(alive(pid) for pid in pids)
    finally:
        manager.run(*theirs, "systemctl", "--user", "stop", "brainjar", check=False)
        manager.run("loginctl", "disable-linger", user.pw_name)
        made = (".config/systemd", ".config/brainjar", ".local/state/brainjar")
        manager.run(*theirs, "rm", "-rf", *(f"{user.pw_dir}/{path}" for path in made))


DROP_INS = sorted(path.stem for path in (paths.systemd_dir() / "drop-ins").glob("*.conf"))


@pytest.mark.parametrize(
    ("name", "drop_in", "most"),
    [("brainjar.service", "", 25), ("brainjar@.service", "", 25), ("brainjar-user.service", "", None)]
    + [("brainjar.service", drop_in, 25) for drop_in in DROP_INS],
)
def test_every_shipped_unit_is_clean_and_exposed_little(tmp_path: Path, name: str, drop_in: str, most: int | None) -> None:
    """By systemd-analyze of this host's version; `most` in tenths."""
    file = tmp_path / name.replace("@", "@x")
    program = PROGRAM if PROGRAM.exists() else Path(sys.executable)  # any that is there
    file.write_text((paths.systemd_dir() / name).read_text().replace(unitfile.PROGRAM, str(program)))
    if drop_in:
        (tmp_path / f"{name}.d").mkdir()
        (tmp_path / f"{name}.d" / "x.conf").write_text((paths.systemd_dir() / "drop-ins" / f"{drop_in}.conf").read_text())
    argv = ["systemd-analyze", "verify", "--man=no", str(file)]
    verified = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert verified.returncode == 0 and verified.stderr == "", verified.stderr
    if most is not None:
        argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", "--no-pager", str(file)]
        secured = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert secured.returncode == 0, secured.stdout[-3000:]
