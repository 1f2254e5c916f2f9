"""What happens before a jar is: a model is fetched first, and a service manager is told that this takes its time."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from brainjar.cli import supervise
from brainjar.supervisor.notify import Notify
from tests.patience import PATIENCE_S
from tests.system.harness import alive, until


def python_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """In the place of the one that would fetch."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_model_that_comes_slowly_is_waited_for_and_the_manager_is_told_so_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "FETCH_BEAT_S", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    os.mkfifo(tmp_path / "go")
    python_that(tmp_path, monkeypatch, f'echo "$@" >{tmp_path}/argv; env >{tmp_path}/env; read -r _ <{tmp_path}/go')
    with closing(Notify(os.environ, lambda: 0.0)) as told, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        fetch = threading.Thread(target=supervise._fetch, args=("smollm2-135m", told))
        fetch.start()
        said: list[str] = []
        try:
            while len(said) < 3 and select.select([manager], [], [], 20)[0]:
                said.append(manager.recv(4096).decode())
        finally:
            (tmp_path / "go").write_text("\n")
            fetch.join()
    assert said == ["EXTEND_TIMEOUT_USEC=30000000\nSTATUS=fetching smollm2-135m", *["EXTEND_TIMEOUT_USEC=30000000"] * 2]
    assert (tmp_path / "argv").read_text() == "-m brainjar models fetch smollm2-135m\n"
    given = (tmp_path / "env").read_text()
    assert "PATH=" in given and "NOTIFY_SOCKET" not in given and "WATCHDOG" not in given, "it is not the service"


@pytest.mark.parametrize(("ends", "exit"), [("exit 3", 3), ("kill -TERM $$", 130)])
def test_a_fetch_that_fails_has_said_why_and_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, exit: int) -> None:
    python_that(tmp_path, monkeypatch, ends)
    with pytest.raises(SystemExit) as ended:
        supervise._fetch("smollm2-135m", Notify({}, lambda: 0.0))
    assert ended.value.code == exit


@pytest.mark.system
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_fetch_goes_with_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals) -> None:
    python_that(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/writing; mv {tmp_path}/writing {tmp_path}/pid; exec sleep 3600")
    script = "import sys\nfrom brainjar.cli import supervise\nfrom brainjar.supervisor.notify import Notify\n"
    script += f"sys.executable = {sys.executable!r}\nsupervise._fetch('smollm2-135m', Notify({{}}, lambda: 0.0))"
    monkeypatch.undo()
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as waits:
        until((tmp_path / "pid").exists)
        fetches = int((tmp_path / "pid").read_text())
        waits.send_signal(by)
        waits.wait(PATIENCE_S)
    until(lambda: not alive(fetches))


def test_who_is_tied_to_one_that_has_died_already_does_not_begin() -> None:
    ties = "import os; from brainjar.isolation import bonds; bonds.end_with({}); print('begun')"
    assert subprocess.run([sys.executable, "-c", ties.format("os.getppid()")], capture_output=True, text=True).stdout == "begun\n"
    gone = subprocess.run([sys.executable, "-c", ties.format("os.getppid() + 1")], capture_output=True, text=True)
    assert gone.returncode == 1 and "NotTied" in gone.stderr and not gone.stdout
