"""`brainjar upgrade`: another version takes over in the same process, and nobody dies; one that cannot changes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainjar import ledger, minds, paths
from tests.patience import GONE_S, PATIENCE_S
from tests.system.conftest import MAX_TOKENS, SMALL, MakeJar
from tests.system.harness import Jar, alive, own_memory, until, zombies_of

THREE = SMALL + (
    '[[persona]]\nname = "subject"\nmemory = "128MiB"\n[[persona]]\nname = "observer"\nmemory = "144MiB"\nsees = ["subject"]\n'
    '[[persona]]\nname = "god"\nmemory = "160MiB"\nsees = ["*"]\n'
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of this package that may be upgraded, as a checkout of its own."""
    root = paths.checkout()
    assert root is not None
    place = tmp_path / "installed"
    shutil.copytree(root / "brainjar", place / "brainjar", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "configs", place / "configs")
    (place / "models").mkdir()
    for file in ("setup.cfg", "models/catalog.toml"):
        shutil.copy(root / file, place / file)
    return place


@pytest.fixture
def jar(make_jar: MakeJar, installed: Path) -> Jar:
    env = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "BRAINJAR_MODELS": str(paths.models_dir())}
    return make_jar(THREE, env=env)


def release(installed: Path, version: str) -> None:
    """Put another version in the place of the one that runs."""
    init = installed / "brainjar" / "__init__.py"
    init.write_text(f'"""Another version."""\n\n__version__ = "{version}"\n')


def upgrade(jar: Jar) -> tuple[int, str]:
    answer, _ = jar.ask("upgrade")
    return answer["exit"], answer["say"]


def pids(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in jar.status()["personas"]}


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_another_version_takes_over_and_nobody_dies(jar: Jar, installed: Path) -> None:
    jar.start()
    jar.until_ready()
    before, started = pids(jar), jar.status()["supervisor"]
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        release(installed, "0.2.0")
        exit, say = upgrade(jar)
        assert (exit, say) == (0, f"upgraded from 0.1.0 to 0.2.0: pid {jar.pid} as before, 3 of 3 minds live on")
        now = jar.status()["supervisor"]
        assert (now["pid"], now["version"], now["epoch"]) == (started["pid"], "0.2.0", started["epoch"])
        assert now["uptime_s"] > started["uptime_s"]
        assert pids(jar) == before
        for name in before:
            listener.until("THOUGHT", name)
    assert ledger.read_deaths(jar.state_dir / "ledger.db") == []
    os.kill(before["subject"], signal.SIGKILL)
    until(lambda: jar.persona("subject")["deaths"] == 1)
    jar.until_ready()
    (death,) = ledger.read_deaths(jar.state_dir / "ledger.db")
    assert (death.cause, death.pid) == ("killed", before["subject"])
    assert jar.stop() == 0
    assert not any(alive(pid) for pid in before.values())


def thought_lines(jar: Jar, name: str) -> list[str]:
    return [line.content for line in minds.read_lines(jar.state_dir / "minds" / name / "mind.db") if line.kind == "thought"]


def heard_thoughts(jar: Jar, name: str) -> list[str]:
    _, events = jar.ask("events", epoch=1, since=0)
    assert not any(e["type"] == "GAP" and e["metadata"]["last"] > e["metadata"]["first"] + 2000 for e in events)
    return [e["content"].strip() for e in events if e["type"] == "THOUGHT" and e["sender_id"] == name]


def test_upgrades_in_a_row_lose_no_thought_and_change_no_pid(jar: Jar) -> None:
    times = int(os.environ.get("BRAINJAR_TEST_UPGRADES", "50"))
    jar.start()
    jar.until_ready()
    before = pids(jar)
    settled: tuple[int, int] | None = None
    for n in range(times):
        exit, say = upgrade(jar)
        assert exit == 0, say
        if n == times // 5:
            until_found_again(jar)
            settled = len(os.listdir(f"/proc/{jar.pid}/fd")), own_memory(jar.pid)
    assert settled is not None
    assert pids(jar) == before
    until_found_again(jar)
    # the last handover, and the files of the copy that is kept aside, are read a moment longer
    until(lambda: len(os.listdir(f"/proc/{jar.pid}/fd")) <= settled[0], why=lambda: (settled[0], descriptors(jar.pid)))
    assert own_memory(jar.pid) - settled[1] < 4 << 20
    assert zombies_of(jar.pid) == []
    status = {p["name"]: p for p in jar.status()["personas"]}
    for name in before:
        jar.ask("pause", name=name)
    for name in before:
        written, heard = thought_lines(jar, name), heard_thoughts(jar, name)
        assert len(written) >= 3
        assert heard == written, f"{name}: each thought once, in order"
        assert status[name]["deaths"] == 0
    assert ledger.read_deaths(jar.state_dir / "ledger.db") == []


def until_found_again(jar: Jar) -> None:
    """Until all stands that an upgrade has to bring back: each worker has been given the lease since, and there are senses."""
    before = {persona["name"]: persona["tokens"] for persona in jar.status()["personas"]}
    until(lambda: all(persona["tokens"] > before[persona["name"]] + 2 * MAX_TOKENS for persona in jar.status()["personas"]))
    until(lambda: jar.named("bj-senses"))


def descriptors(pid: int) -> list[str]:
    """What they are of; those that are closed meanwhile are left out."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sorted(found)


def break_import(installed: Path) -> None:
    (installed / "brainjar" / "supervisor" / "loop.py").write_text("def broken(:\n")


def need_more(installed: Path) -> None:
    path = installed / "brainjar" / "supervisor" / "loop.py"
    path.write_text(path.read_text().replace("import select\n", "import select\nimport a_package_that_is_not_there\n"))


def read_another_format(installed: Path) -> None:
    path = installed / "brainjar" / "supervisor" / "handover.py"
    path.write_text(path.read_text().replace("FORMAT: Final = 1", "FORMAT: Final = 2"))


def be_gutted(installed: Path) -> None:
    """Half of it is gone, as where an installer was killed. (All of it gone would be another installation's package, found instead.)"""
    shutil.rmtree(installed / "brainjar" / "supervisor")


def as_it_acts(installed: Path, code: str) -> None:
    """What no child can find: it reads the state, and breaks when it acts on it."""
    path = installed / "brainjar" / "supervisor" / "keeper.py"
    head = "    def go_on(self) -> None:\n"
    assert head in path.read_text()
    path.write_text(path.read_text().replace(head, f"{head}        {code}\n"))


def fail_late(installed: Path) -> None:
    as_it_acts(installed, "raise RuntimeError('no')")


def hang(installed: Path) -> None:
    as_it_acts(installed, "while True: time.sleep(1)")


def leave(installed: Path) -> None:
    as_it_acts(installed, "raise SystemExit(0)")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (break_import, "SyntaxError"),
        (need_more, "a_package_that_is_not_there"),
        (read_another_format, "is of format 1, and this version reads 2"),
        (be_gutted, "the new version does not take over"),
        (fail_late, "could not take over (RuntimeError: no)"),
        (leave, "could not take over (SystemExit: 0)"),
        (hang, "its first lap was not done after"),
    ],
)
def test_a_version_that_cannot_take_over_changes_nothing(jar: Jar, installed: Path, damage: Callable[[Path], None], says: str) -> None:
    jar.start()
    jar.until_ready()
    before = pids(jar)
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        good = {path: path.read_bytes() for path in (installed / "brainjar").rglob("*.py")}
        damage(installed)
        exit, say = upgrade(jar)
        assert exit == 1
        assert says in say
        assert pids(jar) == before
        listener.until("THOUGHT", "subject")
        # the old one can do all that it could: also give birth, which needs its zygote's code no more than it did
        os.kill(before["observer"], signal.SIGKILL)
        listener.until("READY", "observer")
        for path, body in good.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        release(installed, "0.3.0")
        assert upgrade(jar)[0] == 0, "and it can be upgraded to one that is whole"
        assert jar.status()["supervisor"]["version"] == "0.3.0"
        assert pids(jar)["subject"] == before["subject"]
    assert jar.stop() == 0


def test_a_zygote_that_dies_after_a_fall_back_is_started_from_what_was_kept(jar: Jar, installed: Path) -> None:
    jar.start()
    jar.until_ready()
    fail_late(installed)
    assert upgrade(jar)[0] == 1
    be_gutted(installed)
    (zygote,) = jar.named("bj-zygote")
    with jar.listening() as listener:
        os.kill(zygote, signal.SIGKILL)
        listener.until("PRESSURE", "jar", lambda e: "is started again" in e.content)
        (other,) = until(lambda: [pid for pid in jar.named("bj-zygote") if pid != zygote])
        assert f"PYTHONPATH={jar.state_dir}".encode() in Path(f"/proc/{other}/environ").read_bytes()
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("READY", "subject")


def test_the_process_that_holds_the_model_is_replaced_and_let_go_when_nobody_needs_it(jar: Jar, installed: Path) -> None:
    jar.start()
    jar.until_ready()
    before = pids(jar)
    (old,) = jar.named("bj-zygote")
    assert upgrade(jar)[0] == 0
    assert jar.named("bj-zygote") == [old], "the same code: there is nothing to replace"
    release(installed, "0.2.0")
    assert upgrade(jar)[0] == 0
    until(lambda: len(jar.named("bj-zygote")) == 2)
    (new,) = set(jar.named("bj-zygote")) - {old}
    with jar.listening() as listener:
        assert pids(jar) == before, "who lives goes on"
        for name in before:
            listener.until("THOUGHT", name)
            os.kill(before[name], signal.SIGKILL)
            listener.until("READY", name)
        until(lambda: jar.named("bj-zygote") == [new])
        for name in before:
            listener.until("THOUGHT", name)


def test_lives_that_wait_are_handed_over_too(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", "restart.standby=true", "--set", "restart.pause=0s").start()
    waiting = until(lambda: standbys(jar) if all(standbys(jar).values()) else None)
    before = pids(jar)
    assert upgrade(jar)[0] == 0
    assert standbys(jar) == waiting
    with jar.listening() as listener:
        os.kill(before["subject"], signal.SIGKILL)
        back, _ = listener.until("READY", "subject")
        assert back.metadata["pid"] == waiting["subject"], "the one that had waited"
        assert back.life == 2
        listener.until("THOUGHT", "subject")


def standbys(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["standby_pid"] for p in jar.status()["personas"]}


def test_an_engine_computes_on_over_an_upgrade(make_jar: MakeJar) -> None:
    jar = make_jar(THREE.replace("max_concurrent = 1", 'mode = "engine"')).start()
    jar.until_ready()
    (engine,) = (e["pid"] for e in jar.status()["engines"])
    before = pids(jar)
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        for _ in range(3):
            assert upgrade(jar)[0] == 0
        assert pids(jar) == before
        assert [e["pid"] for e in jar.status()["engines"]] == [engine]
        for name in before:
            listener.until("THOUGHT", name)
        os.kill(engine, signal.SIGKILL)
        listener.until("ENGINE", "jar")
        for name in before:
            listener.until("THOUGHT", name)
    assert pids(jar) == before
    assert jar.stop() == 0


def test_deaths_and_orders_that_meet_an_upgrade_are_not_lost(jar: Jar) -> None:
    jar.start()
    jar.until_ready()
    pid = jar.persona("subject")["pid"]
    caller = subprocess.Popen(
        [sys.executable, "-m", "brainjar", "restart", "god", "--state-dir", str(jar.state_dir)], stdout=subprocess.PIPE, text=True
    )
    os.kill(pid, signal.SIGKILL)
    assert upgrade(jar)[0] == 0
    said, _ = caller.communicate(timeout=PATIENCE_S)
    assert caller.returncode == 0, said
    assert "god is ready" in said
    until(lambda: jar.persona("subject")["deaths"] == 1)
    jar.until_ready()
    assert [d.pid for d in ledger.read_deaths(jar.state_dir / "ledger.db", "subject")] == [pid]


def test_a_supervisor_that_was_upgraded_and_is_killed_leaves_nothing(jar: Jar) -> None:
    jar.start()
    jar.until_ready()
    assert upgrade(jar)[0] == 0
    left = jar.descendants()
    assert jar.process is not None
    jar.process.kill()
    jar.process.wait()
    until(lambda: not any(alive(pid) for pid in left), GONE_S)
    jar.start()
    status = jar.until_ready()
    assert [p["deaths"] for p in status["personas"]] == [1, 1, 1]


def test_it_is_stopped_by_the_signal_that_comes_while_it_upgrades(jar: Jar) -> None:
    jar.start()
    jar.until_ready()
    caller = subprocess.Popen([sys.executable, "-m", "brainjar", "upgrade", "--state-dir", str(jar.state_dir)], stdout=subprocess.PIPE)
    assert jar.process is not None
    until(lambda: "stub.py" in maps(jar.pid))
    assert jar.stop() == 0
    caller.communicate(timeout=PATIENCE_S)
