"""What may be taken from a supervisor: power, disk, descriptors, processes, clock. Said, survived, mended when it passes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from brainjar import ledger
from brainjar.supervisor.births import SPARE_DESCRIPTORS
from tests.patience import GONE_S
from tests.system.conftest import MakeJar
from tests.system.harness import Jar, alive, gone, until

LIGHT = (sys.executable, "-m", "tests.chaos.programs.light")
HEAD = '[jar]\nname = "light"\n[model]\nname = "smollm2-135m"\ncontext = 512\n[restart]\npause = "0s"\nintensity = 100000\n'
SHIM = Path(__file__).parent.parent / "chaos" / "programs" / "durable.c"


def config(tmp_path: Path, names: str = "abc") -> str:
    prompt = tmp_path / "quiet.md"
    prompt.write_text("QUIET")
    return HEAD + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\nprompt = "{prompt}"\n' for name in names)


@pytest.fixture
def light(make_jar: MakeJar, tmp_path: Path) -> Any:
    def make(names: str = "abc", **more: Any) -> Jar:
        return make_jar(config(tmp_path, names), "--force", program=LIGHT, **more)

    return make


# ── power ──


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made = tmp_path / "durable.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(SHIM), "-ldl"], check=True)
    return made


def test_after_a_power_cut_at_any_moment_every_death_that_was_announced_is_on_record(
    light: Any, make_jar: MakeJar, shim: Path, tmp_path: Path
) -> None:
    """The disk as it was when each file was last synced, and nothing that was not: a jar starts from it, and knows what it had said."""
    shadow = tmp_path / "shadow"
    state = tmp_path / "jar" / "state"
    env = {"LD_PRELOAD": str(shim), "BRAINJAR_TEST_STATE": str(state), "BRAINJAR_TEST_SHADOW": str(shadow)}
    jar = light(env=env).start()
    jar.until_ready()
    announced: set[tuple[str, int]] = set()
    cuts: list[tuple[Path, set[tuple[str, int]]]] = []
    with jar.listening() as listener:
        for n in range(60):
            name = "abc"[n % 3]
            os.kill(jar.persona(name)["pid"], signal.SIGKILL)
            death, _ = listener.until("DEATH", name)
            announced.add((name, death.metadata["birth"]))
            if n % 6 == 5:  # the next life is on its way just now
                cut = tmp_path / f"cut{n}" / "state"
                os.kill(jar.pid, signal.SIGSTOP)
                shutil.copytree(shadow, cut, ignore=shutil.ignore_patterns("*.copying"))
                os.kill(jar.pid, signal.SIGCONT)
                cuts.append((cut, set(announced)))
            listener.until("READY", name)
    assert jar.stop() == 0
    for cut, known in cuts:
        recorded = {(d.persona, d.birth): d for d in ledger.read_deaths(cut / "ledger.db")}
        assert known <= set(recorded), f"{cut}: announced, and not on record"
        root = cut.parent
        (root / "matrix.toml").write_text(config(tmp_path))
        again = Jar(root, root / "matrix.toml", "--force", program=LIGHT)
        try:
            again.start()
            status = {p["name"]: p for p in again.until_ready()["personas"]}
            after = ledger.read_deaths(cut / "ledger.db")
            assert len({(d.persona, d.birth) for d in after}) == len(after)
            for name in "abc":
                own = [d for d in after if d.persona == name]
                assert status[name]["deaths"] == len(own)
                assert sorted(d.life for d in own) == list(range(1, len(own) + 1))
                assert sum(d.cause == "supervisor-lost" for d in own) <= 1, "an open life is closed once"
        finally:
            again.clean_up()


# ── descriptors, processes ──


@contextmanager
def few_descriptors(jar: Jar, spare: int) -> Iterator[None]:
    """The highest descriptor that it has is that of a caller who stays: those of a worker go with it, and would be spare too."""
    soft, hard = resource.prlimit(jar.pid, resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(jar.runtime_dir / "control"))
        until(lambda: _served(caller), why="it is served")
        used = max(map(int, os.listdir(f"/proc/{jar.pid}/fd")))
        resource.prlimit(jar.pid, resource.RLIMIT_NOFILE, (used + 1 + spare, hard))
        try:
            yield
        finally:
            resource.prlimit(jar.pid, resource.RLIMIT_NOFILE, (soft, hard))


def _served(caller: socket.socket) -> bool:
    """It has been accepted: it is answered, and may ask again."""
    caller.sendall(b'{"cmd": "status"}\n')
    return b'"done":true' in caller.recv(1 << 20)


@pytest.mark.parametrize("spare", [10, 40, SPARE_DESCRIPTORS - 1])
def test_without_descriptors_a_birth_fails_and_is_tried_again_when_there_are_some(light: Any, spare: int) -> None:
    jar = light().start()
    others = {p["name"]: p["pid"] for p in jar.until_ready()["personas"] if p["name"] != "a"}
    with jar.listening() as listener:
        pid = jar.persona("a")["pid"]
        with few_descriptors(jar, spare):
            os.kill(pid, signal.SIGKILL)
            death, _ = listener.until("DEATH", "a")
            assert death.metadata["cause"] == "killed"
            failed, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] == "backoff")
            assert failed.metadata["reason"] == "no sockets or memory for a new worker: Too many open files"
        listener.until("READY", "a")
    assert {p["name"]: p["pid"] for p in jar.status()["personas"] if p["name"] != "a"} == others
    assert jar.stop() == 0


@pytest.fixture
def no_more_processes() -> Iterator[Any]:
    """A way to put a process where it can make no other."""
    parent = Path("/sys/fs/cgroup/pids")
    if not (parent / "cgroup.procs").exists():
        pytest.skip("no cgroup of version 1 for pids here")
    group = parent / f"brainjar-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made: {error.strerror}")

    def put(pid: int) -> None:
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(pid))

    def free(pid: int) -> None:
        (parent / "cgroup.procs").write_text(str(pid))

    put.free = free  # type: ignore[attr-defined]
    yield put
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        free(pid)
    until(lambda: gone(group))


def test_where_no_process_can_be_made_the_model_stays_and_the_birth_says_why(light: Any, no_more_processes: Any) -> None:
    jar = light().start()
    jar.until_ready()
    (zygote,) = jar.named("bj-zygote")
    with jar.listening() as listener:
        no_more_processes(zygote)
        os.kill(jar.persona("a")["pid"], signal.SIGKILL)
        failed, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] == "backoff")
        assert failed.metadata["reason"] == "it could not be forked: Resource temporarily unavailable"
        no_more_processes.free(zygote)
        listener.until("READY", "a")
    assert jar.named("bj-zygote") == [zygote], "nobody had to load the model again"
    assert jar.persona("b")["deaths"] == 0


def test_a_zygote_that_cannot_be_executed_is_a_failure_that_is_said(make_jar: MakeJar, tmp_path: Path) -> None:
    program = (
        sys.executable,
        "-c",
        "import sys; from brainjar.supervisor import zygotes; zygotes.PROGRAM = 'not_there';"
        " from brainjar.cli import main; sys.exit(main.main(sys.argv[1:]))",
    )
    jar = make_jar(config(tmp_path, "a").replace("intensity = 100000", "intensity = 1"), "--force", program=program).start()
    with jar.listening() as listener:
        failed, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] == "failed")
    assert "2 failed starts in a row" in failed.content
    assert "exit status 1" in failed.content
    assert "tried again in" in failed.content
    assert jar.stop() == 0


def living(jar: Jar) -> list[dict[str, Any]]:
    return [persona for persona in jar.status()["personas"] if persona["state"] in ("ready", "thinking")]


def test_a_jar_that_may_have_too_few_descriptors_for_all_keeps_those_it_can(make_jar: MakeJar, tmp_path: Path) -> None:
    """And dies of it neither when it starts nor when many connect: libzmq would end it."""
    names = "abcdefghijklmnopqrst"
    limit = SPARE_DESCRIPTORS + 160
    program = ("sh", "-c", f'ulimit -n {limit}; exec "$0" "$@"', *LIGHT)
    jar = make_jar(config(tmp_path, names), "--force", program=program).start()
    with jar.listening() as listener:
        listener.until("STATE", None, lambda e: "Too many open files" in e.content)
        ready = until(lambda: alive_ones if len(alive_ones := living(jar)) >= 3 else None)
        assert len(ready) < len(names)
        os.kill(ready[0]["pid"], signal.SIGKILL)
        listener.until("DEATH", ready[0]["name"])
        until(lambda: jar.persona(ready[0]["name"])["state"] in ("ready", "backoff", "failed"))
    assert jar.stop() == 0


# ── disk ──


@contextmanager
def small_disk(place: Path, size: str = "8m") -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "brainjar-test", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def test_a_disk_that_is_full_is_said_outlived_and_caught_up_on(light: Any, tmp_path: Path) -> None:
    state = tmp_path / "jar" / "state"
    with small_disk(state):
        jar = light()
        try:
            jar.start()
            jar.until_ready()
            filler = state / "filler"
            with jar.listening() as listener:
                with suppress(OSError), open(filler, "wb", buffering=0) as f:
                    while f.write(bytes(4096)):
                        pass
                died = 0
                while jar.status()["supervisor"]["ledger_error"] is None:  # what is allocated already can still be written
                    os.kill(jar.persona("a")["pid"], signal.SIGKILL)
                    listener.until("DEATH", "a")
                    listener.until("READY", "a")
                    died += 1
                for _ in range(3):
                    os.kill(jar.persona("a")["pid"], signal.SIGKILL)
                    listener.until("DEATH", "a")
                    listener.until("READY", "a")
                    died += 1
                assert len(ledger.read_deaths(state / "ledger.db")) < died
                filler.unlink()
                os.kill(jar.persona("b")["pid"], signal.SIGKILL)
                listener.until("DEATH", "b")
            until(lambda: len(ledger.read_deaths(state / "ledger.db")) == died + 1)
            own = ledger.read_deaths(state / "ledger.db", "a")
            assert sorted(d.life for d in own) == list(range(1, died + 1)), "nothing is missing, nothing is there twice"
            assert jar.status()["supervisor"]["ledger_error"] is None
            assert jar.stop() == 0
        finally:
            jar.clean_up()


def test_a_jar_does_not_start_where_it_could_write_nothing(make_jar: MakeJar, tmp_path: Path) -> None:
    state = tmp_path / "jar" / "state"
    with small_disk(state):
        remount(state, "ro")
        jar = make_jar(config(tmp_path), "--force", program=LIGHT)
        with pytest.raises(AssertionError) as said:
            jar.start()
        assert "cannot be written" in str(said.value) or "Read-only" in str(said.value)
        assert jar.process is not None
        assert jar.process.returncode == 2
        assert "Traceback" not in str(said.value)


# ── clock ──


@pytest.mark.parametrize("step", [-86400, 86400, -3600, 3600])
def test_a_clock_that_is_set_shortens_and_lengthens_nothing(light: Any, tmp_path: Path, step: int) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    jar = light(env={"BRAINJAR_TEST_CLOCK": str(clock)}).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(2):
            os.kill(jar.persona("a")["pid"], signal.SIGKILL)
            listener.until("READY", "a")
        clock.write_text(str(step))
        began = time.monotonic()
        for _ in range(3):
            os.kill(jar.persona("a")["pid"], signal.SIGKILL)
            listener.until("READY", "a")
        assert time.monotonic() - began < 30, "no pause has become an hour"
    deaths = ledger.read_deaths(jar.state_dir / "ledger.db", "a")
    assert [d.life for d in sorted(deaths, key=lambda d: d.birth)] == [1, 2, 3, 4, 5]
    assert all(d.age_s < 60 for d in deaths), "an age is of the monotonic clock"
    assert jar.stop() == 0


# ── a supervisor that is killed ──


def test_killed_between_death_and_next_life_nothing_is_counted_twice(light: Any) -> None:
    jar = light()
    for _ in range(6):
        jar.start()
        jar.until_ready()
        pids = [p["pid"] for p in jar.status()["personas"]]
        os.kill(pids[0], signal.SIGKILL)
        os.kill(jar.pid, signal.SIGKILL)
        assert jar.process is not None
        jar.process.wait()
        until(lambda pids=pids: not any(alive(pid) for pid in pids), GONE_S)  # type: ignore[misc]
    jar.start()
    for persona in jar.until_ready()["personas"]:
        own = ledger.read_deaths(jar.state_dir / "ledger.db", persona["name"])
        assert persona["deaths"] == len(own) == 6
        assert sorted(d.life for d in own) == list(range(1, 7))
    assert jar.stop() == 0
