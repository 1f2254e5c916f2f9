"""Over real sockets: what is asked badly, too often, too slowly or of the wrong one is refused by the right code, and who asks well is
served meanwhile. The jar is asked for nothing by any of it.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect
from websockets.typing import Origin

from brainjar.errors import BrainjarError, UsageError
from brainjar.web import access, door, live, server, stream
from brainjar.web.door import BODY_BYTES
from tests.fakejar import FakeJar
from tests.patience import PATIENCE_S
from tests.web.served import Served, served


def until(what: Callable[[], Any], why: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (got := what()):
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {why}"
        time.sleep(0.01)
    return got


def raw(one: Served, said: bytes = b"", *, receive_bytes: int = 0) -> socket.socket:
    made = socket.socket()
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.settimeout(PATIENCE_S)
    made.connect(("127.0.0.1", one.port))
    made.sendall(said)
    return made


def head(one: Served, line: str, *more: str) -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", f"Host: 127.0.0.1:{one.port}", *more, "", "")).encode()


def stream_head(one: Served) -> bytes:
    return head(one, "GET /api/v1/events", f"Authorization: Bearer {one.token}")


def status_of(sock: socket.socket) -> int:
    """Of the answer; 0: there is none, it was closed."""
    try:
        line = sock.recv(4096)
    except OSError:
        return 0
    return int(line.split()[1]) if line else 0


def test_10000_logins_of_a_forged_address_each_are_ten_and_the_jar_is_asked_nothing(jar: FakeJar) -> None:
    with served(jar.state_dir, control=True) as one, httpx.Client(base_url=one.url) as client:
        codes: Counter[int] = Counter()
        for n in range(10_000):
            forged = {
                "x-forwarded-for": f"10.0.{n >> 8}.{n & 255}",
                "x-real-ip": f"10.1.{n >> 8}.{n & 255}",
                "forwarded": f"for=10.2.0.{n}",
            }
            codes[client.post("/api/v1/session", json={"token": f"guess {n}"}, headers=forged).status_code] += 1
        assert codes == {401: 10, 429: 9990}
        assert client.get("/healthz").status_code == 200
        assert not jar.requests


def test_a_proxy_is_believed_where_it_is_named_and_only_in_what_it_has_added_itself(jar: FakeJar) -> None:
    with served(jar.state_dir, proxies=("127.0.0.1",)) as one, httpx.Client(base_url=one.url) as client:

        def guess(said: str) -> int:
            return client.post("/api/v1/session", json={"token": "x"}, headers={"x-forwarded-for": said}).status_code

        assert [guess(f"10.0.0.{n}, 192.0.2.1") for n in range(12)] == [401] * 10 + [429] * 2, "what stands before is anybody's word"
        assert guess("192.0.2.2") == 401
        secure = client.post(
            "/api/v1/session", json={"token": one.token}, headers={"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.3"}
        )
        assert "Secure" in secure.headers["set-cookie"]


def test_a_password_is_let_in_once_it_is_set_and_guesses_of_it_are_counted(jar: FakeJar) -> None:
    with served(jar.state_dir) as one, httpx.Client(base_url=one.url) as client:
        assert client.post("/api/v1/session", json={"password": "a long pass word"}).status_code == 401
        access.set_password(jar.state_dir, "a long pass word")
        assert client.post("/api/v1/session", json={"password": "a long pass word"}).status_code == 204
        codes = [client.post("/api/v1/session", json={"password": f"a long pass word {n}"}).status_code for n in range(11)]
        assert codes == [401] * 10 + [429]
        assert client.post("/api/v1/session", json={"password": "a long pass word"}).status_code == 429


@pytest.mark.parametrize("password", [None, "another pass word"], ids=["removed", "another"])
def test_who_came_in_by_a_password_goes_with_it(jar: FakeJar, password: str | None) -> None:
    with served(jar.state_dir) as one, ExitStack() as stack:
        access.set_password(jar.state_dir, "a long pass word")
        clients = [stack.enter_context(httpx.Client(base_url=one.url)) for _ in range(2)]
        for client, shown in zip(clients, ({"password": "a long pass word"}, {"token": one.token}), strict=True):
            assert client.post("/api/v1/session", json=shown).status_code == 204
            assert client.get("/api/v1/state").status_code == 200
        access.set_password(jar.state_dir, password)
        assert [client.get("/api/v1/state").status_code for client in clients] == [401, 200]


def test_a_password_that_is_replaced_while_it_is_looked_at_lets_nobody_in(jar: FakeJar, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = access.is_password

    def slowly(given: str, hash: str) -> bool:
        right = looks(given, hash)
        access.set_password(jar.state_dir, "another pass word")
        return right

    with served(jar.state_dir) as one, httpx.Client(base_url=one.url) as client:
        access.set_password(jar.state_dir, "a long pass word")
        monkeypatch.setattr(access, "is_password", slowly)
        assert client.post("/api/v1/session", json={"password": "a long pass word"}).status_code == 401
        assert client.get("/api/v1/state").status_code == 401


def test_of_1000_streams_as_many_are_told_as_may_and_the_rest_are_refused(jar: FakeJar) -> None:
    with served(jar.state_dir) as one, ExitStack() as stack:
        asks = stream_head(one)
        socks = [stack.enter_context(raw(one, asks)) for _ in range(1000)]
        codes = Counter(status_of(sock) for sock in socks)
        assert codes[200] == stream.LISTENERS and codes[503] == 1000 - stream.LISTENERS, codes
        assert one.dashboard.stream.listeners == stream.LISTENERS
        # the refused are gone; whoever does not listen is served as ever
        with httpx.Client(base_url=one.url, headers=one.bearer) as client:
            until(lambda: client.get("/api/v1/state").status_code == 200, "a place for who asks once")
        for sock in socks:
            sock.close()
        until(lambda: one.dashboard.stream.listeners == 0, "those that went are forgotten")
        with raw(one, asks) as again:
            assert status_of(again) == 200


def test_who_does_not_read_is_given_up_and_costs_nobody_else_anything(jar: FakeJar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STUCK_S", 1.0)
    with served(jar.state_dir) as one, ExitStack() as stack:
        slow = [stack.enter_context(raw(one, stream_head(one), receive_bytes=4096)) for _ in range(20)]
        until(lambda: one.dashboard.stream.listeners == 20, "all of them listen")
        quick = stack.enter_context(raw(one, stream_head(one)))
        heard = until(lambda: b"text/event-stream" in quick.recv(65536), "it is served")
        assert heard
        said = 0
        quick.settimeout(0.05)
        end = time.monotonic() + PATIENCE_S
        while one.dashboard.stream.listeners > 1:
            assert time.monotonic() < end, f"{one.dashboard.stream.listeners} still there"
            for _ in range(20):
                jar.say("THOUGHT", "subject", "x" * 16_000, life=1)
                said += 1
            try:
                while quick.recv(1 << 20):
                    pass
            except TimeoutError:
                pass
        assert one.dashboard.stream.listeners == 1, "the one that reads"
        assert said * 16_000 > 20 * 4096
        del slow


def test_who_says_nothing_is_closed_and_takes_nobodys_place_for_long(jar: FakeJar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    with served(jar.state_dir) as one, ExitStack() as stack:
        idle = [stack.enter_context(raw(one, b"GET /healthz HTTP/1.1\r\nHost: 127.0" if n % 2 else b"")) for n in range(400)]
        with httpx.Client(base_url=one.url) as client:
            until(lambda: client.get("/healthz").status_code == 200, "a place")
        for sock in idle:
            assert status_of(sock) in (0, 408, 503)
        kept = stack.enter_context(raw(one, head(one, "GET /healthz")))
        answer = kept.recv(4096)
        while not answer.endswith(b"ok\n"):
            answer += kept.recv(4096)
        time.sleep(0.2)
        kept.sendall(head(one, "GET /healthz"))
        assert status_of(kept) == 200, "who has asked may ask again"


def test_long_and_slow_bodies_and_heads_end_early(jar: FakeJar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BODY_S", 0.3)
    with served(jar.state_dir, control=True) as one:
        url = "POST /api/v1/personas/subject/say"
        auth = f"Authorization: Bearer {one.token}"
        with raw(one, head(one, url, auth, "Content-Length: 10000000000")) as sock:
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += sock.send(b"x" * 65536)
            except OSError:
                pass
            assert sent < 32 << 20, "it was not listened to for long"
        with raw(one, head(one, url, auth, "Content-Length: 100") + b"{") as sock:
            assert status_of(sock) == 408
        with raw(one, head(one, "GET /healthz", "X: " + "y" * (server.HEAD_BYTES * 8))) as sock:
            assert status_of(sock) in (0, 400, 431)
        body = b'{"text":"' + b"x" * BODY_BYTES + b'"}'
        assert httpx.post(f"{one.url}/api/v1/personas/subject/say", content=body, headers=one.bearer).status_code == 413
        assert {request["cmd"] for request in jar.requests} <= {"status"}


def test_a_websocket_is_told_what_a_stream_is_and_only_to_who_may(jar: FakeJar) -> None:
    with served(jar.state_dir) as one:
        url = f"ws://127.0.0.1:{one.port}/ws"
        wrong: list[tuple[dict[str, Any], int]] = [
            ({}, 401),
            ({"additional_headers": {"authorization": "Bearer nonsense"}}, 401),
            ({"additional_headers": one.bearer, "origin": "http://evil.example"}, 403),
        ]
        for more, code in wrong:
            with pytest.raises(websockets.exceptions.InvalidStatus) as refused, connect(url, **more):
                pass
            assert refused.value.response.status_code == code, more
        with raw(one) as sock, pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            connect("ws://evil.example/ws", sock=sock, additional_headers=one.bearer)
        assert refused.value.response.status_code == 421
        with connect(url, additional_headers=one.bearer, origin=Origin(one.url)) as socket:
            until(lambda: one.dashboard.stream.listeners == 1, "it listens")
            until(lambda: one.dashboard.hears, "the bus is heard")
            jar.say("THOUGHT", "subject", "<b>a stone</b>", life=2)
            while (heard := json.loads(socket.recv(PATIENCE_S)))["event"]["type"] != "THOUGHT":
                pass
            assert heard["event"]["content"] == "<b>a stone</b>" and heard["id"] == f"{heard['event']['epoch']}.{heard['event']['seq']}"
            jar.say("DEATH", "subject", "gone", life=2)
        with connect(f"{url}?since={heard['id']}", additional_headers=one.bearer) as again:
            assert json.loads(again.recv(PATIENCE_S))["event"]["type"] == "DEATH", "who comes back is told the rest"
            again.send("x" * (BODY_BYTES * 2))
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                while True:
                    again.recv(PATIENCE_S)
        until(lambda: one.dashboard.stream.listeners == 0, "both are gone")


def unsafe(state_dir: Path) -> None:
    (state_dir / access.TOKEN).chmod(0o644)


@pytest.mark.parametrize(
    ("every_s", "spoils"), [(0.01, access.rotate), (3600.0, access.rotate), (3600.0, unsafe)], ids=["busy", "quiet", "unsafe"]
)
def test_another_token_ends_sessions_and_streams(
    jar: FakeJar, monkeypatch: pytest.MonkeyPatch, every_s: float, spoils: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "PING_S", 0.1)
    over = threading.Event()

    def talk() -> None:
        jar.say("THOUGHT", "subject", "and on")
        while not over.wait(every_s):
            jar.say("THOUGHT", "subject", "and on")

    with served(jar.state_dir) as one, httpx.Client(base_url=one.url, timeout=PATIENCE_S) as client:
        until(lambda: one.dashboard.hears, "the bus is heard")
        talks = threading.Thread(target=talk)
        talks.start()
        try:
            assert client.post("/api/v1/session", json={"token": one.token}).status_code == 204
            with (
                client.stream("GET", "/api/v1/events") as told,
                connect(one.url.replace("http", "ws") + "/ws", additional_headers=one.bearer),
            ):
                assert told.status_code == 200
                until(lambda: one.dashboard.stream.listeners == 2, "both listen")
                spoils(jar.state_dir)
                until(lambda: one.dashboard.stream.listeners == 0, "both have ended")
                for _ in told.iter_bytes():
                    pass  # and here it has, too
            if spoils is unsafe:
                assert "others may read or write it" in client.get("/api/v1/state").json()["error"]
                access.rotate(jar.state_dir)
            assert client.get("/api/v1/state").status_code == 401
            assert client.post("/api/v1/session", json={"token": one.token}).status_code == 204
            assert not caplog.records
        finally:
            over.set()
            talks.join()


def test_a_session_outlives_the_dashboard_and_what_was_missed_is_had_from_the_jar(jar: FakeJar) -> None:
    with served(jar.state_dir) as one, httpx.Client(base_url=one.url) as client:
        assert client.post("/api/v1/session", json={"token": one.token}).status_code == 204
        cookie = {"cookie": f"brainjar={client.cookies['brainjar']}"}
    jar.say("SAID", "subject", "first")
    jar.say("SAID", "subject", "missed")
    with served(jar.state_dir) as one, httpx.Client(base_url=one.url, headers=cookie) as client:
        assert client.get("/api/v1/state").status_code == 200
        assert client.get("/api/v1/events?since=yesterday").status_code == 422
        assert client.head("/api/v1/events").headers["content-type"].startswith("text/event-stream"), "and that is all of it"
        for query, headers in (("", {"last-event-id": "1.1"}), ("?since=1.1", {}), ("?since=1.99", {"last-event-id": "1.1"})):
            with client.stream("GET", f"/api/v1/events{query}", headers=headers) as told:
                for line in told.iter_lines():
                    if line.startswith("data: ") and json.loads(line[6:]).get("content") == "missed":
                        break
                else:
                    raise AssertionError("it was not told")


def test_a_unix_socket_is_its_owners_and_a_stale_one_is_replaced(jar: FakeJar, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with served(jar.state_dir, socket=str(path)) as one:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", headers=one.bearer) as client:
            assert client.get("/api/v1/state").json()["jar"] == "test"
        with pytest.raises(BrainjarError, match="somebody listens there already"):
            Served(jar.state_dir, socket=str(path))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BrainjarError, match="cannot be listened at"):
        Served(jar.state_dir, socket=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_it_does_not_listen_where_it_should_not(jar: FakeJar) -> None:
    with pytest.raises(UsageError, match="beyond loopback"):
        Served(jar.state_dir, host="0.0.0.0")
    with pytest.raises(UsageError, match="no such address"):
        Served(jar.state_dir, host="nobody.invalid", names=("x",))
    with served(jar.state_dir) as one, pytest.raises(BrainjarError, match="another port"):
        Served(jar.state_dir, port=one.port)
    access.token(jar.state_dir)
    os.chmod(jar.state_dir / access.TOKEN, 0o644)
    with pytest.raises(access.TokenError):
        Served(jar.state_dir)
