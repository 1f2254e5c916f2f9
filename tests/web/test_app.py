"""The API: who is let in, what is told, what is done, and what nobody gets by asking badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from brainjar.config import Web
from brainjar.ledger import Ledger
from brainjar.messages import Death
from brainjar.persona.mind import Mind
from brainjar.web import access
from brainjar.web.app import Dashboard, Settings
from brainjar.web.door import BODY_BYTES
from tests.fakejar import FakeJar
from tests.patience import PATIENCE_S

BASE = "http://127.0.0.1:8095"
Open = Callable[..., TestClient]


@pytest.fixture
def opened(jar: FakeJar) -> Iterator[Open]:
    """A client of a dashboard; of one that has shown the token, where it is not told otherwise."""
    clients: list[TestClient] = []

    def open_dashboard(*, shows: bool = True, **settings: Any) -> TestClient:
        dashboard = Dashboard(Settings(state_dir=jar.state_dir, web=Web(**settings)))
        client = TestClient(dashboard.app(), base_url=BASE)
        client.dashboard = dashboard  # type: ignore[attr-defined]
        client.__enter__()
        clients.append(client)
        if shows:
            client.headers["authorization"] = f"Bearer {access.token(jar.state_dir)}"
        return client

    yield open_dashboard
    for client in clients:
        client.__exit__(None, None, None)


LOOKED = (
    *("/metrics", "/api/v1/state", "/api/v1/personas/subject", "/api/v1/deaths", "/api/v1/thoughts", "/api/v1/samples", "/api/v1/events"),
    *("/api/v1/session", "/api/status", "/api/instances", "/api/instance/subject", "/api/logs", "/api/metrics"),
)


@pytest.mark.parametrize("path", LOOKED)
def test_nothing_is_told_without_a_token(opened: Open, path: str) -> None:
    client = opened(shows=False)
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"authorization": "Bearer " + "x" * 43}).status_code == 401
    assert client.get(path, headers={"cookie": "brainjar=guess"}).status_code == 401


def test_a_token_is_exchanged_for_a_session_that_no_script_sees(opened: Open, jar: FakeJar) -> None:
    client = opened(shows=False)
    shown = client.post("/api/v1/session", json={"token": access.token(jar.state_dir)})
    assert shown.status_code == 204
    cookie = shown.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and access.token(jar.state_dir) not in cookie
    assert client.get("/api/v1/state").json()["jar"] == "test"
    assert client.delete("/api/v1/session").status_code == 204
    assert client.get("/api/v1/state").status_code == 401
    assert client.get("/api/v1/state", headers={"cookie": cookie.split(";")[0]}).status_code == 401, "it is over, whoever has kept it"


def test_10000_guesses_are_ten(opened: Open, jar: FakeJar) -> None:
    client = opened(shows=False)
    codes = [client.post("/api/v1/session", json={"token": f"guess {n}"}).status_code for n in range(300)]
    assert codes == [401] * 10 + [429] * 290
    right = client.post("/api/v1/session", json={"token": access.token(jar.state_dir)})
    assert right.status_code == 429 and int(right.headers["retry-after"]) <= 61, "nor is the right one looked at meanwhile"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8095", ""])
def test_another_name_is_not_answered(opened: Open, host: str) -> None:
    assert opened().get("/api/v1/state", headers={"host": host}).status_code == 421


def test_a_page_of_elsewhere_may_not_act(opened: Open, jar: FakeJar) -> None:
    client = opened(control=True)
    url = "/api/v1/personas/subject/kill"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert client.post(url, headers={"origin": origin}).status_code == 403
    assert not any(request["cmd"] == "kill" for request in jar.requests)
    assert client.post(url, headers={"origin": BASE}).status_code == 200


@pytest.mark.parametrize("action", ["say", "pause", "resume", "restart", "kill"])
def test_what_is_done_is_done_only_where_it_may_be(opened: Open, jar: FakeJar, action: str) -> None:
    url, body = f"/api/v1/personas/subject/{action}", {"text": "Hello."} if action == "say" else None
    assert opened().post(url, json=body).status_code == 403
    assert not any(request["cmd"] == action for request in jar.requests)
    done = opened(control=True).post(url, json=body)
    assert done.status_code == 200 and action in done.json()["said"]
    (request,) = (request for request in jar.requests if request["cmd"] == action)
    assert request["name"] == "subject" and request.get("text") == (body or {}).get("text")


def test_who_is_killed_is_told_why_by_the_words_that_brainjar_kill_takes(opened: Open, jar: FakeJar) -> None:
    assert opened(control=True).post("/api/v1/personas/subject/kill", json={"cause": "a test"}).status_code == 200
    assert [(request["name"], request["text"]) for request in jar.requests if request["cmd"] == "kill"] == [("subject", "a test")]


def test_asking_badly_gets_the_right_code_and_does_nothing(opened: Open, jar: FakeJar) -> None:
    client = opened(control=True)
    assert client.post("/api/v1/personas/nobody/kill").status_code == 404
    assert client.post("/api/v1/personas/subject/explode").status_code == 404
    assert client.post("/api/v1/personas/subject/say", content=b"x" * (BODY_BYTES + 1)).status_code == 413
    for content in (b"", b"[]", b"{", b'{"text": 1}', b'{"text": "a", "more": 1}', b"\xff", b"[" * 5000):
        assert client.post("/api/v1/personas/subject/say", content=content).status_code == 422, content
    assert client.post("/api/v1/personas/subject/kill", content=b'{"cause": ["x"]}').status_code == 422
    assert client.get("/api/v1/personas/..%2f..%2fetc").status_code == 404
    for query in (
        "persona=../../x",
        "persona=",
        "persona=Subject",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=%C2%B2",
        f"search={'x' * 201}",
    ):
        assert client.get(f"/api/v1/thoughts?{query}").status_code == 422, query
        assert client.get(f"/api/v1/deaths?{query}").status_code == 422, query
    for query in ("hours=0", "hours=nan", "hours=169", "hours=x", "persona=%00"):
        assert client.get(f"/api/v1/samples?{query}").status_code == 422, query
    assert client.put("/api/v1/state").status_code == 405
    assert {request["cmd"] for request in jar.requests} <= {"status"}


def test_every_answer_says_that_nothing_foreign_may_be_loaded(opened: Open) -> None:
    client = opened(shows=False)
    for answer in (client.get("/healthz"), client.get("/nowhere"), client.get("/metrics"), client.get("/healthz", headers={"host": "x"})):
        assert "default-src 'none'" in answer.headers["content-security-policy"] and answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_told_is_what_is_there(opened: Open, jar: FakeJar) -> None:
    ledger = Ledger(jar.state_dir / "ledger.db")
    ledger.begin("subject", 1, 1, 1.0)
    ledger.died(Death(persona="subject", life=1, birth=1, at=2.0, cause="segv"))
    ledger.begin("subject", 2, 2, 3.0)
    ledger.died(Death(persona="subject", life=2, birth=2, at=4.0, cause="killed", last_words="Of Stone"))
    ledger.close()
    mind = Mind(jar.state_dir / "minds" / "subject" / "mind.db")
    mind.add(1, [("thought", "subject", "<script>alert(1)</script>"), ("thought", "subject", "a stone")])
    mind.close()
    client = opened()
    state = client.get("/api/v1/state").json()
    assert [persona["name"] for persona in state["personas"]] == ["subject", "observer"]
    assert client.get("/api/v1/personas/observer").json()["state"] == "ready"
    for query, causes in (("", ["segv", "killed"]), ("?limit=1", ["killed"]), ("?search=SEG", ["segv"]), ("?search=stone", ["killed"])):
        assert [death["cause"] for death in client.get(f"/api/v1/deaths{query}").json()] == causes, query
    assert client.get("/api/v1/deaths?persona=observer").json() == []
    found = client.get("/api/v1/thoughts?search=STONE&persona=subject")
    assert [line["content"] for line in found.json()] == ["a stone"] and found.headers["content-type"] == "application/json"
    assert client.get("/api/v1/thoughts?persona=observer").json() == []
    assert "brainjar_persona_up" in client.get("/metrics").text


def test_a_jar_that_is_gone_is_told_and_the_dashboard_lives_on(opened: Open, jar: FakeJar) -> None:
    client = opened()
    assert client.get("/readyz").text == "ok\n"
    jar.__exit__()
    time.sleep(0.6)
    try:
        assert client.get("/api/v1/state").status_code == 503 and "no jar runs" in client.get("/api/v1/state").json()["error"]
        assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
    finally:
        (jar.runtime_dir / "control").unlink()
        jar._over, jar._thread = threading.Event(), threading.Thread(target=jar._run)
        jar.__enter__()


def test_many_who_look_at_once_ask_the_jar_once(opened: Open, jar: FakeJar) -> None:
    client = opened()
    for _ in range(50):
        assert client.get("/api/v1/state").status_code == 200
    assert sum(request["cmd"] == "status" for request in jar.requests) < 15


def test_the_ring_is_told_again_to_who_comes_back(opened: Open, jar: FakeJar) -> None:
    client = opened()
    dashboard: Dashboard = client.dashboard  # type: ignore[attr-defined]
    end = time.monotonic() + PATIENCE_S
    while len(dashboard.stream.ring) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
        jar.say("THOUGHT", "subject", "line\nbreak", life=1)
    held = list(dashboard.stream.ring._held)
    again = dashboard.stream.ring.after(held[0].id) or []
    assert [one.id for one in again][: len(held) - 1] == [one.id for one in held[1:]]
    assert all(b"\n" not in one.body and json.loads(one.body)["seq"] == one.id.seq for one in held)
