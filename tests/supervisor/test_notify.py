"""What a service manager is told: in its own words, at the right moment, and never at the price of a wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainjar.supervisor import notify
from brainjar.supervisor.notify import EXTENDED_S, STATUS_S, Notify


class Manager:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(path)

    def heard(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(dict(line.split("=", 1) for line in self.socket.recv(65536).decode().split("\n")))
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(str(tmp_path / "notify"))
    yield one
    one.socket.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(tmp_path: Path, clock: Clock, **environ: str) -> Notify:
    return Notify({"NOTIFY_SOCKET": str(tmp_path / "notify"), **environ}, clock)


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        one = Notify(environ, Clock())
        one.ready("x")
        one.beaten("y")
        one.stopping()
        one.close()
        one.close()
    assert not Notify({}, Clock()).heard and Notify({"WATCHDOG_USEC": "1000000"}, Clock()).every_s is None


def test_it_is_ready_once_and_says_which_process_it_is(tmp_path: Path, manager: Manager) -> None:
    one = made(tmp_path, Clock())
    one.still_starting()
    one.ready("3/3 live\nand more")
    one.ready("again")
    one.still_starting()
    assert manager.heard() == [
        {"EXTEND_TIMEOUT_USEC": str(int(EXTENDED_S * 1e6))},
        {"READY": "1", "STATUS": "3/3 live and more", "MAINPID": str(os.getpid())},
    ]
    one.close()


def test_a_watchdog_is_fed_with_each_beat_and_a_status_told_when_it_is_another(tmp_path: Path, manager: Manager) -> None:
    clock = Clock()
    one = made(tmp_path, clock, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    assert one.every_s == 10
    one.ready("a")
    one.beaten("a")
    one.beaten("b")
    clock.now += STATUS_S
    one.beaten("b")
    one.beaten("b")
    assert manager.heard()[1:] == [{"WATCHDOG": "1"}, {"WATCHDOG": "1"}, {"WATCHDOG": "1", "STATUS": "b"}, {"WATCHDOG": "1"}]
    one.close()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])
def test_where_no_watchdog_waits_for_this_process_none_is_fed(tmp_path: Path, manager: Manager, environ: dict[str, str]) -> None:
    one = made(tmp_path, Clock(), **environ)
    one.ready("a")
    manager.heard()
    one.beaten("a")
    assert manager.heard() == [] and one.every_s is None
    one.close()


def test_a_reload_begins_and_ends_and_a_stop_is_said_once(tmp_path: Path, manager: Manager) -> None:
    one = made(tmp_path, Clock())
    one.went_on()
    one.ready("was told by the program before")
    one.reloading()
    one.reloaded("as it is now")
    one.stopping()
    one.stopping()
    begin, end, stop = manager.heard()
    assert begin["RELOADING"] == "1" and int(begin["MONOTONIC_USEC"]) > 0
    assert end == {"READY": "1", "STATUS": "as it is now"} and stop["STOPPING"] == "1"
    one.close()


def test_an_abstract_socket_is_one_too() -> None:
    name = f"brainjar-test-{os.getpid()}"
    manager = Manager("\0" + name)
    one = Notify({"NOTIFY_SOCKET": f"@{name}"}, Clock())
    one.ready("a")
    assert manager.heard()[0]["READY"] == "1"
    one.close()
    manager.socket.close()


def test_a_manager_that_takes_nothing_is_not_waited_for(tmp_path: Path, manager: Manager) -> None:
    clock = Clock()
    one = made(tmp_path, clock, WATCHDOG_USEC="1000000")
    for n in range(5000):  # more than its queue takes
        clock.now += STATUS_S
        one.beaten(str(n))
    assert 0 < len(manager.heard()) < 5000
    one.close()


def test_what_is_the_services_own_is_no_childs() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "LISTEN_FDS": "1", "PATH": "/bin"}
    assert notify.without(environ) == {"PATH": "/bin"}
