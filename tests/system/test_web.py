"""The dashboard beside a real jar: run by its supervisor or by hand, it may die, hang or be flooded, and the jar does not notice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from brainjar.web import access
from tests.patience import PATIENCE_S
from tests.system.conftest import ALONE, MakeJar
from tests.system.harness import Jar, alive, until

CONTROL = "control = true"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def config(port: int, *more: str) -> str:
    return ALONE + "\n".join(("", "[web]", "enabled = true", f"port = {port}", *more, ""))


def serving(jar: Jar, other_than: int = 0) -> int:
    """The pid of its dashboard, once it serves."""
    until(lambda: (web := jar.status()["web"]) and web["serves"] and web["pid"] != other_than, why=lambda: jar.status()["web"])
    return int(jar.status()["web"]["pid"])


def client_of(jar: Jar, port: int) -> httpx.Client:
    headers = {"authorization": f"Bearer {access.token(jar.state_dir)}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE_S)


def test_it_lives_dies_and_goes_with_the_jar(make_jar: MakeJar) -> None:
    port = free_port()
    jar = make_jar(config(port, CONTROL))
    jar.start()
    jar.until_ready()
    first = serving(jar)
    with client_of(jar, port) as client:
        state = client.get("/api/v1/state").json()
        assert state["web"] == {"pid": first, "where": f"http://127.0.0.1:{port}/", "serves": True, "why": ""}
        assert Path(f"/proc/{first}/oom_score_adj").read_text().strip() == "900"
        killed = client.post("/api/v1/personas/subject/kill", json={"cause": "a press of a button"})
        assert killed.status_code == 200 and "killed-by-operator" in killed.json()["said"]
        assert [death["cause"] for death in client.get("/api/v1/deaths").json()] == ["killed-by-operator"]
        os.kill(first, signal.SIGKILL)
        second = serving(jar, first)
        assert client.get("/api/v1/state").status_code == 200
        assert client.get("/api/logs?limit=5").json()["logs"]
    shown = subprocess.run([*jar.cli, "status", "--state-dir", str(jar.state_dir)], capture_output=True, text=True, check=True).stdout
    assert f"the dashboard is at http://127.0.0.1:{port}/ (pid {second})" in shown
    assert jar.persona("subject")["deaths"] == 1
    assert jar.stop() == 0
    assert not alive(second)


def test_a_reload_turns_it_on_and_off_and_an_upgrade_brings_it_back(make_jar: MakeJar) -> None:
    port = free_port()
    jar = make_jar(ALONE)
    jar.start()
    jar.until_ready()
    assert jar.status()["web"] is None
    file = Path(jar.config)
    file.write_text(config(port))
    answer, _ = jar.ask("reload")
    assert "web.enabled" in answer["say"], answer
    first = serving(jar)
    birth = jar.persona("subject")["birth"]
    answer, _ = jar.ask("upgrade")
    assert answer["exit"] == 0, answer
    second = serving(jar, first)
    until(lambda: not alive(first), why="the one before")
    with client_of(jar, port) as client:
        assert client.get("/api/v1/personas/subject").json()["birth"] == birth
        assert client.post("/api/v1/personas/subject/kill").status_code == 403
    file.write_text(ALONE)
    jar.ask("reload")
    until(lambda: not alive(second), why="it is not wanted any more")
    assert jar.status()["web"] is None and jar.persona("subject")["deaths"] == 0


def test_hanging_and_flooded_it_costs_the_jar_nothing(make_jar: MakeJar) -> None:
    port = free_port()
    jar = make_jar(config(port))
    jar.start()
    jar.until_ready()
    pid = serving(jar)
    before = jar.persona("subject")["tokens"]

    def slowest(seconds: float) -> float:
        """Of the answers of the supervisor itself in that time."""
        worst, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            jar.status()
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.02)
        return worst

    codes: Counter[int] = Counter()
    over = threading.Event()

    def flood() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            while not over.is_set():
                try:
                    codes[client.post("/api/v1/session", json={"token": "guess"}).status_code] += 1
                    codes[client.get("/api/v1/state").status_code] += 1
                except httpx.TransportError:
                    codes[0] += 1

    floods = [threading.Thread(target=flood) for _ in range(8)]
    for one in floods:
        one.start()
    flooded = slowest(3.0)
    over.set()
    for one in floods:
        one.join()
    assert codes[429] > 100 and codes[401] > 100 and set(codes) <= {0, 401, 429, 503}, codes
    os.kill(pid, signal.SIGSTOP)
    stuck = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    hung = slowest(2.0)
    assert jar.persona("subject")["tokens"] > before and jar.persona("subject")["deaths"] == 0
    assert max(flooded, hung) < 5.0, (flooded, hung)
    for sock in stuck:
        sock.close()
    assert jar.stop() == 0, "nor is it waited for"
    assert not alive(pid)


def test_by_hand_and_what_is_said_where_it_cannot_be(make_jar: MakeJar, tmp_path: Path) -> None:
    port = free_port()
    jar = make_jar(ALONE)
    jar.start()
    jar.until_ready()
    base = [*jar.cli, "web", "--state-dir", str(jar.state_dir)]

    def said(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        done = subprocess.run([*base, *arguments], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        return done.returncode, done.stdout, done.stderr

    code, token, _ = said("token")
    assert code == 0 and token.strip() == (jar.state_dir / "web-token").read_text().strip()
    assert said("token", "--rotate")[1] != token
    assert said("password", stdin="short\n")[0] == 2
    assert said("password", stdin="a long pass word\n") == (0, "", "")
    for arguments, wanted in (
        (("--host", "0.0.0.0"), "beyond loopback"),
        (("--port", "x"), "wanted a port"),
        (("--host", "nobody.invalid", "--name", "x"), "no such address"),
        (("--socket", str(tmp_path)), "cannot be listened at"),
    ):
        code, out, error = said(*arguments)
        assert code in (1, 2) and wanted in error and "Traceback" not in error and not out, (arguments, error)
    path = tmp_path / "socket"
    with subprocess.Popen([*base, "--socket", str(path)], stderr=subprocess.PIPE, text=True) as own:
        try:
            assert own.stderr is not None and f"unix:{path}" in own.stderr.readline() and path.is_socket()
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                until(lambda: _answers(client), why="it serves")
            own.send_signal(signal.SIGINT)
            assert own.wait(PATIENCE_S) == 0 and not path.exists()
        finally:
            own.kill()
    with subprocess.Popen([*base, "--port", str(port)], stderr=subprocess.PIPE, text=True) as own:
        try:
            assert own.stderr is not None and f"http://127.0.0.1:{port}/" in own.stderr.readline()
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                until(lambda: _answers(client), why="it serves")
                assert client.post("/api/v1/session", json={"password": "a long pass word"}).status_code == 204
                assert client.get("/api/v1/state").json()["web"] is None
                jar.stop()
                until(lambda: client.get("/readyz").status_code == 503, why="the jar is gone, and it says so")
                assert client.get("/healthz").status_code == 200
                assert isinstance(json.loads(client.get("/api/v1/thoughts").content), list), "what it has thought is still there"
            own.terminate()
            assert own.wait(PATIENCE_S) == 0
        finally:
            own.kill()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
