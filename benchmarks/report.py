"""What was measured, kept as a JSON file for each part, and the pages made of it: RESULTS.md, results/PART.md, the pictures.

A part that is measured again replaces its own file, so its own rows, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks import pictures
from benchmarks.figures import Figure, Found, Peer, Ratio, Spread, is_asked, reached
from benchmarks.machine import Machine


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    part: str
    title: str
    at: str
    """When it ended, UTC, to the minute."""
    seconds: float
    load: tuple[float, float]
    """Load average over a minute, before and after: the part's own work is in the second."""
    machine: Machine
    found: Found
    failure: str = ""
    """Why a later run of it came to nothing; what is here was found before that."""


class Unreadable(Exception):
    """A file of results that is none: it names the file and what to do."""


def save(where: Path, one: Measurement) -> None:
    where.mkdir(parents=True, exist_ok=True)
    body = msgspec.json.format(msgspec.json.encode(one), indent=1)
    (where / f"{one.part}.json").write_bytes(body + b"\n")


def load(where: Path, parts: Iterable[str]) -> list[Measurement]:
    """Those that were ever measured, in the order of `parts`. Raise `Unreadable`."""
    found = []
    for part in parts:
        file = where / f"{part}.json"
        if not file.exists():
            continue
        try:
            found.append(msgspec.json.decode(file.read_bytes(), type=Measurement))
        except (OSError, msgspec.DecodeError) as error:
            raise Unreadable(f"{file}: is no result of a benchmark ({error}); remove it and run --only {part}") from None
    return found


def write(home: Path, measured: Sequence[Measurement], parts: Sequence[str]) -> list[Path]:
    """All pages and pictures into `home`; return the files."""
    results = home / "results"
    results.mkdir(parents=True, exist_ok=True)
    written = [home / "RESULTS.md"]
    written[0].write_text(page(measured, parts))
    for one in measured:
        written.append(results / f"{one.part}.md")
        written[-1].write_text(detail(one))
        for picture in one.found.pictures:
            written.append(results / f"{picture.name}.svg")
            written[-1].write_text(pictures.draw(picture))
    return written


# ── words for numbers ──


def number(value: float) -> str:
    """Three significant digits, in plain notation."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


def with_unit(value: float, unit: str) -> str:
    return f"{number(value)}{unit}" if unit in ("×", "") else f"{number(value)} {unit}"


def asked_in_words(one: Figure) -> str:
    words = []
    if one.asked.at_most is not None:
        words.append("none" if one.asked.at_most == 0 else f"≤ {with_unit(one.asked.at_most, one.unit)}")
    if one.asked.at_least is not None:
        words.append(f"≥ {with_unit(one.asked.at_least, one.unit)}")
    return "; ".join(words)


def measured_in_words(value: float | None, unit: str, of: str, found: Spread | None) -> str:
    if value is None:
        return ""
    words = f"**{with_unit(value, unit)}**"
    if found is not None and found.n > 1:
        words += f" ({number(found.min)} – {number(found.max)})" if of == "median" else f" ({of})"
    return words


def ratio_in_words(found: Ratio | None) -> str:
    if found is None:
        return ""
    return f"**{number(found.median)}×**" + (f" (≥ {number(found.lower)}×)" if found.n > 1 else "")


def ahead_in_words(peer: Peer) -> str:
    """How far ahead of this peer, and how far was asked."""
    asked = [f"≥ {number(peer.ahead)}×"] if peer.ahead is not None else []
    asked += [f"bound ≥ {number(peer.lower)}×"] if peer.lower is not None else []
    return ratio_in_words(peer.ratio) + (f", asked {', '.join(asked)}" if asked else "")


def peer_in_words(peer: Peer, unit: str, of: str) -> str:
    if peer.value is None:
        return f"{peer.name}: {peer.why}"
    return f"{peer.name}: {measured_in_words(peer.value, unit, of, peer.spread)}"


def verdict(one: Figure) -> str:
    if not is_asked(one):
        return ""
    return {True: "yes", False: "**no**", None: "not measured"}[reached(one)]


# ── pages ──

_HEAD = "| | asked | measured | peer, same run | ahead | reached |"
_RULE = "|---|---|---|---|---|---|"


def row(one: Figure) -> str:
    measured = f"not measured: {one.why}" if one.value is None else measured_in_words(one.value, one.unit, one.of, one.spread)
    peers = "<br>".join(peer_in_words(peer, one.unit, one.of) for peer in one.peers)
    ahead = "<br>".join(ahead_in_words(peer) for peer in one.peers) if any(peer.ratio for peer in one.peers) else ""
    return f"| {one.what} | {asked_in_words(one)} | {measured} | {peers} | {ahead} | {verdict(one)} |"


def page(measured: Sequence[Measurement], parts: Sequence[str]) -> str:
    """RESULTS.md: what was asked and what was measured, and where each part's own page is."""
    asked = [one for part in measured for one in part.found.figures if is_asked(one)]
    yes = sum(reached(one) is True for one in asked)
    lines = [
        "# Results",
        "",
        "Written by `make bench`; what each figure means and what makes a comparison fair: [README](README.md).",
        "",
        f"{yes} of {len(asked)} figures that were asked for are reached. Medians (min – max); *ahead*: how many times, pair by pair,",
        "median (lower 95 % bound by bootstrap). A peer's figure is from the same run, measured in turns.",
        "",
        _HEAD,
        _RULE,
        *map(row, asked),
        "",
    ]
    for part in measured:
        for picture in part.found.pictures:
            lines += [f"![{picture.title}](results/{picture.name}.svg)", ""]
    lines += [
        "## Where it was measured",
        "",
        "| part | when (UTC) | took | load, before → after | brainjar | |",
        "|---|---|---|---|---|---|",
    ]
    for part in measured:
        note = f"a later run failed: {part.failure}" if part.failure else ""
        version = part.machine.versions.get("brainjar", "")
        where, load = f"[{part.part}](results/{part.part}.md)", f"{part.load[0]} → {part.load[1]}"
        lines.append(f"| {where} | {part.at} | {part.seconds:.0f} s | {load} | {version} | {note} |")
    missing = [name for name in parts if name not in {part.part for part in measured}]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    lines += [""]
    for machine, names in _machines(measured):
        lines += [in_words(machine) + ("" if len(names) == len(measured) else f" ({', '.join(names)})"), ""]
    return "\n".join(lines).rstrip() + "\n"


def in_words(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if name != "brainjar")
    return f"{machine.cpu}, {machine.cores} cores (shared), {machine.memory_gib} GiB; Linux {machine.kernel}; {versions}."


def _machines(measured: Sequence[Measurement]) -> list[tuple[Machine, list[str]]]:
    """Each machine with the parts that were measured on it. The commit is told part by part."""
    found: list[tuple[Machine, list[str]]] = []
    for part in measured:
        alike = next((names for machine, names in found if in_words(machine) == in_words(part.machine)), None)
        if alike is None:
            found.append((part.machine, [part.part]))
        else:
            alike.append(part.part)
    return found


def detail(one: Measurement) -> str:
    """results/PART.md: every figure of it with its spread."""
    lines = [f"# {one.part}: {one.title}", "", one.found.conditions, ""]
    lines += [f"{one.at} UTC, load {one.load[0]} → {one.load[1]}; {in_words(one.machine)} brainjar {one.machine.versions['brainjar']}.", ""]
    lines += [_HEAD, _RULE, *map(row, one.found.figures), ""]
    spreads = [line for figure in one.found.figures for line in _spread_rows(figure)]
    if spreads:
        lines += ["| | unit | n | min | median | p90 | p99 | max |", "|---|---|---|---|---|---|---|---|", *spreads, ""]
    for table in one.found.tables:
        lines += [table, ""]
    lines += [f"- {note}" for note in one.found.notes]
    return "\n".join(lines).rstrip() + "\n"


def _spread_rows(figure: Figure) -> list[str]:
    rows = []
    for what, found in ((figure.what, figure.spread), *((f"— {peer.name}", peer.spread) for peer in figure.peers)):
        if found is not None:
            cells = " | ".join(number(v) for v in (found.min, found.median, found.p90, found.p99, found.max))
            rows.append(f"| {what} | {figure.unit} | {found.n} | {cells} |")
    return rows
