"""Metrics: what a scraper reads is what the status says, after Prometheus' conventions."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from brainjar.messages import SenseStatus, WatchdogStatus
from brainjar.web import metrics
from tests.fakejar import persona, status

SENSES = (
    SenseStatus(sense="host-memory", where="host", value=41.5, level="calm"),
    SenseStatus(sense="heat", where="cpu", value=61.0),
    SenseStatus(sense="gpu-load", where="", value=None, why="no GPU"),
)


def read(body: bytes) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.name.startswith("brainjar_") and family.documentation.endswith(".")
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def test_what_is_scraped_is_what_the_status_says() -> None:
    held = status(persona("ada", "thinking", deaths=3, tokens=70, tokens_per_s=28.5, beat_age_s=0.4), persona('b"\\\n', "dead", pid=None))
    held = msgspec.structs.replace(held, watchdog=WatchdogStatus(senses=SENSES, danger="memory"))
    found = read(metrics.text(held))
    wanted: dict[Any, float] = {
        ("brainjar_info", "test", "0"): 1,
        ("brainjar_uptime_seconds",): 60,
        ("brainjar_danger",): 1,
        ("brainjar_ledger_ok",): 1,
        ("brainjar_persona_up", "ada"): 1,
        ("brainjar_persona_up", 'b"\\\n'): 0,
        ("brainjar_persona_state", "ada", "thinking"): 1,
        ("brainjar_persona_state", "ada", "ready"): 0,
        ("brainjar_persona_deaths_total", "ada"): 3,
        ("brainjar_persona_tokens_total", "ada"): 70,
        ("brainjar_persona_tokens_per_second", "ada"): 28.5,
        ("brainjar_persona_memory_bytes", "ada"): 94 << 20,
        ("brainjar_persona_memory_cap_bytes", "ada"): 256 << 20,
        ("brainjar_persona_heartbeat_age_seconds", "ada"): 0.4,
        ("brainjar_sense_ratio", "host-memory", "host"): 0.415,
        ("brainjar_sense_celsius", "cpu"): 61,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert not any("gpu-load" in key for key in found) and ("brainjar_persona_heartbeat_age_seconds", 'b"\\\n') not in found
