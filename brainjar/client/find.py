"""Which jar is meant, and where it keeps things.

A supervisor leaves a card, `jar.json`, in its state directory and in its runtime directory. A card may be stale: a jar
runs if something listens on its control socket, and only then.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from brainjar import paths
from brainjar.bus import CONTROL
from brainjar.errors import BrainjarError, NoJar, UsageError
from brainjar.tables import nearest

CARD: Final = "jar.json"
SYSTEM: Final = (Path("/run/brainjar"), Path("/run/brainjar-jars"))
"""Where system services have their runtime directories: one jar, and those of a template."""
CARD_BYTES: Final = 64 * 1024


class Jar(msgspec.Struct, frozen=True, kw_only=True):
    """A card: what a supervisor says about itself."""

    jar: str
    pid: int
    state_dir: Path
    runtime_dir: Path
    version: str = ""


_decoder = msgspec.json.Decoder(Jar, dec_hook=lambda kind, value: kind(value))


def find(name: str | None = None, state_dir: Path | None = None) -> Jar:
    """The jar of `state_dir`, else the one called `name`, else the only one that runs.

    Raise `NoJar` where none runs, `UsageError` where several are meant.
    """
    if state_dir is not None:
        card = _read(state_dir / CARD)
        if card is None or not is_running(card.runtime_dir):
            raise NoJar(f"no jar runs in {state_dir}; start it: brainjar supervise --state-dir {state_dir}")
        return card
    jars = [jar for jar in running() if name is None or jar.jar == name]
    if len(jars) == 1:
        return jars[0]
    if jars:
        listed = ", ".join(f"{jar.jar} (pid {jar.pid}, --state-dir {jar.state_dir})" for jar in jars)
        raise UsageError(f"{len(jars)} jars run: {listed}; say which with --jar or --state-dir")
    closed = [str(place) for place in _places() if place.is_dir() and not os.access(place, os.R_OK | os.X_OK)]
    aside = f"; {', '.join(closed)} may not be read by this user" if closed else ""
    what = f"no jar {name} runs" if name else "no jar runs"
    looked = ", ".join(str(place) for place in _places())
    raise NoJar(f"{what} (looked in {looked}{aside}); start one: brainjar supervise, or name its --state-dir")


def at(runtime_dir: Path) -> Jar | None:
    """The jar that runs in `runtime_dir`."""
    card = _read(runtime_dir / CARD)
    return card if card is not None and is_running(runtime_dir) else None


def running() -> list[Jar]:
    """Every jar of this user, and of the system where it may be seen, that answers; each once, by name."""
    found: dict[Path, Jar] = {}
    for path in _cards():
        card = _read(path)
        if card is not None and is_running(card.runtime_dir):
            found.setdefault(card.runtime_dir, card)
    return sorted(found.values(), key=lambda jar: (jar.jar, str(jar.state_dir)))


def is_running(runtime_dir: Path) -> bool:
    """Whether a supervisor listens there. A stopped (SIGSTOP) one still does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            return probe.connect_ex(str(runtime_dir / CONTROL)) in (0, errno.EAGAIN)
        except OSError:  # a path that is too long for a unix socket
            return False


def state_dir(name: str | None = None, given: Path | None = None) -> Path:
    """Where the files of a jar are, whether it runs or not: `given`, else a running jar's, else that of `name` or the only one.

    Raise `NoJar` where there is none, `UsageError` where several are meant.
    """
    if given is not None:
        if not given.is_dir():
            raise NoJar(f"{given} is no directory; --state-dir takes the state directory of a jar")
        return given
    try:
        return find(name).state_dir
    except NoJar:
        pass
    if name is not None:
        path = paths.default_state_dir(name)
        if not _looks_like_state(path):
            raise NoJar(f"no jar {name} runs and {path} holds none; name its --state-dir")
        return path
    base = paths.default_state_dir("x").parent
    kept = [path for path in _listed(base) if _looks_like_state(path)]
    if len(kept) == 1:
        return kept[0]
    if kept:
        raise UsageError(f"{base} holds {len(kept)} jars: {', '.join(path.name for path in kept)}; say which with --jar or --state-dir")
    raise NoJar(f"no jar runs and {base} holds none; name a --state-dir")


def persona_file(directory: Path, pattern: str, name: str) -> Path:
    """The file of persona `name` among `directory`/`pattern`, whose first * stands for the name.

    A name is only ever compared with what is there, so that none can lead outside. Raise `UsageError` for an unknown one.
    """
    at = pattern.split("/")[0]
    before, after = at.split("*")
    there = {path.name.removeprefix(before).removesuffix(after): path for path in sorted(directory.glob(at))}
    if name not in there:
        raise UsageError(f'no persona "{_plain(name)}" in {directory}; {nearest(name, there)}')
    return there[name] / pattern.partition("/")[2]


def raise_for(code: int, say: str) -> None:
    """Turn what a jar answered with exit status `code` into the error that ends a command so."""
    if code:
        raise {2: UsageError, 3: NoJar}.get(code, BrainjarError)(say)


def _places() -> list[Path]:
    """Directories whose subdirectories are runtime directories. The one in /tmp anybody may have made: see `_cards`."""
    base = paths.default_runtime_dir("x").parent
    return list(dict.fromkeys((base, Path(f"/run/user/{os.getuid()}/brainjar"), Path(f"/tmp/brainjar-{os.getuid()}"), *SYSTEM)))


def _cards() -> Iterator[Path]:
    for place in _places():
        try:
            if place.parts[:2] == ("/", "tmp") and place.lstat().st_uid not in (0, os.geteuid()):
                continue
        except OSError:
            continue
        for directory in (place, *_listed(place)):
            yield directory / CARD


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError:
        return []


def _read(path: Path) -> Jar | None:
    try:
        with path.open("rb") as f:
            return _decoder.decode(f.read(CARD_BYTES))
    except (OSError, msgspec.DecodeError):
        return None


def _looks_like_state(path: Path) -> bool:
    return (path / "ledger.db").exists() or (path / "minds").is_dir()


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:64]
