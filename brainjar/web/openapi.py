"""What the API takes and gives, as the table that it is served from; and that table as an OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from brainjar import __version__

Handler = Callable[[Request], Awaitable[Response]]


class Fault(msgspec.Struct, frozen=True):
    """What every answer that is none says."""

    error: str


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that may stand after the `?`, or in the path."""

    name: str
    says: str
    schema: dict[str, Any]
    within: str = "query"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    says: str
    handler: Handler
    gives: Any = None
    """A type, which is told as JSON; a media type, as a text; None: nothing, status 204."""
    takes: type[msgspec.Struct] | None = None
    """The body."""
    takes_nothing_too: bool = False
    queries: tuple[Query, ...] = ()
    faults: tuple[int, ...] = ()
    """Statuses beside those that every endpoint of its kind may have."""
    open: bool = False
    """To those without a token."""
    acts: bool = False
    """It is not only for looking."""

    @property
    def statuses(self) -> tuple[int, ...]:
        found = {421, *self.faults}
        if not self.open:
            found |= {401, 429}
        if self.queries or self.takes is not None:
            found.add(422)
        if self.takes is not None:
            found |= {400, 408, 413}
        if self.method != "GET":
            found.add(403)
        if self.acts:
            found |= {400, 404, 409}
        return tuple(sorted(found))


WORDS: Final = {
    400: "The jar does not take that.",
    401: "No session, no token, or a wrong one.",
    403: "Asked for by a page of elsewhere, or by a dashboard that may only look.",
    404: "There is nobody and nothing of that name.",
    408: "The body did not come in time.",
    409: "The jar could not do it.",
    413: "The body is too long.",
    421: "The dashboard is not called what `Host` says.",
    422: "Not what is wanted.",
    429: "This peer was wrong too often; `Retry-After` says for how long.",
    503: "The jar does not answer, or as many listen as may.",
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = [kind for one in endpoints for kind in (one.gives, one.takes) if kind is not None and not isinstance(kind, str)]
    schemas, components = msgspec.json.schema_components([*types, Fault], ref_template="#/components/schemas/{name}")
    known = dict(zip(map(str, types), schemas, strict=False))
    fault = schemas[-1]
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, known, fault)
    return {
        "openapi": "3.1.0",
        "info": {"title": "brainjar", "version": __version__, "description": "A jar, over HTTP: to look at it, and to act where it may."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "What `brainjar web token` prints."},
                "session": {"type": "apiKey", "in": "cookie", "name": "brainjar", "description": "Given for the token."},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _operation(one: Endpoint, known: dict[str, Any], fault: dict[str, Any]) -> dict[str, Any]:
    if one.gives is None:
        answer: dict[str, Any] = {"204": {"description": "Done."}}
    elif isinstance(one.gives, str):
        answer = {"200": {"description": "Well.", "content": {one.gives: {"schema": {"type": "string"}}}}}
    else:
        answer = {"200": {"description": "Well.", "content": {"application/json": {"schema": known[str(one.gives)]}}}}
    for status in one.statuses:
        answer[str(status)] = {"description": WORDS[status], "content": {"application/json": {"schema": fault}}}
    found: dict[str, Any] = {"summary": one.says, "responses": answer}
    if one.queries:
        found["parameters"] = [
            {
                "name": query.name,
                "in": query.within,
                "required": query.within == "path",
                "description": query.says,
                "schema": query.schema,
            }
            for query in one.queries
        ]
    if one.takes is not None:
        body = {"application/json": {"schema": known[str(one.takes)]}}
        found["requestBody"] = {"required": not one.takes_nothing_too, "content": body}
    if one.open:
        found["security"] = []
    return found
