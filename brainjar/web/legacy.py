"""The API of the program that brainjar replaces, for what was written against it: `/api/status` and its like, told of this jar."""

from __future__ import annotations

import time
from typing import Any

import psutil  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from brainjar.messages import PersonaStatus, Status
from brainjar.web.api import MOST_LINES, NAME, Api, limit_of, name_of
from brainjar.web.openapi import Endpoint, Query


class Legacy:
    def __init__(self, api: Api) -> None:
        self._api = api

    def endpoints(self) -> list[Endpoint]:
        faults = (409, 503)
        who = Query(name="name", says="The persona.", schema=NAME, within="path")
        numbers = {"type": "integer", "minimum": 1, "maximum": MOST_LINES, "default": 100}
        limit = Query(name="limit", says="Not more than so many.", schema=numbers)
        whose = Query(name="instance_id", says="Of this one only.", schema=NAME)
        old = dict[str, Any]
        return [
            Endpoint(
                method="GET",
                path="/api/health",
                says="Old: whether the dashboard lives, and the jar.",
                handler=self._health,
                gives=old,
                open=True,
            ),
            Endpoint(method="GET", path="/api/status", says="Old: the jar.", handler=self._status, gives=old, faults=faults),
            Endpoint(method="GET", path="/api/instances", says="Old: the personas.", handler=self._instances, gives=old, faults=faults),
            Endpoint(
                method="GET",
                path="/api/instance/{name}",
                says="Old: one persona.",
                handler=self._instance,
                gives=old,
                queries=(who,),
                faults=(404, *faults),
            ),
            Endpoint(
                method="GET",
                path="/api/logs",
                says="Old: what minds have said.",
                handler=self._logs,
                gives=old,
                queries=(limit, whose),
                faults=(409,),
            ),
            Endpoint(method="GET", path="/api/metrics", says="Old: the host.", handler=self._metrics, gives=old, faults=faults),
        ]

    async def _health(self, request: Request) -> Response:
        """Unlike before, it is only healthy where it is."""
        try:
            await self._api.status()
        except Exception:
            return JSONResponse({"status": "unhealthy", "timestamp": time.time()})
        return JSONResponse({"status": "healthy", "timestamp": time.time()})

    async def _status(self, request: Request) -> Response:
        status = await self._api.status()
        return JSONResponse(
            {
                "status": "running",
                "jar": status.jar,
                "uptime": status.supervisor.uptime_s,
                "instances": {persona.name: _instance(persona) for persona in status.personas},
                "system_metrics": _host(status),
            }
        )

    async def _instances(self, request: Request) -> Response:
        return JSONResponse({"instances": [_instance(persona) for persona in (await self._api.status()).personas]})

    async def _instance(self, request: Request) -> Response:
        return JSONResponse(_instance(await self._api.named(request.path_params["name"])))

    async def _logs(self, request: Request) -> Response:
        limit, name = limit_of(request, 100), name_of(request, "instance_id")
        found = await self._api.read(lambda: self._api.thoughts(name, "", limit))
        logs = [{"timestamp": one.at, "instance_id": one.persona, "type": one.kind, "content": one.content} for one in found]
        return JSONResponse({"logs": logs})

    async def _metrics(self, request: Request) -> Response:
        return JSONResponse(_host(await self._api.status()))


def _instance(persona: PersonaStatus) -> dict[str, Any]:
    return {
        "instance_id": persona.name,
        "role": persona.role,
        "state": persona.state,
        "crash_count": persona.deaths,
        "memory_usage": persona.memory.private_bytes,
        "memory_limit": persona.memory.cap_bytes,
        "current_output": persona.thought,
        "current_mood": persona.mood or "neutral",
        "tokens_per_second": persona.tokens_per_s,
    }


def _host(status: Status) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    heat = [sense.value for sense in status.watchdog.senses if sense.sense == "heat" and sense.value is not None]
    return {
        "timestamp": time.time(),
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": memory.percent,
        "memory_used": memory.used,
        "memory_total": memory.total,
        "temperature": max(heat, default=None),
    }
