"""Whether a jar fits its host, before anything is loaded: figures of the dry run + config + memory of the host -> `Plan`.

Pure: it knows no clock, no process and no file. `engine.dryrun` makes the figures, `isolation.hostmemory` the host's,
`cli.planning` brings them together.

What is counted, all in bytes. A *zygote* for each distinct (file, context): its weights once, whoever shares them, its context and
its own process. Where an engine computes: its weights, the pool of cells that its personas share, its own process and the zygote
that forks their workers; what lies on a GPU is counted there. Where each worker loads for itself, the file's pages once, as the
page cache has them. For each persona its *cap*, whole: it may use it. Its *snapshot*, the context that the supervisor keeps for its
next life in a memfd outside the cap, once for each persona, and once more for those who write one at the same time. Its *standby*,
where the next life is forked in advance: a second copy of its context, and a process. The supervisor.
Apart from all that, the disk: of each snapshot the one that stands, the one that is to replace it, one that was set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from brainjar.config import Config, Model, Persona, Placement
from brainjar.quota import LEAST_CELLS, Quota, pool_cells
from brainjar.units import format_size

MIB: Final = 1 << 20
SUPERVISOR_BYTES: Final = 44 * MIB
"""Resident memory of the supervisor (28 MiB) and its senses (12 MiB), measured with three personas."""
DASHBOARD_BYTES: Final = 48 * MIB
"""Resident memory of the dashboard while somebody listens, measured."""
ZYGOTE_BYTES: Final = 44 * MIB
"""Resident memory of a zygote beyond weights, context and what its dry run had allocated: Python, libraries, the chat template, a
heap rounded up to huge pages. Measured with SmolLM2: 41 MiB."""
WORKER_BYTES: Final = 12 * MIB
"""What a worker owns beyond its context: Python, sockets, mind. Measured with SmolLM2 at 512 to 8,192 tokens: 2 to 4 MiB, but the
zygote asks for 8 MiB beside the context, which comes out up to 3 MiB larger there than in the dry run, as its heap grows in huge pages."""
ON_DISK: Final = 3
"""Files of one snapshot at the most: see above."""
THREAD_BYTES: Final = 1 * MIB
"""Each compute thread after the first: its stack of 512 KiB (`engine.llama.STACK`), and a margin. Measured: 0.5 MiB."""


class Buffer(Struct, frozen=True, kw_only=True):
    """Weights that lie in one kind of memory: "CPU", "CPU_REPACK", "CUDA0"."""

    name: str
    bytes: int


class Place(Struct, frozen=True, kw_only=True):
    """What lies in one kind of memory, by its name: "CPU", "CUDA0". Bytes."""

    name: str
    weights_bytes: int
    context_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.compute_bytes


class Window(Struct, frozen=True, kw_only=True):
    """What llama.cpp allocates for a context. Bytes."""

    asked: int
    """Tokens asked for."""
    n_ctx: int
    """Tokens that llama.cpp makes of it: it rounds up."""
    kv_bytes: int
    compute_bytes: int
    output_bytes: int
    bookkeeping_bytes: int
    """Graphs and tables of cells: mostly address space that is never touched, but RLIMIT_DATA counts it."""
    places: tuple[Place, ...] = ()
    """The same by kind of memory, weights as well; () where llama.cpp does not tell."""

    @property
    def owned_bytes(self) -> int:
        """What a cap counts."""
        return self.touched_bytes + self.bookkeeping_bytes

    @property
    def touched_bytes(self) -> int:
        """What becomes real memory."""
        return self.kv_bytes + self.compute_bytes + self.output_bytes


class Device(Struct, frozen=True, kw_only=True):
    """One that ggml can compute on beside the CPU."""

    name: str
    description: str
    kind: str
    """GPU, IGPU (shares the host's memory) or ACCEL."""
    free_bytes: int
    total_bytes: int


class Figures(Struct, frozen=True, kw_only=True):
    """What the dry run of one model file found."""

    description: str
    n_ctx_train: int
    weights: tuple[Buffer, ...]
    windows: tuple[Window, ...]
    """One for each context that was asked for."""
    process_bytes: int
    """What the dry run had allocated before its first context: the vocabulary mostly, which a zygote has as well."""
    devices: tuple[Device, ...] = ()

    def window(self, asked: int) -> Window:
        return next(one for one in self.windows if one.asked == asked)


class HostMemory(Struct, frozen=True, kw_only=True):
    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    """The tightest memory limit of the groups that the jar will run in: the unit's MemoryMax."""
    limit_at: str = ""
    """The group that sets it."""

    @property
    def limited(self) -> bool:
        return self.limit_bytes is not None and self.limit_bytes < self.total_bytes

    @property
    def bound_bytes(self) -> int:
        return min(self.total_bytes, self.limit_bytes) if self.limit_bytes is not None else self.total_bytes


class ModelRow(Struct, frozen=True, kw_only=True):
    """What is loaded once for all of `personas`: by a zygote, or by an engine and the zygote that forks its workers."""

    name: str
    path: str
    description: str
    context: int
    personas: tuple[str, ...]
    weights: tuple[Buffer, ...]
    weights_bytes: int
    repacked_bytes: int
    """Of the weights, those in a layout of this CPU's own. It takes the place of the file's, and forks share it."""
    context_bytes: int
    process_bytes: int
    total_bytes: int
    """All of it in the host's memory."""
    mode: str = "fork"
    why: str = ""
    """Why it is computed that way."""
    layout: str = ""
    """How its weights lie in memory, and why."""
    places: tuple[Place, ...] = ()
    """By kind of memory, where an engine computes."""


class PersonaRow(Struct, frozen=True, kw_only=True):
    name: str
    model: str
    context: int
    kv_bytes: int
    compute_bytes: int
    output_bytes: int
    bookkeeping_bytes: int
    worker_bytes: int
    least_cap_bytes: int
    """The smallest cap that it can live under, whole MiB."""
    cap_bytes: int
    growth: str
    largest_window: int
    """Tokens that its window can reach under its cap; 0 where the cap is too small for its first."""
    snapshot_bytes: int
    standby_bytes: int = 0
    """What its next life may own while it waits; 0 where none is forked in advance."""
    threads: int
    own_bytes: int = 0
    """Of its cap, what its own process may have: all, but for the cells that it has in an engine."""


class Totals(Struct, frozen=True, kw_only=True):
    weights_bytes: int
    zygotes_bytes: int
    """Contexts and processes of the zygotes."""
    caps_bytes: int
    snapshots_bytes: int
    standbys_bytes: int
    disk_bytes: int
    """Most that snapshots come to on disk; 0 where `snapshots.disk` is off."""
    disk_free_bytes: int | None = None
    """What is free where the jar keeps its state; None: not known."""
    supervisor_bytes: int
    dashboard_bytes: int = 0
    """0 where the jar has none."""
    total_bytes: int
    bound_bytes: int
    """What it must fit into: the host's memory, or the limit around the jar where that is less."""
    bound: str
    """In words, whose that is."""
    available_bytes: int
    threads: int
    """Most compute threads at once."""
    cpus: int


class Problem(Struct, frozen=True, kw_only=True):
    """Why it does not fit. `what` and `change` are for people, `set` is the same change as arguments of `--set`, if it is one."""

    kind: Literal["cap", "memory"]
    """"cap": wrong on any host. "memory": more than this one has."""
    what: str
    change: str
    set: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"{self.what}; {self.change}"


class Plan(Struct, frozen=True, kw_only=True):
    jar: str
    fits: bool
    models: tuple[ModelRow, ...]
    personas: tuple[PersonaRow, ...]
    devices: tuple[Device, ...]
    totals: Totals
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def windows(context: int, growth: str, n_ctx_train: int) -> tuple[int, ...]:
    """The windows that a persona may come to have, in tokens: its context, and doubled until its model was trained for no more."""
    found = [context]
    while growth == "context" and found[-1] < n_ctx_train:
        found.append(min(2 * found[-1], n_ctx_train))
    return tuple(found)


class Question(Struct, frozen=True, kw_only=True):
    """One dry run."""

    path: Path
    contexts: tuple[int, ...]
    sequences: int = 0
    """How many share the context, in an engine; 0: it is one worker's own."""
    placement: Placement = Placement()
    alone: bool = False
    """Loaded by a worker for itself."""
    repack: bool = True
    """Where llama.cpp can."""


Key = Path | Model
"""Of the figures of a model: forks of one file share a dry run, whatever their contexts."""


def key(model: Model) -> Key:
    return model.path if model.mode == "fork" else model.shared


def questions(config: Config, trained: Mapping[Path, int], quotas: Mapping[str, Quota]) -> dict[Key, Question]:
    """The dry runs that a plan of `config` needs. `trained`: the context that each file's model was trained for."""
    found: dict[Key, Question] = {}
    for model in config.models:
        repack = config.repacks(model)
        if model.mode == "engine":
            names = next(engine.personas for engine in config.engines if engine.model == model.shared)
            cells = pool_cells([quotas[name] for name in names])
            found[key(model)] = Question(path=model.path, contexts=(cells,), sequences=len(names), placement=model.placement, repack=repack)
        else:
            contexts = asked(config, model.path, trained[model.path])
            found[key(model)] = Question(path=model.path, contexts=contexts, alone=model.mode == "separate", repack=repack)
    return found


def asked(config: Config, path: Path, n_ctx_train: int) -> tuple[int, ...]:
    """All contexts of the model file `path` that a plan of `config` needs figures of, ascending."""
    own = (p for p in config.personas if p.model.path == path)
    return tuple(sorted({n for p in own for n in windows(p.model.context, p.growth, n_ctx_train)}))


def plan(
    config: Config,
    figures: Mapping[Key, Figures],
    host: HostMemory,
    quotas: Mapping[str, Quota] | None = None,
    disk_free: int | None = None,
) -> Plan:
    """`figures` has what `questions` asks for. `quotas`: of the personas that an engine computes for. `disk_free`: bytes, by the state
    directory."""
    quotas = quotas or {}
    models = tuple(_model(config, one, figures[key(one)]) for one in config.loads)
    standby = config.restart.standby
    personas = tuple(_persona(one, figures[key(one.model)], quotas.get(one.name), standby=standby) for one in config.personas)
    totals = msgspec.structs.replace(_totals(config, models, personas, host), disk_free_bytes=disk_free)
    devices = {(d.name, d.description): d for one in figures.values() for d in one.devices}
    problems = (*_problems(config, figures, models, personas, host, quotas), *_devices_too_small(config, models, tuple(devices.values())))
    return Plan(
        jar=config.jar.name,
        fits=not problems,
        models=models,
        personas=personas,
        devices=tuple(devices.values()),
        totals=totals,
        problems=problems,
        notes=_notes(config, figures, models, personas, totals, host),
    )


# ── rows ──


def _name(model: Model) -> str:
    return model.name or model.path.name


def _whole(count: int) -> int:
    """Rounded up to MiB: what is said to be enough must be."""
    return -(-count // MIB) * MIB


def _mib(count: int) -> str:
    """To the MiB, whatever its size: "1.5 GiB" may be less than the 1,577 MiB that are wanted."""
    return f"{count // MIB} MiB"


def _model(config: Config, model: Model, figures: Figures) -> ModelRow:
    away = {device.name for device in figures.devices if device.kind != "IGPU"}
    weights = sum(buffer.bytes for buffer in figures.weights if buffer.name not in away)
    window = figures.windows[0] if model.mode == "engine" else figures.window(model.context) if model.mode == "fork" else None
    context = 0 if window is None else window.touched_bytes
    if window is not None and window.places:
        context -= sum(place.context_bytes + place.compute_bytes for place in window.places if place.name in away)
    process = figures.process_bytes + ZYGOTE_BYTES
    if model.mode == "engine":
        process *= 2
    return ModelRow(
        name=_name(model),
        path=str(model.path),
        description=figures.description,
        context=0 if window is None else window.asked,
        personas=tuple(p.name for p in config.personas if p.model.shared == model),
        weights=figures.weights,
        weights_bytes=weights,
        repacked_bytes=sum(buffer.bytes for buffer in figures.weights if buffer.name.endswith("REPACK")),
        context_bytes=context,
        process_bytes=process,
        total_bytes=weights + context + process,
        mode=model.mode,
        why=config.why_mode(model),
        layout=config.layout(model),
        places=window.places if window is not None and model.mode == "engine" else (),
    )


def _in_engine(persona: Persona, figures: Figures, quota: Quota) -> PersonaRow:
    """Its context is in the pool, which the engine's row counts; what is its own is its process."""
    fits = quota.cells >= LEAST_CELLS
    return PersonaRow(
        name=persona.name,
        model=_name(persona.model),
        context=quota.window if fits else persona.model.context,
        kv_bytes=quota.kv_bytes,
        compute_bytes=0,
        output_bytes=0,
        bookkeeping_bytes=0,
        worker_bytes=WORKER_BYTES,
        least_cap_bytes=_whole(LEAST_CELLS * quota.cell_bytes + WORKER_BYTES),
        cap_bytes=persona.memory,
        growth=persona.growth,
        largest_window=quota.cells if fits else 0,
        snapshot_bytes=quota.kv_bytes,
        threads=0,
        own_bytes=quota.worker_bytes,
    )


def _persona(persona: Persona, figures: Figures, quota: Quota | None = None, *, standby: bool = False) -> PersonaRow:
    if quota is not None:
        return _in_engine(persona, figures, quota)
    first = figures.window(persona.model.context)
    worker = WORKER_BYTES + (persona.threads - 1) * THREAD_BYTES
    if persona.model.mode == "separate":
        worker += figures.process_bytes  # the vocabulary of a model that it loads itself
    reach = [figures.window(n) for n in windows(persona.model.context, persona.growth, figures.n_ctx_train)]
    fitting = [window for window in reach if window.owned_bytes + worker <= persona.memory]
    return PersonaRow(
        name=persona.name,
        model=_name(persona.model),
        context=persona.model.context,
        kv_bytes=first.kv_bytes,
        compute_bytes=first.compute_bytes,
        output_bytes=first.output_bytes,
        bookkeeping_bytes=first.bookkeeping_bytes,
        worker_bytes=worker,
        least_cap_bytes=_whole(first.owned_bytes + worker),
        cap_bytes=persona.memory,
        growth=persona.growth,
        largest_window=fitting[-1].n_ctx if fitting else 0,
        snapshot_bytes=(fitting[-1] if fitting else first).kv_bytes,
        standby_bytes=first.kv_bytes + WORKER_BYTES if standby and persona.model.mode == "fork" else 0,
        threads=persona.threads,
        own_bytes=persona.memory,
    )


def _totals(config: Config, models: Sequence[ModelRow], personas: Sequence[PersonaRow], host: HostMemory) -> Totals:
    at_once = config.inference.max_concurrent
    weights = sum(row.weights_bytes for row in models)
    zygotes = sum(row.context_bytes + row.process_bytes for row in models)
    caps = sum(row.own_bytes for row in personas)
    kept = sorted((row.snapshot_bytes for row in personas), reverse=True)
    snapshots = sum(kept) + sum(kept[:at_once])
    standbys = sum(row.standby_bytes for row in personas)
    dashboard = DASHBOARD_BYTES if config.web.enabled else 0
    return Totals(
        weights_bytes=weights,
        zygotes_bytes=zygotes,
        caps_bytes=caps,
        snapshots_bytes=snapshots,
        standbys_bytes=standbys,
        disk_bytes=ON_DISK * sum(kept) if config.snapshots.disk else 0,
        supervisor_bytes=SUPERVISOR_BYTES,
        dashboard_bytes=dashboard,
        total_bytes=weights + zygotes + caps + snapshots + standbys + SUPERVISOR_BYTES + dashboard,
        bound_bytes=host.bound_bytes,
        bound=f"the memory limit around the jar ({host.limit_at})" if host.limited else "the memory of this machine",
        available_bytes=host.available_bytes,
        threads=_threads(config, personas),
        cpus=len({cpu for share in config.inference.shares for cpu in share}),
    )


def _threads(config: Config, personas: Sequence[PersonaRow]) -> int:
    """Most compute threads at once."""
    own = [row.threads for row in personas]
    if all(persona.model.mode == "engine" for persona in config.personas):
        return sum(engine.threads for engine in config.engines)
    for engine in config.engines:  # among those that compute for themselves it takes part as each of its personas
        own = [engine.threads if row.name in engine.personas else n for row, n in zip(personas, own, strict=True)]
    return sum(sorted(own, reverse=True)[: config.inference.max_concurrent])


# ── what is wrong ──


def _problems(
    config: Config,
    figures: Mapping[Key, Figures],
    models: Sequence[ModelRow],
    personas: Sequence[PersonaRow],
    host: HostMemory,
    quotas: Mapping[str, Quota],
) -> tuple[Problem, ...]:
    """What is first makes what follows pointless: raising caps is no advice for a jar that no caps make fit."""

    def under(caps: Mapping[str, int]) -> Totals:
        capped = (msgspec.structs.replace(one, memory=caps[one.name]) for one in config.personas)
        # what a lower cap gives back of a pool is its cells: they are in its own bytes here, and the pool's row is as it was
        standby = config.restart.standby
        rows = [
            _persona(one, figures[key(one.model)], standby=standby) if one.name not in quotas else _recapped(one, figures, quotas)
            for one in capped
        ]
        return _totals(config, models, rows, host)

    small = tuple(_cap_too_small(config, row) for row in personas if row.cap_bytes < row.least_cap_bytes)
    caps = {row.name: max(row.cap_bytes, row.least_cap_bytes) for row in personas}
    needed = under(caps)
    if needed.total_bytes <= needed.bound_bytes:
        return small
    least = {row.name: row.least_cap_bytes for row in personas}
    if (smallest := under(least)).total_bytes > smallest.bound_bytes:
        change = (
            f"with the smallest caps that work it still needs {format_size(smallest.total_bytes)}: choose a smaller model or model.context"
        )
        return (Problem(kind="memory", what=_too_much(config, needed, host), change=change + _raised(smallest, host)), *small)
    lowered: dict[str, int] = {}
    # those with most to spare give first, and as few as can be
    for name in sorted(caps, key=lambda name: caps[name] - least[name], reverse=True):
        now = under(caps)
        if (excess := now.total_bytes - now.bound_bytes) <= 0:
            break
        caps[name] = lowered[name] = max(least[name], (caps[name] - excess) // MIB * MIB)
    change = "lower " + ", ".join(f"persona.{name}.memory to {_mib(cap)}" for name, cap in lowered.items()) + _raised(needed, host)
    sets = tuple(f"persona.{name}.memory={cap // MIB}MiB" for name, cap in lowered.items())
    return (*small, Problem(kind="memory", what=_too_much(config, needed, host), change=change, set=sets))


def _recapped(persona: Persona, figures: Mapping[Key, Figures], quotas: Mapping[str, Quota]) -> PersonaRow:
    row = _persona(persona, figures[key(persona.model)], quotas[persona.name])
    return msgspec.structs.replace(row, own_bytes=max(0, persona.memory - row.kv_bytes))


def _devices_too_small(config: Config, models: Sequence[ModelRow], devices: Sequence[Device]) -> tuple[Problem, ...]:
    """A GPU with memory of its own must hold what llama.cpp puts there; one that shares the host's is counted with that."""
    found = []
    for device in devices:
        needed = sum(place.total_bytes for row in models for place in row.places if place.name == device.name)
        if device.kind != "IGPU" and device.total_bytes and needed > device.total_bytes:
            what = f"{config.source}: {device.name} ({device.description}) would have to hold {format_size(needed)} and has"
            change = "lower model.gpu_layers, the caps of its personas or model.context, or split it over several GPUs with model.gpu"
            found.append(Problem(kind="memory", what=f"{what} {format_size(device.total_bytes)}", change=change))
    return tuple(found)


def _cap_too_small(config: Config, row: PersonaRow) -> Problem:
    return Problem(
        kind="cap",
        what=f"{config.source}: persona.{row.name}.memory: {format_size(row.cap_bytes)} is below what a worker with a context of"
        f" {row.context} tokens of this model needs",
        change=f"wanted at least {_mib(row.least_cap_bytes)}, or a smaller model.context",
        set=(f"persona.{row.name}.memory={row.least_cap_bytes // MIB}MiB",),
    )


def _too_much(config: Config, needed: Totals, host: HostMemory) -> str:
    has = f"this machine has {format_size(host.total_bytes)}"
    if host.limited:
        has = f"the unit's MemoryMax or another limit around the jar ({host.limit_at}) allows {format_size(needed.bound_bytes)}"
    if needed.caps_bytes > needed.bound_bytes:
        return f"{config.source}: persona.memory: the caps add up to {format_size(needed.caps_bytes)}, {has}"
    parts = ("weights", needed.weights_bytes), ("zygotes", needed.zygotes_bytes), ("caps", needed.caps_bytes)
    listed = ", ".join(f"{name} {format_size(count)}" for name, count in (*parts, ("snapshots", needed.snapshots_bytes)))
    return f"{config.source}: the jar needs {format_size(needed.total_bytes)} ({listed}), {has}"


def _raised(needed: Totals, host: HostMemory) -> str:
    return f", or raise that limit to {_mib(_whole(needed.total_bytes))}" if host.limited and needed.total_bytes <= host.total_bytes else ""


# ── what else is worth knowing ──


def _notes(
    config: Config,
    figures: Mapping[Key, Figures],
    models: Sequence[ModelRow],
    personas: Sequence[PersonaRow],
    totals: Totals,
    host: HostMemory,
) -> tuple[str, ...]:
    notes = [_fate(row, figures[key(p.model)].n_ctx_train) for row, p in zip(personas, config.personas, strict=True)]
    notes += [_narrowed(row, p) for row, p in zip(personas, config.personas, strict=True)]
    for row, model in zip(models, config.loads, strict=True):
        trained = figures[key(model)].n_ctx_train
        if model.mode == "fork" and row.context > trained:
            notes.append(f"{row.name}: a context of {row.context} tokens is more than the {trained} that it was trained for")
    for path in dict.fromkeys(row.path for row in models):
        contexts = [str(row.context) for row in models if row.path == path and row.mode == "fork"]
        if len(contexts) > 1:
            notes.append(
                f"{path}: loaded {len(contexts)} times, as its contexts differ ({', '.join(contexts)}): one model.context shares it"
            )
    if totals.disk_free_bytes is not None and totals.disk_bytes > totals.disk_free_bytes:
        notes.append(
            f"snapshots may take {format_size(totals.disk_bytes)} of disk, and {format_size(totals.disk_free_bytes)} are free at"
            f" {config.jar.state_dir}: where they do not fit they are left out, and a mind reads its past again after a restart of the jar"
        )
    if totals.threads > totals.cpus:
        notes.append(
            f"up to {totals.threads} compute threads at once on {totals.cpus} CPUs: they will wait for each other; lower persona.threads"
            " or inference.max_concurrent"
        )
    if host.available_bytes < totals.total_bytes <= totals.bound_bytes:
        notes.append(
            f"{format_size(host.available_bytes)} of this machine's memory are free now, and the jar may come to need"
            f" {format_size(totals.total_bytes)}: what else runs here has to give some up"
        )
    return tuple(note for note in notes if note)


def _narrowed(row: PersonaRow, persona: Persona) -> str:
    """What becomes of one whose cap has no room for the window that it was to have."""
    if persona.model.mode != "engine" or not row.largest_window or row.context >= persona.model.context:
        return ""
    return f"{row.name}: its cap has room for a window of {row.context} tokens, not for the {persona.model.context} of model.context"


def _fate(row: PersonaRow, n_ctx_train: int) -> str:
    """What becomes of one whose window grows."""
    if row.growth != "context" or not row.largest_window:
        return ""
    if row.largest_window >= n_ctx_train:
        return f"{row.name}: its cap lets the window reach the {n_ctx_train} tokens the model was trained for: it will not die of memory"
    return f"{row.name}: dies when its window would grow past {row.largest_window} tokens"
