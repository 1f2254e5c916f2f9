"""The control socket, really connected to: whoever calls, whatever they send, the supervisor goes on; the jar's own are not served.

Whoever connects from the process that holds the socket is "of the jar itself", so where that is not the point it passes for the view.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainjar.bus import CONTROL
from brainjar.supervisor import control as module
from brainjar.supervisor.control import REQUEST_BYTES, Connection, Control, Request
from tests.patience import PATIENCE_S

SUPERVISOR = """
import os, select, subprocess, sys
from pathlib import Path
from brainjar.isolation import bonds
from brainjar.supervisor.control import Control
bonds.become_subreaper()
control = Control(Path(sys.argv[1]), lambda pid: False)
print("bound", flush=True)
family = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1] + "/control", str(os.getpid())])
while select.select([control.listener], [], [], 60)[0]:
    connection = control.accept()
    if connection is not None:
        connection.done("served")
        control.drop(connection)
"""
FAMILY = """
import os, socket, sys
def call(who):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    os.write(1, f"{who}: {s.makefile().readline()}".encode())
call("child")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while os.getppid() != int(sys.argv[2]):
            os.sched_yield()
        call("orphan")
    os._exit(0)
os.wait()
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path, lambda pid: pid == os.getpid())
    yield control
    control.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / CONTROL)


def call(path: str) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(PATIENCE_S)
    caller.connect(path)
    return caller


def accept(control: Control) -> Connection:
    assert select.select([control.listener], [], [], 10)[0]
    connection = control.accept()
    assert connection is not None
    return connection


def read(connection: Connection) -> list[Request | str]:
    assert select.select([connection.sock], [], [], 10)[0]
    return connection.read()


@pytest.fixture
def pair(control: Control, path: str) -> Iterator[tuple[socket.socket, Connection]]:
    caller = call(path)
    yield caller, accept(control)
    caller.close()


def lines(caller: socket.socket) -> list[dict[str, Any]]:
    """What was answered, to the end of the stream."""
    raw = b""
    while chunk := caller.recv(1 << 20):
        raw += chunk
    return [json.loads(line) for line in raw.splitlines()]


# ── asking and answering ──


def test_one_object_a_line_there_and_back(pair: tuple[socket.socket, Connection], control: Control) -> None:
    caller, connection = pair
    caller.sendall(b'{"cmd":"kill","name":"subject"}\n\n{"cmd":"events","epoch":2,"since":7}\n')
    assert read(connection) == [Request(cmd="kill", name="subject"), Request(cmd="events", epoch=2, since=7)]
    connection.event(b'{"seq":8}')
    connection.done("it died", exit=1, more=[1])
    control.drop(connection)
    assert lines(caller) == [{"event": {"seq": 8}}, {"done": True, "exit": 1, "say": "it died", "more": [1]}]


def test_a_request_may_come_in_pieces(pair: tuple[socket.socket, Connection]) -> None:
    caller, connection = pair
    for piece in (b'{"cmd"', b':"sta', b'tus"}'):
        caller.sendall(piece)
        assert read(connection) == []
    caller.sendall(b"\n")
    assert read(connection) == [Request(cmd="status")]
    assert connection.read() == [], "nothing has come, and nothing is waited for"


def test_half_a_line_and_then_the_end_is_no_request(pair: tuple[socket.socket, Connection]) -> None:
    caller, connection = pair
    caller.sendall(b'{"cmd":"stop"}')
    assert read(connection) == []
    caller.close()
    assert read(connection) == []
    assert connection.heard_all


def test_a_line_without_end_ends_the_connection_unheard(pair: tuple[socket.socket, Connection]) -> None:
    caller, connection = pair
    caller.setblocking(False)
    flood = b"x" * (4 * REQUEST_BYTES)
    taken = 0
    while not connection.closing:
        try:
            taken += caller.send(flood)
        except BlockingIOError:
            pass
        assert read(connection) == []
        assert len(connection._in) <= 2 * REQUEST_BYTES
    assert taken < 10 * REQUEST_BYTES


@given(st.binary(max_size=300).map(lambda raw: raw.replace(b"\n", b"")))
@example(b"not json")
@example(b'{"cmd":"\xff\xfe"}')
@example(b'{"cmd":1}')
@example(b"{}")
@example(b"null")
@example(b'{"cmd":"x","y":' + b"[" * 50_000)
@example(b'{"cmd":"events","since":1e400}')
@example(b'{"cmd":"events","since":"x"}')
def test_a_line_that_is_no_request_is_answered_in_words(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(ours)
        theirs.sendall(line + b"\n")
        got = connection.read()
        connection.close()
    if line.strip():
        assert len(got) == 1
        assert isinstance(got[0], Request) or got[0].startswith("not a request: ")
    else:
        assert got == []


# ── callers that misbehave ──


def test_a_caller_that_never_reads_loses_its_connection_and_its_backlog(
    pair: tuple[socket.socket, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG_BYTES", 1 << 20)
    _, connection = pair
    said = 0
    while not connection.closing:
        connection.event(b"x" * 10_000)
        said += 10_000
        assert said < 8 << 20, "it has no bound"
        assert len(connection._out) <= 1 << 20
    assert not connection.wants_write, "the loop drops who is closing once there is nothing left to write"
    connection.event(b"more")
    assert not connection.wants_write


def test_who_reads_slowly_gets_all_of_it(pair: tuple[socket.socket, Connection], control: Control) -> None:
    caller, connection = pair
    for n in range(2000):
        connection.event(b'{"seq":%d,"x":"%s"}' % (n, b"x" * 1000))
    assert len(connection._out) > 0, "it was to be more than a socket takes at once"
    raw = b""
    while raw.count(b"\n") < 2000:
        raw += caller.recv(1 << 16)
        connection.write()
    assert not connection.wants_write
    assert [json.loads(line)["event"]["seq"] for line in raw.splitlines()] == list(range(2000))


def test_a_caller_that_has_gone_is_noticed_when_it_is_answered(pair: tuple[socket.socket, Connection]) -> None:
    caller, connection = pair
    caller.close()
    connection.done("too late")
    assert connection.closing
    assert not connection.wants_write


def test_too_many_callers_are_told_so_and_a_place_that_is_left_is_free_again(
    control: Control, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 3)
    callers = [call(path) for _ in range(3)]
    connections = [accept(control) for _ in callers]
    late = call(path)
    assert control.accept() is None
    assert lines(late) == [{"done": True, "exit": 1, "say": "3 callers are connected already; try again"}]
    late.close()
    control.drop(connections[0])
    again = call(path)
    accept(control)
    assert len(control.connections) == 3
    for caller in [*callers, again]:
        caller.close()


def test_accept_never_waits(control: Control) -> None:
    assert control.accept() is None


def test_closing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    control = Control(tmp_path, lambda _: True)
    callers = [call(str(tmp_path / CONTROL)) for _ in range(4)]
    for _ in callers:
        accept(control)
    control.close()
    for caller in callers:
        assert caller.recv(10) == b""
        caller.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ── who is calling: the kernel is asked ──


def test_a_process_from_outside_is_served_and_one_of_the_jar_is_not(tmp_path: Path, path: str) -> None:
    """A supervisor in a process of its own: this test is outside of it, its child and its child's orphan are within."""
    argv = [sys.executable, "-c", SUPERVISOR, str(tmp_path), FAMILY]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        try:
            assert supervisor.stdout.readline() == "bound\n"
            with call(path) as outside:
                assert lines(outside) == [{"done": True, "exit": 0, "say": "served"}]
            for who in ("child", "orphan"):
                name, _, answer = supervisor.stdout.readline().partition(": ")
                assert name == who
                assert json.loads(answer) == {"done": True, "exit": 1, "say": "a process of the jar itself is not served"}
        finally:
            supervisor.kill()


def test_another_user_is_not_served_and_root_is() -> None:
    if os.geteuid() != 0:
        pytest.skip("calling as somebody else needs root")
    with TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        control = Control(Path(directory), lambda _: True)
        path = f"{directory}/{CONTROL}"
        os.chmod(path, 0o777)
        os.seteuid(65534)
        try:
            stranger = call(path)
        finally:
            os.seteuid(0)
        assert control.accept() is None
        assert lines(stranger) == [{"done": True, "exit": 1, "say": "this jar belongs to uid 0; uid 65534 is not served"}]
        root = call(path)
        accept(control)
        for caller in (stranger, root):
            caller.close()
        control.close()


def test_who_cannot_be_looked_at_is_not_trusted() -> None:
    assert module._descends_from(2**22 + 1, os.getpid()), "there is no such process"
    assert module._descends_from(os.getpid(), os.getpid())
    assert module._descends_from(os.getpid(), os.getppid())
    assert not module._descends_from(os.getppid(), os.getpid())


def test_root_is_not_looked_at_by_a_jar_that_is_not_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc hides other users' processes, it could not be; and nobody of the jar can have become root."""
    monkeypatch.setattr(module, "_descends_from", lambda pid, ancestor: True)
    assert module.refusal(4242, 0, lambda _: False) == ("a process of the jar itself is not served" if os.geteuid() == 0 else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert module.refusal(4242, 0, lambda _: False) is None
    assert module.refusal(4242, 1000, lambda _: False) == "a process of the jar itself is not served"
    assert "uid 65534 is not served" in str(module.refusal(4242, 65534, lambda _: False))
    assert module.refusal(0, 0, lambda _: False) == "a process of another pid namespace is not served"
