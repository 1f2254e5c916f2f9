"""What several parts need: jars for a measurement, processes looked at from outside, time taken on the kernel's clock."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.parts import Unmeasurable
from brainjar import models
from brainjar.engine.snapshot import Snapshots
from brainjar.messages import Envelope
from tests.patience import PATIENCE_S
from tests.system.harness import Jar, Listener

MIB: Final = 1 << 20
SMALL: Final = "smollm2-135m"
LARGE: Final = "qwen2.5-coder-1.5b"
LIGHT: Final = (sys.executable, "-m", "benchmarks.programs.light")
"""brainjar, whose workers hold no model (`programs/light.py`)."""
HEAD: Final = """
[jar]
name = "bench"
[model]
{model}
context = {context}
[restart]
pause = "0s"
intensity = 1000000
{restart}
[sampling]
max_tokens = {max_tokens}
"""


def config(
    personas: Sequence[str] = ("subject",),
    *,
    model: str = f'name = "{SMALL}"',
    context: int = 2048,
    max_tokens: int = 120,
    restart: str = "",
    each: str = "",
) -> str:
    """The text of a jar's config: nobody sees anybody, deaths have no pause. `each`: more lines for every persona."""
    head = HEAD.format(model=model, context=context, max_tokens=max_tokens, restart=restart)
    return head + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\n{each}\n' for name in personas)


def small_model() -> Path:
    """Raise `Unmeasurable` where it is not here."""
    entry = models.lookup(SMALL)
    if not models.is_present(entry):
        raise Unmeasurable(f"the model {SMALL} is not here: brainjar models fetch {SMALL}")
    return entry.path


@contextmanager
def jar_of(
    text: str, *args: str, view: str = "none", program: Sequence[str] = (sys.executable, "-m", "brainjar"), **more: Any
) -> Iterator[Jar]:
    """A jar of its own, ended with all that it started."""
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        root = Path(place)
        (root / "bench.toml").write_text(text)
        jar = Jar(root, root / "bench.toml", *args, view=view, program=program, **more)
        try:
            yield jar.start()
        finally:
            try:
                jar.clean_up()
            except AssertionError as error:  # what was measured must not be lost for it
                print(f"  {error}", file=sys.stderr)


@contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bj") as name:
        yield Path(name)


# ── a jar's workers ──


def all_ready(listener: Listener, names: Sequence[str], life: int | None = None) -> dict[str, Envelope | None]:
    """Wait until each of `names` is READY (in that `life`); the event of those of whom it was heard here, None for the others."""
    assert listener.snapshot is not None
    found: dict[str, Envelope | None] = {}
    if life is None:
        there = listener.snapshot.metadata["status"]["personas"]
        found = {p["name"]: None for p in there if p["name"] in names and p["state"] in ("ready", "thinking", "paused")}
    while len(found) < len(names):
        event, _ = listener.until("READY", where=lambda e: life is None or e.life == life)
        if event.sender_id in names:
            found[event.sender_id] = event
    return found


def pids(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in jar.status()["personas"] if p["pid"]}


def order(jar: Jar, cmd: str, name: str) -> None:
    """pause, resume: returns with the effect there. Raise RuntimeError where the jar refuses."""
    answer, _ = jar.ask(cmd, name=name)
    if answer.get("exit"):
        raise RuntimeError(f"{cmd} {name}: {answer}")


def has_standby() -> bool:
    """Whether this brainjar knows `restart.standby`."""
    from brainjar.schema import RawRestart

    return "standby" in RawRestart.__struct_fields__


@contextmanager
def stopped(jar: Jar) -> Iterator[None]:
    """The whole jar in its tracks, so that somebody else has the cores."""
    everybody = [jar.pid, *jar.descendants()]
    for pid in everybody:
        with suppress(ProcessLookupError):  # it has ended since it was listed
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(everybody):
            with suppress(ProcessLookupError):  # the jar was ended meanwhile
                os.kill(pid, signal.SIGCONT)


class Gone(threading.Thread):
    """Notes when the pidfd of a process is readable: when the kernel has taken it apart, which no supervisor can hasten."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pidfd = os.pidfd_open(pid)
        self.at_ns = 0
        self.start()

    def run(self) -> None:
        select.select([self._pidfd], [], [], PATIENCE_S)
        self.at_ns = time.monotonic_ns()
        os.close(self._pidfd)

    def since(self, start_ns: int) -> float:
        """Milliseconds; waits for it."""
        self.join()
        return (self.at_ns - start_ns) / 1e6


# ── processes from outside ──


def cpu_ns(pid: int) -> int:
    """CPU time of all its threads; schedstat counts nanoseconds."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB


def rollup(pid: int) -> dict[str, int]:
    """smaps_rollup in bytes: Pss, Private_Clean, Private_Dirty, …"""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def private_mib(pid: int) -> float:
    """What no other process maps."""
    found = rollup(pid)
    return (found["Private_Clean"] + found["Private_Dirty"]) / MIB


def mapped_bytes(pid: int, file: Path) -> int:
    """Its share (PSS) of a file's pages."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(f" {file}")
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


@contextmanager
def left_of(jar: Jar, name: str) -> Iterator[Snapshots]:
    """The context that a persona's newest turn has left to its next life, as its supervisor holds it."""
    fds: dict[str, int] = {}
    try:
        for entry in Path(f"/proc/{jar.pid}/fd").iterdir():
            try:
                link = os.readlink(entry)
            except OSError:  # closed meanwhile
                continue
            for which in ("a", "b"):
                if link.startswith(f"/memfd:brainjar-{which}-{name} "):
                    fds[which] = os.open(entry, os.O_RDWR)
        if len(fds) != 2:
            raise RuntimeError(f"the supervisor holds no snapshots of {name} by the names that are looked for")
        yield Snapshots((fds["a"], fds["b"]))
    finally:
        for fd in fds.values():
            os.close(fd)


def memfd_bytes(pid: int) -> int:
    """Memory of the memfds that a process holds, mapped by anybody or not."""
    total, seen = 0, set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:"):
                stat = os.stat(entry)
                total += 0 if stat.st_ino in seen else stat.st_blocks * 512
                seen.add(stat.st_ino)
        except OSError:
            continue
    return total
