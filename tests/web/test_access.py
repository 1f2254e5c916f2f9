"""Token, sessions, attempts, Host and Origin: who gets in, and who does not."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from brainjar.errors import UsageError
from brainjar.web import access
from brainjar.web.access import ATTEMPTS, ENDED, PASSWORD, SESSION_S, TOKEN, WINDOW_S, Attempts, Secret, Sessions, TokenError
from brainjar.web.door import Door


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_made_once_for_its_owner_alone_and_rotated_on_demand(tmp_path: Path) -> None:
    first = access.token(tmp_path)
    assert len(first) >= 43 and access.token(tmp_path) == first
    assert stat.S_IMODE((tmp_path / TOKEN).stat().st_mode) == 0o600
    second = access.rotate(tmp_path)
    assert second != first and access.token(tmp_path) == second
    assert [path.name for path in tmp_path.iterdir()] == [TOKEN]
    assert (
        access.same(second, second)
        and not access.same(first, second)
        and not access.same("", second)
        and not access.same("ü\ud800", second)
    )


def test_two_that_make_the_first_token_at_once_have_the_same(tmp_path: Path) -> None:
    first = access.token(tmp_path)
    assert access.rotate(tmp_path, only_new=True) == first
    assert [path.name for path in tmp_path.iterdir()] == [TOKEN]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_token_that_others_may_read_is_none(tmp_path: Path, mode: int) -> None:
    access.token(tmp_path)
    (tmp_path / TOKEN).chmod(mode)
    with pytest.raises(TokenError, match="others may read or write it: make another"):
        access.token(tmp_path)


def test_what_is_no_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / TOKEN).write_text("short\n")
    (tmp_path / TOKEN).chmod(0o600)
    with pytest.raises(TokenError, match="is no token"):
        access.token(tmp_path)
    (tmp_path / TOKEN).unlink()
    (tmp_path / "elsewhere").write_text("x" * 64)
    (tmp_path / TOKEN).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TokenError, match="cannot be read"):
        access.token(tmp_path)
    (tmp_path / TOKEN).unlink()
    os.mkfifo(tmp_path / TOKEN, 0o600)
    with pytest.raises(TokenError):
        access.token(tmp_path)
    with pytest.raises(TokenError, match="cannot be written"):
        access.rotate(tmp_path / "nowhere")


def test_a_session_lasts_its_time_outlives_a_restart_and_ends_with_the_token() -> None:
    clock, key = Clock(), "a" * 43
    sessions = Sessions({"token": lambda: key}, clock)
    session = sessions.begin("token")
    assert sessions.known(session) == ("token", 0) and session != sessions.begin("token")
    by, given, name, signature = session.split(".")
    others = (f"{by}.{int(given) + 1}.{name}.{signature}", f"{by}.{given}.{name}x.{signature}", f"{given}.{name}.{signature}")
    for forged in ("", "..", "...", "another", f"{by}.{given}.{name}.", *others, "ü"):
        assert sessions.known(forged) is None, forged
    clock.now += SESSION_S
    assert Sessions({"token": lambda: key}, clock).known(session) == ("token", SESSION_S), "another process knows it too"
    clock.now += 1
    assert sessions.known(session) is None
    session = sessions.begin("token")
    clock.now -= 3600
    assert sessions.known(session) is None, "of the future"
    clock.now += 3600
    key = "b" * 43
    assert sessions.known(session) is None


def test_a_session_ends_with_what_it_was_given_for_and_nobody_makes_one_of_the_other() -> None:
    keys: dict[access.By, str] = {"token": "a" * 43, "password": "hash"}
    sessions = Sessions({"token": lambda: keys["token"], "password": lambda: keys["password"]}, Clock())
    token, password = sessions.begin("token"), sessions.begin("password")
    assert sessions.known(password) == ("password", 0)
    assert sessions.known(token.replace("token", "password")) is None and sessions.known(password.replace("password", "token")) is None
    for now in ("another", ""):
        keys["password"] = now
        assert sessions.known(password) is None and sessions.known(token) is not None
    assert sessions.known(sessions.begin("password")) is None, "there is none that could have been shown"


def test_a_session_that_was_ended_is_over_and_few_such_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ENDED", 10)
    assert ENDED > 10
    sessions = Sessions({"token": lambda: "key"}, Clock())
    first, second = sessions.begin("token"), sessions.begin("token")
    sessions.end(first)
    sessions.end("forged")
    assert sessions.known(first) is None and sessions.known(second) is not None
    for _ in range(50):
        sessions.end(sessions.begin("token"))
    assert len(sessions._ended) == 10


def test_a_secret_is_read_again_when_its_file_is_another_one(tmp_path: Path) -> None:
    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        return access.token(tmp_path)

    secret = Secret(tmp_path / TOKEN, read)
    first = secret()
    assert [secret() for _ in range(5)] == [first] * 5 and reads <= 2
    second = access.rotate(tmp_path)
    assert secret() == second != first
    (tmp_path / TOKEN).chmod(0o644)
    with pytest.raises(TokenError):
        secret()
    (tmp_path / TOKEN).unlink()
    assert secret() not in (first, second)


def test_there_is_no_password_unless_one_is_set_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    assert access.password_hash(tmp_path) == "" and not access.is_password("", "")
    with pytest.raises(UsageError, match="wanted at least 12"):
        access.set_password(tmp_path, "short")
    access.set_password(tmp_path, "a long pass word")
    kept = (tmp_path / PASSWORD).read_text()
    assert "a long" not in kept and kept.startswith("$argon2id$")
    assert stat.S_IMODE((tmp_path / PASSWORD).stat().st_mode) == 0o600
    hash = access.password_hash(tmp_path)
    assert access.is_password("a long pass word", hash) and not access.is_password("a long pass wore", hash)
    assert not access.is_password("a long pass word", "no hash") and not access.is_password("x", "")
    (tmp_path / PASSWORD).chmod(0o640)
    with pytest.raises(TokenError):
        access.password_hash(tmp_path)
    access.set_password(tmp_path, None)
    access.set_password(tmp_path, None)
    assert access.password_hash(tmp_path) == ""


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


@pytest.mark.parametrize("ends", [False, True])
def test_an_old_session_is_given_anew_unless_it_ends_while_it_is_served(tmp_path: Path, ends: bool) -> None:
    now = 1e9
    door = Door(tmp_path, wall=lambda: now)
    session = door._sessions.begin("token")
    now += access.RENEWED_S + 1
    scope = {
        "type": "http",
        "scheme": "http",
        "path": "/",
        "headers": [(b"cookie", f"brainjar={session}".encode()), (b"host", b"localhost")],
    }

    async def serves(request: Request) -> Response:
        if ends:
            access.rotate(tmp_path)
        return Response()

    async def served() -> Response:
        return await door.looked(serves)(Request(scope))

    assert ("set-cookie" in asyncio.run(served()).headers) == (not ends)
