"""Token, sessions, attempts, Host and Origin: who gets in, and who does not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from brainjar.web import access
from brainjar.web.access import ATTEMPTS, FILE, SESSION_S, SESSIONS, WINDOW_S, Attempts, Sessions, TokenError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_made_once_for_its_owner_alone_and_rotated_on_demand(tmp_path: Path) -> None:
    first = access.token(tmp_path)
    assert len(first) >= 43 and access.token(tmp_path) == first
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    second = access.rotate(tmp_path)
    assert second != first and access.token(tmp_path) == second
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (
        access.same(second, second)
        and not access.same(first, second)
        and not access.same("", second)
        and not access.same("ü\ud800", second)
    )


def test_two_that_make_the_first_token_at_once_have_the_same(tmp_path: Path) -> None:
    first = access.token(tmp_path)
    assert access.rotate(tmp_path, only_new=True) == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_token_that_others_may_read_is_none(tmp_path: Path, mode: int) -> None:
    access.token(tmp_path)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(TokenError, match="others may read or write the token: make another"):
        access.token(tmp_path)


def test_what_is_no_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("short\n")
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(TokenError, match="is no token"):
        access.token(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / "elsewhere").write_text("x" * 64)
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TokenError, match="cannot be read"):
        access.token(tmp_path)
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE, 0o600)
    with pytest.raises(TokenError):
        access.token(tmp_path)
    with pytest.raises(TokenError, match="cannot be written"):
        access.rotate(tmp_path / "nowhere")


def test_a_session_lives_while_it_is_used_and_few_do_at_once() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    name = sessions.begin()
    assert sessions.lives(name) and not sessions.lives("another") and not sessions.lives("")
    for _ in range(3):
        clock.now += SESSION_S - 1
        assert sessions.lives(name)
    clock.now += SESSION_S + 1
    assert not sessions.lives(name) and not sessions.lives(name)
    first = sessions.begin()
    others = [sessions.begin() for _ in range(SESSIONS - 1)]
    assert sessions.lives(first)
    sessions.begin()
    assert sessions.lives(first) and not sessions.lives(others[0]), "who was not used for longest goes"
    sessions.end(first)
    assert not sessions.lives(first)
    sessions.end_all()
    assert not any(map(sessions.lives, others))


def test_who_is_wrong_too_often_waits_and_nobody_else_does() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(ATTEMPTS):
        assert attempts.wait_s("a") == 0
        attempts.wrong("a")
        clock.now += 1
    assert attempts.wait_s("a") == WINDOW_S - ATTEMPTS and attempts.wait_s("b") == 0
    clock.now += WINDOW_S - ATTEMPTS
    assert attempts.wait_s("a") == 0
    attempts.wrong("a")
    assert 0 < attempts.wait_s("a") <= 1
    attempts.right("a")
    assert attempts.wait_s("a") == 0


def test_10000_wrong_peers_cost_bounded_memory_and_end_in_waiting_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PEERS", 100)
    clock = Clock()
    attempts = Attempts(clock)
    tried = 0
    for n in range(10_000):
        if attempts.wait_s(str(n)) == 0:
            attempts.wrong(str(n))
            tried += 1
    assert tried == 100
    clock.now += WINDOW_S + 1
    assert attempts.wait_s("9999") == 0 and not attempts._wrong


LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8095", True),
        ("localhost", True),
        ("LocalHost.:80", True),
        ("[::1]:8095", True),
        ("[::1]", True),
        ("::1", True),
        ("evil.example:8095", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
        (":8095", False),
    ],
)
def test_only_its_own_names_are_answered(host: str, allowed: bool) -> None:
    assert access.host_allowed(host, LOCAL) == allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:8095", True),
        ("https://127.0.0.1:8095", True),
        ("http://127.0.0.1", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
        ("ftp://127.0.0.1:8095", False),
    ],
)
def test_only_pages_of_its_own_may_act(origin: str | None, allowed: bool) -> None:
    assert access.origin_allowed(origin, "127.0.0.1:8095") == allowed
