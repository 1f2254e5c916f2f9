"""The document says what the API does: every operation is asked what it says it takes, and much that it does not take. It must answer as
it says that it does, and never fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth
from starlette.routing import Route

from brainjar.ledger import Ledger
from brainjar.messages import Death
from brainjar.persona.mind import Mind
from tests.fakejar import FakeJar
from tests.web.served import Served, served


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with FakeJar(tmp_path_factory.mktemp("jar")) as jar:
        ledger = Ledger(jar.state_dir / "ledger.db")
        ledger.begin("subject", 1, 1, 1.0)
        ledger.died(Death(persona="subject", life=1, birth=1, at=2.0, cause="segv"))
        ledger.close()
        mind = Mind(jar.state_dir / "minds" / "subject" / "mind.db")
        mind.add(1, [("thought", "subject", "a stone")])
        mind.close()
        with served(jar.state_dir, control=True) as one:
            yield one


LEFT_OUT = frozenset({("GET", "/api/v1/events"), ("POST", "/api/v1/session")})
"""The stream never ends; and who logs in wrongly is soon not listened to."""
EXAMPLES = settings(
    max_examples=30, deadline=None, derandomize=True, phases=(Phase.generate,), database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_it_answers_as_it_says(one: Served, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{one.url}/api/v1/openapi.json")
    asked: Counter[str] = Counter()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if (operation.method.upper(), operation.path) in LEFT_OUT:
            continue
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.path_parameters or operation.body):
            continue  # there is nothing to get wrong

        @EXAMPLES
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(headers=one.bearer, excluded_checks=[ignored_auth])  # that has a test of its own
            asked[case.operation.label] += 1

        ask()
    assert len(asked) >= 10 and sum(asked.values()) >= 10 * len(asked) / 2, asked


def test_all_that_is_served_is_described_and_the_other_way_round(one: Served) -> None:
    paths = httpx.get(f"{one.url}/api/v1/openapi.json").json()["paths"]
    routes = {route.path for route in one.dashboard.app().routes if isinstance(route, Route)}
    told = {path: {method.upper() for method in methods} for path, methods in paths.items()}
    served_too = {path for path in routes if path.startswith(("/api", "/metrics", "/healthz", "/readyz"))} - {"/api/v1/openapi.json"}
    assert served_too == set(told)
    for path, methods in told.items():
        for method in methods:
            answer = httpx.request(method, one.url + path.replace("{name}", "nobody"), headers={"host": "evil.example"})
            assert answer.status_code == 421 and "421" in paths[path][method.lower()]["responses"]


def test_without_a_token_all_is_refused_but_what_is_said_to_be_open(one: Served) -> None:
    paths = httpx.get(f"{one.url}/api/v1/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            answer = httpx.request(method, one.url + path.replace("{name}", "subject"))
            if operation.get("security") == []:
                assert str(answer.status_code) in operation["responses"], (method, path)
            else:
                assert answer.status_code == 401, (method, path)


def test_logging_in_is_as_described(one: Served) -> None:
    with httpx.Client(base_url=one.url) as client:
        for content, code in ((b"", 422), (b"[]", 422), (b'{"tokens": "x"}', 422), (b"{}", 401), (b"x" * 70_000, 413)):
            assert client.post("/api/v1/session", content=content).status_code == code, content[:20]
        assert client.post("/api/v1/session", json={"token": one.token}).status_code == 204
        assert client.get("/api/v1/session").json() == {"control": True}
        assert client.delete("/api/v1/session").status_code == 204
