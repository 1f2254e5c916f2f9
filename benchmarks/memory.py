"""What a jar of three takes for its weights, beside three processes that load the same model; whether repacking pays here.

After 500 tokens each, context 2048: (Σ PSS of all processes of the jar, supervisor and senses included − KV) + the model
file's cached pages that nobody maps, ÷ the file's size. KV is what the minds fill: tokens held × bytes a token; the rest of
each cache, filled or not, stays counted, so the figure is no better than it is. The context that each turn leaves to the
next life lies in memfds of the supervisor and is told apart. The peer is what anybody starts: three processes with
llama-cpp-python's own way of loading, file mapped and repacked beside it.

Repacked or not: two processes on all cores, in turns, one as the jar chose at its start and the other. Private memory of a
newborn: smaps_rollup of workers that are READY and have computed nothing; the peer's is a process after it has loaded its
model and made its context.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Asked, Bar, Figure, Found, Peer, Picture, figure
from benchmarks.parts import Options, Unmeasurable
from benchmarks.thinking import Thinkers
from brainjar import fetching, gguf, models
from brainjar.errors import BrainjarError
from tests.system.harness import Jar

NAMES: Final = ("subject", "observer", "god")
CONTEXT: Final = 2048
TOKENS: Final = 500
TIMES, NEWBORN_MIB = 1.25, 10.0
WINDOW_S: Final = 6.0


def run(options: Options) -> Found:
    large = large_model(options)
    small = lab.small_model()
    size = large.stat().st_size
    cores = len(os.sched_getaffinity(0))
    options.say(f"the jar: 3 personas, {TOKENS} tokens each")
    own = of_the_jar(large)
    options.say("3 processes that load their own")
    peer, peer_private = of_processes(large, cores)
    options.say("newborns of the small model")
    small_newborn, small_private = of_newborns(small, cores)
    repacked, plain = repack_or_not(large, cores, options)
    whole = gguf.read(large).kv_bytes(len(NAMES) * CONTEXT)
    chosen = "not repacked" if own.layout.startswith("as in the file") else "repacked"
    rates = {"repacked": repacked, "not repacked": plain}
    other = next(way for way in rates if way != chosen)
    figures = (
        Figure(
            what="(Σ PSS − KV + cached, unmapped pages of the model) ÷ its size, 3 personas",
            unit="×",
            value=own.times(size),
            of="one look",
            asked=Asked(at_most=TIMES),
            peers=(Peer(name="3 processes", value=peer.times(size)),),
        ),
        Figure(
            what=f"the same with the whole cache of each mind taken off, filled or not ({CONTEXT:,} tokens)",
            unit="×",
            value=own.times(size, whole),
            of="one look",
            peers=(Peer(name="3 processes", value=peer.times(size, whole)),),
        ),
        figure(
            f"tokens/s as the jar loads the model ({chosen})",
            "tokens/s",
            rates[chosen],
            Against(name=other, values=rates[other]),
            better="higher",
        ),
        newborn("SmolLM2-135M", small_newborn, small_private),
        newborn("the large model", own.newborn, peer_private),
    )
    mib = lab.MIB
    table = "\n".join(
        [
            "| MiB | Σ PSS | KV that is filled | file cached, unmapped | left to next lives (memfds) |",
            "|---|---|---|---|---|",
            f"| the jar | {own.pss / mib:,.0f} | {own.kv / mib:,.0f} | {own.cached / mib:,.0f} | {own.left / mib:,.0f} |",
            f"| 3 processes | {peer.pss / mib:,.0f} | {peer.kv / mib:,.0f} | {peer.cached / mib:,.0f} | |",
        ]
    )
    by_process = "\n".join(["| PSS of the jar, MiB | |", "|---|---|", *(f"| {name} | {pss / mib:,.0f} |" for name, pss in own.processes)])
    bars = (
        Bar(label="brainjar, 3 personas", value=(own.pss - own.kv + own.cached) / mib, own=True),
        Bar(label="the model file itself", value=size / mib),
        Bar(label="3 processes that load it", value=(peer.pss - peer.kv + peer.cached) / mib),
    )
    return Found(
        conditions=f"{large.name}, {size / mib:,.0f} MiB; context {CONTEXT}, {TOKENS} tokens thought by each;"
        f" repacking measured with {cores} threads.",
        figures=figures,
        tables=(table, by_process),
        pictures=(
            Picture(name="memory", title="memory for three minds on a 1.5B model, KV apart, MiB", unit="", bars=bars, logarithmic=False),
        ),
    )


def newborn(model: str, own: Sequence[float], of_a_process: Sequence[float]) -> Figure:
    peer = Against(name="a process with a model of its own", values=of_a_process, paired=False)
    return figure(f"private memory of a newborn worker, {model}", "MiB", own, peer, asked=Asked(at_most=NEWBORN_MIB))


def large_model(options: Options) -> Path:
    """The file, fetched where the catalog has it and it is not here. Raise `Unmeasurable`."""
    if options.model is not None:
        return options.model.resolve()
    if lab.LARGE not in models.catalog():
        raise Unmeasurable(f"the catalog has no {lab.LARGE}; give a GGUF of about 1 GB with --model")
    entry = models.lookup(lab.LARGE)
    if not models.is_present(entry):
        options.say(f"fetching {lab.LARGE}, {entry.size_bytes / 1e9:.1f} GB")
        try:
            fetching.fetch(entry, lambda *_: None)
        except BrainjarError as error:
            raise Unmeasurable(str(error)) from None
    return entry.path


class Taken:
    """Bytes."""

    def __init__(self, pids: Sequence[tuple[str, int]], model: Path, tokens: int) -> None:
        self.processes = [(name, lab.rollup(pid)["Pss"]) for name, pid in pids]
        self.pss = sum(pss for _, pss in self.processes)
        self.kv = gguf.read(model).kv_bytes(tokens)
        self.cached = max(0, cached_bytes(model) - sum(lab.mapped_bytes(pid, model) for _, pid in pids))
        self.left = 0
        self.newborn: list[float] = []
        self.layout = ""
        """How the jar holds the weights, in its own words."""

    def times(self, size: int, kv: int | None = None) -> float:
        return (self.pss - (self.kv if kv is None else kv) + self.cached) / size


def of_the_jar(model: Path) -> Taken:
    text = lab.config(NAMES, model=f'path = "{model}"', context=CONTEXT, each='memory = "1GiB"')
    with lab.jar_of(text, "--force") as jar:
        jar.until_ready()
        newborn = unspent(jar)
        with jar.listening() as listener:
            while min(p["tokens"] for p in jar.status()["personas"]) < TOKENS:
                listener.until("THOUGHT")
        for name in NAMES:  # all at rest: nobody's pages move while they are counted
            lab.order(jar, "pause", name)
        held = []
        for name in NAMES:
            with lab.left_of(jar, name) as left:
                meta = left.peek()
            held.append(meta.n_past if meta else 0)
        pids = [("supervisor", jar.pid), *((comm(pid), pid) for pid in jar.descendants())]
        taken = Taken(pids, model, sum(held))
        taken.left = lab.memfd_bytes(jar.pid)
        taken.newborn, taken.layout = newborn, jar.status()["personas"][0]["layout"]
        return taken


def unspent(jar: Jar) -> list[float]:
    """Private MiB of those who are READY and still wait for their first lease. Raise RuntimeError when there is none."""
    found = []
    for one in jar.status()["personas"]:
        if one["state"] == "ready" and one["tokens"] == 0:
            mib = lab.private_mib(one["pid"])
            if next(p for p in jar.status()["personas"] if p["name"] == one["name"])["state"] == "ready":
                found.append(mib)
    if not found:
        raise RuntimeError("nobody waits for a first lease: no newborn could be looked at")
    return found


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def of_processes(model: Path, cores: int) -> tuple[Taken, list[float]]:
    """Three that load it as llama-cpp-python does, after as many tokens; and their private MiB before they have thought."""
    three = Thinkers("thinker", (model, CONTEXT, max(1, cores // 2), "--as", "llama-cpp-python"), count=3, plain=True)
    try:
        private = [lab.private_mib(pid) for pid in three.pids]
        three.rate(1.0, past=TOKENS)
        return Taken([("process", pid) for pid in three.pids], model, 3 * TOKENS), private
    finally:
        three.close()


def of_newborns(model: Path, cores: int) -> tuple[list[float], list[float]]:
    """Private MiB of workers that have only been born, and of processes that have only loaded."""
    with lab.jar_of(lab.config(NAMES, model=f'path = "{model}"', context=CONTEXT, each='memory = "256MiB"')) as jar:
        jar.until_ready()
        born = unspent(jar)
    three = Thinkers("thinker", (model, CONTEXT, cores, "--as", "llama-cpp-python"), count=3, plain=True)
    try:
        return born, [lab.private_mib(pid) for pid in three.pids]
    finally:
        three.close()


def repack_or_not(model: Path, cores: int, options: Options) -> tuple[list[float], list[float]]:
    """Tokens per second of both ways to load, in turns."""
    rounds = options.rounds(10)
    repacked = Thinkers("thinker", (model, CONTEXT, cores, "--as", "repack"))
    try:
        plain = Thinkers("thinker", (model, CONTEXT, cores, "--as", "no-repack"))
        try:
            a, b = [], []
            for n in range(rounds):
                options.say(f"repacked or not, round {n + 1} of {rounds}")
                a.append(repacked.rate(WINDOW_S, past=TOKENS))
                b.append(plain.rate(WINDOW_S, past=TOKENS))
            return a, b
        finally:
            plain.close()
    finally:
        repacked.close()


def cached_bytes(file: Path) -> int:
    """How much of it lies in the page cache: a fresh mapping, of which nothing is touched, asked by mincore. Raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    size = file.stat().st_size
    seen = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with open(file, "rb") as f:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), 0)
    if at in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{file} cannot be mapped")
    try:
        if libc.mincore(at, size, seen):
            raise OSError(ctypes.get_errno(), f"the kernel does not say what of {file} is cached")
    finally:
        libc.munmap(at, size)
    return sum(page & 1 for page in bytes(seen)) * mmap.PAGESIZE
