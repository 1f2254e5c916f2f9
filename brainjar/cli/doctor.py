"""brainjar doctor [--config FILE] [--json]

What this host can enforce and sense, each thing with its state, what follows and how to enable it; then, for every persona of
the config, which layers of its memory cap and which walls are to be expected. Whatever can be tried is tried, in processes
that are thrown away; nothing is started, made or changed. What is not there is "n/a".
--json: one object, {"host": [{"name","group","state","value","consequence","how"}], "personas": [{"name","layers","walls","why"}]}.
Exit 0 whatever is found: it is a report. 2 on a wrong config.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from brainjar.cli.which import Subparsers
    from brainjar.config import Config, Persona
    from brainjar.isolation.cgroups import Found
    from brainjar.isolation.findings import Finding
    from brainjar.isolation.namespaces import Spaces
    from brainjar.messages import Guard, Layer

_TITLES: Final = {
    "host": "HOST",
    "caps": "LAYERS OF THE MEMORY CAP",
    "cgroups": "CGROUPS",
    "senses": "SENSES",
    "walls": "WALLS",
    "limits": "LIMITS",
    "llama.cpp": "LLAMA.CPP",
}
_LEAST_WIDTH, _MOST_WIDTH = 60, 120
_MOST_NAME, _STATE, _LEAST_TEXT = 24, 6, 20


class Expected(TypedDict):
    """What one persona will have here."""

    name: str
    layers: tuple[Layer, ...]
    walls: tuple[Guard, ...]
    why: str
    """Why `walls` is empty; else ""."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what this host can enforce and sense, and how to enable the rest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: ./brainjar.toml, else the shipped matrix")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import shutil

    from brainjar import config as configs
    from brainjar.engine import build
    from brainjar.isolation import cgroups, host, namespaces, storage
    from brainjar.messages import encode
    from brainjar.watchdog import findings as senses

    path, said = configs.find_config(args.config)
    if said:
        print(f"brainjar: {said}", file=sys.stderr)
    config = configs.load(path)
    found, spaces = cgroups.survey(), namespaces.probe()
    findings = (
        *host.survey(found, spaces, sum(p.memory for p in config.personas)),
        storage.survey(config.jar.state_dir, config.snapshots.write_budget if config.snapshots.disk else 0),
        *senses.survey(config.jar.state_dir),
        *build.findings(build.ask()),
    )
    findings = tuple(sorted(findings, key=lambda finding: list(_TITLES).index(finding.group)))
    personas = expected(config, found, spaces, {finding.name: finding for finding in findings if finding.group == "caps"})
    if args.json:
        print(encode({"host": findings, "personas": personas}).decode())
    else:
        width = min(max(shutil.get_terminal_size((80, 24)).columns, _LEAST_WIDTH), _MOST_WIDTH)
        print("\n".join(table(findings, personas, width)))
    return 0


# ── for every persona ─────────────────────────────────────────────────────────────────────────────────────────────────


def expected(config: Config, found: Found, spaces: Spaces, caps: Mapping[str, Finding]) -> list[Expected]:
    """`caps`: the findings about the layers of the memory cap, by name."""
    walls = _walls(config, found, spaces)
    return [
        Expected(
            name=persona.name,
            layers=_layers(persona, found, caps),
            walls=put_up if isinstance(put_up, tuple) else (),
            why=put_up if isinstance(put_up, str) else "",
        )
        for persona, put_up in zip(config.personas, walls, strict=True)
    ]


def _layers(persona: Persona, found: Found, caps: Mapping[str, Finding]) -> tuple[Layer, ...]:
    from brainjar import gguf
    from brainjar.isolation import rlimits
    from brainjar.messages import Layer
    from brainjar.supervisor.housing import snapshot_room

    try:
        group_limit: int | None = persona.memory + 2 * snapshot_room(persona, gguf.read(persona.model.path))
        unsaid = ""
    except gguf.GgufError as error:
        group_limit, unsaid = None, f"how large it is depends on the model: {error}"

    def why(name: str) -> str:
        return "" if caps[name].state == "yes" else "; ".join(filter(None, (caps[name].consequence, caps[name].how)))

    rlimit, cgroup, watch = (caps[name].state == "yes" for name in ("rlimit", "cgroup", "watch"))
    pages = "pages that it touched first, of files and of the context that it leaves to its next life as well"
    private = "pages that no other process maps, looked at by the supervisor"
    return (
        Layer(
            name="rlimit",
            limit_bytes=persona.memory if rlimit else None,
            used_bytes=None,
            effective=rlimit,
            counts=rlimits.COUNTS,
            why=why("rlimit"),
        ),
        Layer(
            name="cgroup",
            limit_bytes=group_limit if cgroup else None,
            used_bytes=None,
            effective=cgroup,
            counts=pages,
            why=unsaid if cgroup else found.why or why("cgroup"),
        ),
        Layer(
            name="watch",
            limit_bytes=persona.memory if watch else None,
            used_bytes=None,
            effective=watch,
            counts=private,
            why=why("watch"),
        ),
    )


def _walls(config: Config, found: Found, spaces: Spaces) -> list[tuple[Guard, ...] | str]:
    """Those of every persona, put up in earnest around a process that is thrown away; or why that fails, and a birth with it."""
    import functools
    import tempfile

    from brainjar.isolation import findings, sandbox
    from brainjar.messages import Guard, Walls
    from brainjar.supervisor.housing import THREADS

    ids, whys = _users(config, spaces)

    def put_up(walls: Walls, connected: bool) -> tuple[Guard, ...] | str:
        """`connected`: somebody that has the same model keeps the network, so the zygote does too."""
        try:
            left = sandbox.prepare(user_namespace=spaces.user_namespace, network=connected)
            return sandbox.put_up(walls, os.getppid(), left_network=left)
        except Exception as error:
            return f"they cannot be put up, and a birth fails: {error}"

    shown: list[tuple[Guard, ...] | str] = []
    for persona in config.personas:
        own = ids.get(persona.name)
        connected = any(other.sandbox.network for other in config.personas if other.model.shared == persona.model.shared)
        try:
            with tempfile.TemporaryDirectory(prefix="brainjar-doctor-") as place:
                writable = (os.path.join(place, "mind"), os.path.join(place, "home"))
                for directory in writable:
                    os.mkdir(directory, 0o700)
                    if own is not None:
                        os.chown(directory, *own)
                walls = Walls(
                    uid=own[0] if own else None,
                    gid=own[1] if own else None,
                    network=persona.sandbox.network,
                    file_size=persona.sandbox.file_size,
                    nice=persona.nice,
                    ionice=persona.ionice,
                    oom_score_adj=persona.oom_score_adj,
                    writable=writable,
                    hidden=(place,),
                    mounts=spaces.mounts,
                    threads=THREADS + persona.threads,
                    threads_counted=found.version == "v2" and "pids" in found.controllers,
                    why_same_user=whys.get(persona.name, ""),
                )
                shown.append(findings.tried(functools.partial(put_up, walls, connected), tuple[Guard, ...] | str) or _SILENT)
        except OSError as error:
            shown.append(f"they could not be tried: {error.filename or ''}: {error.strerror}")
    return shown


_SILENT: Final = "they could not be tried: the process that was to put them up ended without a word"


def _users(config: Config, spaces: Spaces) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """(persona -> (uid, gid) of its own, persona -> why it has none): as `supervisor.housing` decides at start."""
    from brainjar.isolation import users
    from brainjar.supervisor.premises import MINDS

    owners: dict[str, int] = {}
    for persona in config.personas:
        try:
            owners[persona.name] = (config.jar.state_dir / MINDS / persona.name).stat().st_uid
        except OSError:
            continue  # not born yet
    decision = users.decide(
        {persona.name: persona.sandbox.user for persona in config.personas},
        owners,
        mounts=spaces.mounts and not spaces.user_namespace,
        salt=str(config.jar.state_dir),
    )
    return decision.ids, decision.same | {name: f"the jar will not start: {why}" for name, why in decision.impossible.items()}


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(findings: Iterable[Finding], personas: Iterable[Expected], width: int) -> list[str]:
    """Lines of at most `width` characters."""
    from brainjar.units import format_size

    groups: dict[str, list[tuple[str, str, list[str]]]] = {}
    for one in findings:
        remarks = [] if one.state == "yes" else [one.consequence, f"how: {one.how}" if one.how else ""]
        value = "" if one.value == one.state else one.value
        groups.setdefault(_TITLES.get(one.group, one.group), []).append((one.name, one.state, [value, *remarks]))
    for persona in personas:
        rows = groups.setdefault(f"PERSONA {persona['name']}: WHAT IS TO BE EXPECTED", [])
        for layer in persona["layers"]:
            limit = "limit n/a" if layer.limit_bytes is None else format_size(layer.limit_bytes)
            rows.append((f"cap: {layer.name}", _word(layer.effective), [f"{limit}: {layer.counts}" if layer.effective else "", layer.why]))
        rows += [(f"wall: {wall.name}", _word(wall.effective), [wall.how]) for wall in persona["walls"]]
        if persona["why"]:
            rows.append(("walls", "n/a", [persona["why"]]))
    indent = max(len(name) for rows in groups.values() for name, _, _ in rows)
    indent = min(indent, _MOST_NAME)
    found: list[str] = []
    for title, rows in groups.items():
        found += ["", title]
        for name, state, remarks in rows:
            found += _row(name, state, remarks, indent, width)
    return found[1:]


def _word(effective: bool) -> str:
    return "yes" if effective else "no"


def _row(name: str, state: str, remarks: list[str], indent: int, width: int) -> list[str]:
    import textwrap

    from brainjar.view.words import clean

    head = f"{clean(name).ljust(indent)}  {state.ljust(_STATE)}  "
    texts: list[str] = []
    for remark in filter(None, remarks):
        texts += textwrap.wrap(clean(remark), max(width - indent - _STATE - 4, _LEAST_TEXT), break_on_hyphens=False, subsequent_indent="  ")
    texts = texts or [""]
    return [(head + texts[0]).rstrip(), *(" " * (indent + _STATE + 4) + text for text in texts[1:])]
