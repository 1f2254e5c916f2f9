"""A jar's status as metrics, in Prometheus' text format and after its conventions: base units, `_total` for what only grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from brainjar.messages import PersonaStatus, Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATES: Final = ("starting", "loading", "ready", "thinking", "paused", "stopping", "stopped", "dead", "backoff", "failed")


def text(status: Status) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Jar(status))
    return generate_latest(registry)


class _Jar:
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status, own = self._status, self._status.supervisor
        info = GaugeMetricFamily("brainjar_info", "The jar; always 1.", labels=("jar", "version"))
        info.add_metric((status.jar, own.version), 1)
        yield info
        yield GaugeMetricFamily("brainjar_uptime_seconds", "Since the supervisor started.", value=own.uptime_s)
        yield GaugeMetricFamily("brainjar_supervisor_resident_bytes", "Memory of the supervisor.", value=own.rss_bytes)
        yield GaugeMetricFamily("brainjar_ledger_ok", "1: the ledger can be written.", value=own.ledger_error is None)
        yield GaugeMetricFamily("brainjar_danger", "1: a mark of the watchdog is passed.", value=bool(status.watchdog.danger))
        yield from self._personas()
        yield from self._senses()

    def _personas(self) -> Iterator[Metric]:
        personas = self._status.personas
        yield _gauge("brainjar_persona_up", "1: its worker is ready or thinks.", personas, lambda p: p.state in ("ready", "thinking"))
        state = GaugeMetricFamily("brainjar_persona_state", "1 for the state that it is in.", labels=("persona", "state"))
        for persona in personas:
            for name in _STATES:
                state.add_metric((persona.name, name), persona.state == name)
        yield state
        yield _counter("brainjar_persona_deaths", "Deaths, over all supervisors.", personas, lambda p: p.deaths)
        yield _counter("brainjar_persona_tokens", "Tokens of its present life.", personas, lambda p: p.tokens)
        yield _gauge("brainjar_persona_tokens_per_second", "While it thinks.", personas, lambda p: p.tokens_per_s)
        yield _gauge("brainjar_persona_memory_bytes", "What it owns privately.", personas, lambda p: p.memory.private_bytes)
        yield _gauge("brainjar_persona_memory_cap_bytes", "What it may own.", personas, lambda p: p.memory.cap_bytes)
        yield _gauge("brainjar_persona_heartbeat_age_seconds", "Since its last sign of life.", personas, lambda p: p.beat_age_s)

    def _senses(self) -> Iterator[Metric]:
        percent = GaugeMetricFamily("brainjar_sense_ratio", "What the watchdog reads of the host, 0 to 1.", labels=("sense", "where"))
        celsius = GaugeMetricFamily("brainjar_sense_celsius", "Temperatures that it reads.", labels=("where",))
        for sense in self._status.watchdog.senses:
            if sense.value is None:
                continue
            if sense.sense == "heat":
                celsius.add_metric((sense.where,), sense.value)
            else:
                percent.add_metric((sense.sense, sense.where), sense.value / 100)
        yield percent
        yield celsius


def _gauge(name: str, words: str, personas: tuple[PersonaStatus, ...], value: object) -> Metric:
    return _fill(GaugeMetricFamily(name, words, labels=("persona",)), personas, value)


def _counter(name: str, words: str, personas: tuple[PersonaStatus, ...], value: object) -> Metric:
    return _fill(CounterMetricFamily(name, words, labels=("persona",)), personas, value)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, personas: tuple[PersonaStatus, ...], value: object) -> Metric:
    assert callable(value)
    for persona in personas:
        if (found := value(persona)) is not None:
            family.add_metric((persona.name,), float(found))
    return family
