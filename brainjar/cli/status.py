"""brainjar status [--json]

One look at a running jar: its supervisor, its personas, what the watchdog senses, what of each memory cap is in force, and
what of its computed context each leaves to its next life.
Exit 3 where none runs.
--json: one object, {"jar", "supervisor": {...}, "personas": [...], "lease": [...], "watchdog": {...}, "snapshots": {...}}.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from brainjar.cli import which

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers
    from brainjar.messages import Layer, PersonaStatus, Status


def add_parser(subparsers: Subparsers) -> None:
    parser = which.add_parser(subparsers, "status", "one look at a running jar", __doc__)
    parser.add_argument("--json", action="store_true", help="one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from brainjar.client import control
    from brainjar.messages import encode

    status = control.status(which.running(args))
    print(encode(status).decode() if args.json else "\n".join(_lines(status, time.time())))
    return 0


def _lines(status: Status, now: float) -> list[str]:
    from brainjar.units import format_size
    from brainjar.view.words import clean, span

    s = status.supervisor
    lease = ", ".join(status.lease) or "nobody"
    waiting = sorted((p for p in status.personas if p.waiting_s is not None and not p.paused), key=lambda p: -(p.waiting_s or 0.0))
    if waiting:
        lease += f" (waiting: {', '.join(f'{p.name} {p.waiting_s:.1f} s' for p in waiting)})"
    head = f"jar {status.jar}  pid {s.pid}  up {span(s.uptime_s)}  rss {format_size(s.rss_bytes)}  epoch {s.epoch}  thinks now: {lease}"
    lines = [head]
    if s.ledger_error:
        lines.append(f"the ledger cannot be written: {clean(s.ledger_error)}")
    lines += ["", *_aligned([_TITLES, *(_row(p, now) for p in status.personas)])]
    lines += [f"{p.name}: {clean(p.reason)}" for p in status.personas if p.reason]
    lines += [f"{p.name}: paused ({', '.join(p.paused)})" for p in status.personas if p.paused]
    lines += [f"{p.name}: at its cap in {span(p.cap_in_s)} at this rate" for p in status.personas if p.cap_in_s is not None]
    if waits := [f"{p.name} (pid {p.standby_pid})" for p in status.personas if p.standby_pid is not None]:
        lines.append(f"forked in advance, next lives that wait: {', '.join(waits)}")
    lines += dict.fromkeys(f"{clean(p.model)}: {p.mode}, as {clean(p.why_mode)}" for p in status.personas if p.why_mode)
    lines += dict.fromkeys(f"{clean(p.model)}: weights {clean(p.layout)}" for p in status.personas if p.layout)
    lines += _engines(status, now)
    lines += _watchdog(status)
    lines += _web(status)
    layers = [
        (p.name, layer.name, _bytes(layer.limit_bytes), _bytes(layer.used_bytes), "yes" if layer.effective else "no", _about(layer))
        for p in status.personas
        for layer in p.memory.layers
    ]
    if layers:
        lines += ["", *_aligned([("PERSONA", "LAYER", "LIMIT", "USED", "EFFECTIVE", "COUNTS"), *layers])]
    lines += _snapshots(status, now)
    walls = [(p.name, *_walls(p)) for p in status.personas if p.sandbox]
    if walls:
        lines += ["", *_aligned([("PERSONA", "WALLS THAT STAND"), *((name, standing) for name, standing, _ in walls)])]
        lines += [f"{name}: no wall: {wall}" for name, _, missing in walls for wall in missing]
    return lines


def _engines(status: Status, now: float) -> list[str]:
    from brainjar.view.words import clean, span

    rows = [
        (
            *(clean(e.model), e.state, span(now - e.since), str(e.pid or "-"), str(e.deaths), str(e.cells), str(e.threads)),
            *(str(e.tokens), f"{e.tokens / e.batches:.1f}" if e.batches else "-", ", ".join(e.personas)),
        )
        for e in status.engines
    ]
    titles = ("ENGINE", "STATE", "FOR", "PID", "DEATHS", "KV CELLS", "THREADS", "TOKENS", "A BATCH", "COMPUTES FOR")
    lines = ["", *_aligned([titles, *rows])] if rows else []
    return lines + [f"the engine of {clean(e.model)} ended last because {clean(e.why)}" for e in status.engines if e.why]


def _web(status: Status) -> list[str]:
    from brainjar.view.words import clean

    if (web := status.web) is None:
        return []
    how = f"pid {web.pid}" if web.serves else f"not yet: {clean(web.why)}" if web.why else "not yet"
    return ["", f"the dashboard is at {clean(web.where)} ({how})"]


def _watchdog(status: Status) -> list[str]:
    from brainjar.view.words import clean

    w = status.watchdog
    lines = ["the watchdog only says what it would do (--watchdog-dry-run)"] if w.dry_run else []
    lines += [f"the watchdog senses nothing: {clean(w.blind)}"] if w.blind else []
    lines += [f"nobody is born, and one thinks at a time: {clean(w.danger)}"] if w.danger else []
    rows = [
        (s.sense, clean(s.where), _amount(s.sense, s.value), _amount(s.sense, s.mark), s.level or "-", clean(s.why or s.note))
        for s in w.senses
    ]
    return [*lines, "", *_aligned([("SENSE", "WHERE", "NOW", "MARK", "LEVEL", ""), *rows])] if rows else lines


def _snapshots(status: Status, now: float) -> list[str]:
    """The contexts that are left to next lives, where they stand, and what that costs the disk."""
    from brainjar.view.words import clean, span

    def since(at: float | None) -> str:
        return "-" if at is None else f"{span(max(0.0, now - at))} ago"

    rows = [
        (
            *(p.name, str(s.tokens), _bytes(s.bytes), since(s.memory_at)),
            *(str(s.disk_tokens), _bytes(s.disk_bytes), since(s.disk_at), _bytes(s.disk_written_bytes_day), clean(s.why)),
        )
        for p in status.personas
        if (s := p.snapshot) is not None
    ]
    if not rows:
        return []
    titles = ("SNAPSHOT", "TOKENS", "MEMORY", "LEFT", "TOKENS", "DISK", "WRITTEN", "LAST DAY", "")
    total = status.snapshots
    spent = (
        f"snapshots wrote {_bytes(total.disk_written_bytes_day)} to disk in the last day, of {_bytes(total.write_budget_bytes_day)} a day"
    )
    return ["", *_aligned([titles, *rows]), *([spent] if total.disk else [])]


def _amount(sense: str, value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f} {'°C' if sense == 'heat' else '%'}"


def _about(layer: Layer) -> str:
    return layer.counts if layer.effective or not layer.why else f"{layer.counts}; not in force: {layer.why}"


def _walls(p: PersonaStatus) -> tuple[str, list[str]]:
    """The names of those that stand; of the others, the name and why."""
    return (
        " ".join(guard.name for guard in p.sandbox if guard.effective),
        [f"{guard.name} ({guard.how})" for guard in p.sandbox if not guard.effective],
    )


_TITLES = ("NAME", "ROLE", "STATE", "FOR", "PID", "LIFE", "DEATHS", "PRIVATE", "CAP", "CPUS", "TOKENS", "TOK/S", "LAST DEATH")


def _row(p: PersonaStatus, now: float) -> tuple[str, ...]:
    from brainjar.units import format_cpus
    from brainjar.view.words import clean, countdown, span

    state: str = p.state
    if p.retry_at is not None:
        state += f" (again in {countdown(p.retry_at - now)})"
    last = f"{clean(p.last_death.cause)}, {span(now - p.last_death.at)} ago" if p.last_death else "-"
    return (
        p.name,
        p.role,
        state,
        span(now - p.since),
        str(p.pid or "-"),
        str(p.life),
        str(p.deaths),
        _bytes(p.memory.private_bytes),
        _bytes(p.memory.cap_bytes),
        format_cpus(p.cpus),
        str(p.tokens),
        f"{p.tokens_per_s:.1f}",
        last,
    )


def _bytes(count: int | None) -> str:
    from brainjar.units import format_size

    return "-" if count is None else format_size(count)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
