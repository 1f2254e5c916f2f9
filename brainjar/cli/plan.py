"""brainjar plan [--config FILE] [--set KEY=VALUE]… [--model M] [--state-dir DIR] [--json]

Whether the jar fits this host, before anything is loaded: weights, contexts and buffers by llama.cpp's own dry run, caps, threads,
against the machine's memory and the limit around the jar (MemoryMax of its unit, where this runs in it).
--json: one object, {"jar", "fits", "models", "personas", "devices", "totals", "problems", "notes"}.
Exit 0 where it fits, 1 where it does not or a model is not fetched yet, 2 on a wrong config or a file that is no model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainjar.cli.which import Subparsers
    from brainjar.plan import Plan


def add_parser(subparsers: Subparsers) -> None:
    p = subparsers.add_parser(
        "plan",
        help="whether the jar fits, before anything is loaded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--config", type=Path, metavar="FILE", help="default: ./brainjar.toml, else the shipped matrix")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. persona.subject.memory=8GiB")
    p.add_argument("--model", metavar="M", help="a name in the catalog or the path of a GGUF, for all personas without one of their own")
    p.add_argument("--state-dir", type=Path, metavar="DIR")
    p.add_argument("--json", action="store_true", help="one object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import msgspec

    from brainjar import config as configs
    from brainjar.cli import planning, trials

    path, said = configs.find_config(args.config)
    if said:
        print(f"brainjar: {said}", file=sys.stderr)
    config = configs.load(path, args.overrides, model=args.model, state_dir=args.state_dir)
    planning.check_fetched(config)
    headers = planning.headers(config)
    plan = planning.make(trials.known(config, headers), headers)
    print(msgspec.json.encode(plan).decode() if args.json else "\n".join(_lines(plan)))
    return 0 if plan.fits else 1


def _lines(plan: Plan) -> Iterator[str]:
    from brainjar.units import format_size as size

    t = plan.totals
    yield f"jar {plan.jar}: {'fits' if plan.fits else 'does not fit'}; {size(t.total_bytes)} of {size(t.bound_bytes)}, {t.bound}"
    yield ""
    models = [
        (
            *(m.name, str(m.context), size(m.weights_bytes), size(m.repacked_bytes) if m.repacked_bytes else "no"),
            *(size(m.context_bytes), size(m.process_bytes), size(m.total_bytes), m.mode, ", ".join(m.personas)),
        )
        for m in plan.models
    ]
    yield from _aligned(
        [("MODEL", "CONTEXT", "WEIGHTS", "REPACKED", "ITS CONTEXT", "PROCESS", "TOGETHER", "MODE", "LOADED ONCE FOR"), *models]
    )
    yield ""
    yield from dict.fromkeys(f"{m.name}: {m.mode}, as {m.why}" for m in plan.models)
    yield from dict.fromkeys(f"{m.name}: weights {m.layout}" for m in plan.models if m.layout)
    yield ""
    personas = [
        (
            *(p.name, p.model, str(p.context), size(p.kv_bytes), size(p.compute_bytes), size(p.output_bytes), size(p.bookkeeping_bytes)),
            *(size(p.worker_bytes), size(p.least_cap_bytes), size(p.cap_bytes), _window(p.largest_window, p.growth)),
            *(size(p.snapshot_bytes), *([size(p.standby_bytes)] if t.standbys_bytes else []), str(p.threads)),
        )
        for p in plan.personas
    ]
    titles = (
        "PERSONA",
        "MODEL",
        "CONTEXT",
        "KV",
        "COMPUTE",
        "OUTPUT",
        "TABLES",
        "WORKER",
        "LEAST CAP",
        "CAP",
        "WINDOW",
        "SNAPSHOT",
        *(["STANDBY"] if t.standbys_bytes else []),
        "THREADS",
    )
    yield from _aligned([titles, *personas])
    places = [
        (m.name, place.name, size(place.weights_bytes), size(place.context_bytes), size(place.compute_bytes), size(place.total_bytes))
        for m in plan.models
        for place in m.places
    ]
    if places:
        yield ""
        yield from _aligned([("ENGINE", "MEMORY", "WEIGHTS", "CELLS", "COMPUTE", "TOGETHER"), *places])
    if plan.devices:
        yield ""
        used = {place.name for m in plan.models for place in m.places}
        devices = [
            (d.name, d.kind, size(d.free_bytes), size(d.total_bytes), d.description, "yes" if d.name in used else "no: gpu_layers = 0")
            for d in plan.devices
        ]
        yield from _aligned([("DEVICE", "KIND", "FREE", "OF", "WHAT", "USED"), *devices])
    yield ""
    yield from _aligned(
        [
            ("weights", size(t.weights_bytes), "once for each model and context"),
            ("zygotes", size(t.zygotes_bytes), "their contexts and processes"),
            ("caps", size(t.caps_bytes), "all that the personas may come to own"),
            ("snapshots", size(t.snapshots_bytes), "their contexts, kept for their next lives"),
            *([("standbys", size(t.standbys_bytes), "their next lives, forked in advance")] if t.standbys_bytes else []),
            ("supervisor", size(t.supervisor_bytes), ""),
            *([("dashboard", size(t.dashboard_bytes), "")] if t.dashboard_bytes else []),
            ("together", size(t.total_bytes), f"of {size(t.bound_bytes)}, {t.bound}; {size(t.available_bytes)} are free now"),
            *([("disk", size(t.disk_bytes), _disk(plan))] if t.disk_bytes else []),
            ("threads", str(t.threads), f"at once, on {t.cpus} CPUs"),
        ]
    )
    if plan.problems or plan.notes:
        yield ""
    yield from (f"does not fit: {problem.words}" for problem in plan.problems)
    yield from (f"note: {note}" for note in plan.notes)


def _disk(plan: Plan) -> str:
    from brainjar.units import format_size

    free = plan.totals.disk_free_bytes
    return "snapshots on disk, at the most" + ("" if free is None else f"; {format_size(free)} are free there")


def _window(tokens: int, growth: str) -> str:
    """The tokens that its window can reach."""
    return "-" if not tokens else f"to {tokens}" if growth == "context" else str(tokens)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
