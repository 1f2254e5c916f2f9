"""matrix.toml -> frozen structs.

`schema` mirrors the file as it is written. What the rest of the program uses is *resolved*, here: paths are absolute, "auto" is
a number, "*" is names.

`load` raises `UsageError` for whatever can never work, in one line that names file, key, what it found and what it wants.
It reads the config and the prompt files and asks which CPUs this process may use; it does not look at models, runtime paths
or memory.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from brainjar import models, order, paths, readers, templates
from brainjar.errors import UsageError
from brainjar.isolation import affinity
from brainjar.messages import Placement, Retention, Sampling, Texts
from brainjar.readers import Reader
from brainjar.repack import Layout
from brainjar.schema import MAX_PERSONAS, RawConfig, RawFront, RawModel, RawPersona, RawSampling
from brainjar.tables import Source, nearest, parse, plain, read_text
from brainjar.units import format_cpus, format_size, parse_duration, parse_size

__all__ = [
    "Config",
    "Engine",
    "Inference",
    "Jar",
    "Model",
    "Persona",
    "Placement",
    "Restart",
    "SaidPath",
    "Sampling",
    "Sandbox",
    "Snapshots",
    "Watchdog",
    "decode",
    "encode",
    "find_config",
    "format_size",
    "load",
    "parse_duration",
    "parse_size",
    "said_paths",
]

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_PROMPT_BYTES: Final = 64 << 10
OBSERVED: Final = "You are observed: all that you think reaches {}, and so does the news of your deaths."
"""What one is told with `told = true`."""
MAX_SEQUENCES: Final = 256
"""LLAMA_MAX_SEQ: more, llama.cpp does not keep apart in one context."""
VITALS_S: Final = 60.0
"""`vitals` of the role god where it does not say."""
GOES, GOES_LAST = 10, 0
"""`expendable` of a persona that does not say: whoever sees everything goes last."""


Mode = Literal["fork", "engine", "separate"]


class Model(Struct, frozen=True, kw_only=True):
    """What a persona thinks with: equal models are loaded once."""

    name: str | None
    """In the catalog; None for a file."""
    path: Path
    """Absolute. A catalog model may not have been fetched yet."""
    context: int
    """Tokens; 0 in `shared` where the process that loads it needs none."""
    mode: Mode = "fork"
    """Who computes: a fork of the process that holds it, an engine process for all, or each worker with weights that it maps itself."""
    placement: Placement = Placement()

    @property
    def shared(self) -> Model:
        """What one process loads for all whose model differs at most in this. A fork inherits a context too, so its window matters."""
        return self if self.mode == "fork" else msgspec.structs.replace(self, context=0)


class Sandbox(Struct, frozen=True, kw_only=True):
    network: bool = False
    """May it use the network?"""
    user: str = "auto"
    """"auto": a uid of its own where the supervisor is root; "same": the supervisor's; else a user's name."""
    file_size: int = 1 << 30
    """Bytes of the largest file that it may write, its mind included."""


class Persona(Struct, frozen=True, kw_only=True):
    name: str
    role: str
    model: Model
    memory: int
    """Cap on what it owns privately, in bytes."""
    memory_high: int | None = None
    """Where the kernel begins to slow it down (cgroup v2), in bytes."""
    cpus: tuple[int, ...]
    """Ascending, never empty, all of them allowed to this process."""
    floats: bool = False
    """`cpus` was "auto": it thinks on whichever of the jar's shares is free, and begins on this one."""
    threads: int
    """1 to len(cpus); 0 where an engine computes for it, on threads of its own."""
    cpu_quota: float | None = None
    """Share of one core that it may use in the long run (cgroup)."""
    nice: int = 0
    ionice: str = "none"
    oom_score_adj: int = 500
    expendable: int = 10
    """Who has most goes first when somebody must."""
    priority: int = 0
    """Who has most thinks first."""
    growth: str = "none"
    """What happens when its window is full: "none" slides it, "context" doubles it until the kernel refuses."""
    sandbox: Sandbox = Sandbox()
    sees: tuple[str, ...]
    """Names of others, each once."""
    vitals: float = 0.0
    """At most this often, in seconds, it is told how those are whom it sees; 0: never."""
    after: tuple[str, ...] = ()
    """Names of others, each once, which are to be READY before it starts."""
    when: Literal["always", "on_death", "never"] = "always"
    """Which of its deaths are followed by another life; with "on_death" all but that of who leaves with exit status 0."""
    prompt: str
    first: str
    texts: Texts = Texts()
    sampling: Sampling


class Jar(Struct, frozen=True, kw_only=True):
    name: str
    state_dir: Path
    runtime_dir: Path


class Inference(Struct, frozen=True, kw_only=True):
    mode: str
    """As it is written: "auto" decides for each model (`Model.mode`)."""
    max_concurrent: int
    shares: tuple[tuple[int, ...], ...]
    """The CPUs of each of those who may think at once: disjoint, all that this process may use. All the same where engines compute for
    everybody: then who thinks takes no CPU from another."""

    repack: Literal["auto"] | bool = "auto"
    """Whether weights are held in a layout for this CPU; "auto": for each model what was measured to be faster (`Config.layouts`)."""


class Engine(Struct, frozen=True, kw_only=True):
    """A process that computes for several personas."""

    model: Model
    """`Model.shared` of theirs."""
    personas: tuple[str, ...]
    """In the order of their sequences."""
    cpus: tuple[int, ...]
    threads: int


class Restart(Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    """Who is stopped and begins again with one that has died: nobody, everybody, those that start after it."""
    pause: float
    intensity: int
    window: float
    backoff_max: float
    reset: float = 10.0
    """A life that was READY for so long ends whatever backoff there was."""
    give_up: Literal["never", "persona", "jar"] = "never"
    """What follows too many deaths or failed starts: it is tried slowly; it is left alone; the jar ends with exit status 1."""
    standby: bool = False
    """The next life of each persona is forked in advance."""


class Watchdog(Struct, frozen=True, kw_only=True):
    """Times in seconds, marks in percent or degrees Celsius. A percentage of 100 is never passed."""

    interval: float = 5.0
    """At most this between two looks: HEARTBEATs come as often, and at least each second."""
    gpu_memory: float = 85
    """Of each device."""
    host_memory: float = 90
    """Of the host, and of each limit around the jar."""
    gpu_memory_kill: float = 92.5
    host_memory_kill: float = 95
    """There is no time left for a pause."""
    pressure: float = 40
    """Share of the time that everything waited for memory (PSI, full, over 10 s)."""
    disk: float = 95
    """Of the one under the state directory; only a warning."""
    temperature: float = 85
    temperature_resume: float = 80
    """Whoever was paused for heat goes on below it."""
    sensors: tuple[str, ...] = ("*",)
    """Which temperatures count, by name; * stands for anything."""
    cooldown: float = 15.0
    """After a victim's end, before another is chosen."""
    stall: float = 120.0
    """Without a sign of life, or with the lease and without a token."""
    leak_window: float = 1800.0
    """Over which the growth of private memory is measured."""
    leak_horizon: float = 600.0
    """A worker that would be at its cap sooner than this is recycled; 0: none is."""


class Snapshots(Struct, frozen=True, kw_only=True):
    disk: bool = True
    """Whether a context is left on disk as well, for a life after this supervisor."""
    write_budget: int = 4 << 30
    """Bytes that the whole jar may write for that in a day."""

    def share(self, personas: int) -> int:
        """Bytes a day for each of so many; 0: none."""
        return max(1, self.write_budget // personas) if self.disk else 0


class Web(Struct, frozen=True, kw_only=True):
    """The dashboard."""

    enabled: bool = False
    """Whether the supervisor runs it."""
    host: str = "127.0.0.1"
    port: int = 8095
    socket: str = ""
    """The path of a unix socket instead; "": none."""
    names: tuple[str, ...] = ()
    """By what names it is reached, beside loopback's."""
    proxies: tuple[str, ...] = ()
    """Addresses of proxies whose word on who asks is believed."""
    control: bool = False
    """Whether it may do anything but look."""

    @property
    def beyond_loopback(self) -> bool:
        if self.socket or self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True

    @property
    def where(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.socket}" if self.socket else f"http://{host}:{self.port}/"


class Config(Struct, frozen=True, kw_only=True):
    source: Path
    jar: Jar
    inference: Inference
    restart: Restart
    watchdog: Watchdog
    snapshots: Snapshots = Snapshots()
    record: Retention = Retention()
    """How much of each mind is kept."""
    readers: tuple[Reader, ...] = ()
    """Of other packages, asked about each thought."""
    web: Web = Web()
    personas: tuple[Persona, ...]
    notes: tuple[str, ...]
    """One sentence for each thing that the user should hear at start: a key that is not used, a number that was lowered."""

    engines: tuple[Engine, ...] = ()
    layouts: Mapping[Path, Layout] = {}
    """What is measured of a model file, where `Inference.repack` is "auto"."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The distinct ones, in the order of their first persona."""
        return tuple(dict.fromkeys(persona.model for persona in self.personas))

    @property
    def starts(self) -> tuple[str, ...]:
        """The names in the order of their starts."""
        return order.starts({persona.name: persona.after for persona in self.personas})

    @property
    def loads(self) -> tuple[Model, ...]:
        """One for each zygote, in that order: where an engine or the workers compute, it holds the vocabulary alone."""
        return tuple(dict.fromkeys(model.shared for model in self.models))

    def engine_of(self, persona: Persona) -> Engine | None:
        return next((engine for engine in self.engines if persona.name in engine.personas), None)

    def threads_of(self, model: Model) -> int:
        """Most that compute at once for one who thinks with it."""
        engines = [engine.threads for engine in self.engines if engine.model == model.shared]
        return max([*engines, *(p.threads for p in self.personas if p.model == model), 1])

    def repacks(self, model: Model) -> bool:
        """Whether llama.cpp is to repack what it can of its weights."""
        if model.mode == "separate" or self.inference.repack != "auto":
            return model.mode != "separate" and self.inference.repack is True
        return self.layouts[model.path].repack if model.path in self.layouts else True

    def layout(self, model: Model) -> str:
        """How its weights lie in memory, and why, for people."""
        if model.mode == "separate":
            return "as in the file, so that all workers map the same pages"
        if self.inference.repack != "auto":
            return "repacked where llama.cpp can, by inference.repack" if self.inference.repack else "as in the file, by inference.repack"
        return self.layouts[model.path].why if model.path in self.layouts else ""

    def why_mode(self, model: Model) -> str:
        """Why it is computed the way that it is, for people."""
        if self.inference.mode != "auto":
            return f'inference.mode = "{self.inference.mode}"'
        if model.mode == "engine":
            return "auto: layers on a GPU, and a process that has one open cannot be forked"
        return "auto: all layers on the CPU, where forks share weights and begin with a context that is there already"


def encode(config: Config) -> bytes:
    """As JSON, for another process or another version of this program."""
    return msgspec.json.encode(config, enc_hook=str)


def decode(body: bytes) -> Config:
    """Raise `msgspec.DecodeError`."""
    return msgspec.json.decode(body, type=Config, dec_hook=lambda kind, value: kind(value))


def find_config(explicit: Path | None) -> tuple[Path, str | None]:
    """The config to load, and the sentence to say about it on stderr where nobody named one."""
    if explicit is not None:
        return explicit, None
    own = Path("brainjar.toml")
    if os.path.lexists(own):
        return own, "no --config: using ./brainjar.toml"
    shipped = paths.config_dir() / "matrix.toml"
    return shipped, f"no --config and no ./brainjar.toml: using the shipped {shipped}"


def load(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    model: str | None = None,
    state_dir: Path | None = None,
    allowed_cpus: frozenset[int] | None = None,
    cores: tuple[tuple[int, ...], ...] | None = None,
) -> Config:
    """The config in the file `path`, under `overrides` (`KEY=VALUE`, later ones win) and what other options said.

    `model`: a path if it has a slash or ends in .gguf, else a name in the catalog; takes the place of `[model]`'s.
    `allowed_cpus`: those this process may use; `cores`: which of them are siblings on one core. Asked of the kernel where None.
    Raise `UsageError`.
    """
    source = _source(path)
    for assignment in overrides:
        source.set(assignment)
        _displace(source, assignment.partition("=")[0].strip())
    if model is not None:
        key = "model.path" if "/" in model or model.endswith(".gguf") else "model.name"
        source.put(key, model, "--model", model)
        _displace(source, key)
    raw = source.read(RawConfig, source.table)
    if cores is None:
        cores = affinity.cores(affinity.allowed()) if allowed_cpus is None else tuple((cpu,) for cpu in sorted(allowed_cpus))
    return _Resolver(source, raw, path, cores).config(state_dir)


class SaidPath(Struct, frozen=True):
    """A path that stands in a config."""

    key: str
    text: str
    path: Path
    """Absolute."""

    @property
    def is_relative(self) -> bool:
        """To the config: it leads elsewhere from a copy of that."""
        return not os.path.isabs(os.path.expanduser(self.text))


def said_paths(path: Path) -> tuple[SaidPath, ...]:
    """All that stand in the file `path`. Raise `UsageError`."""
    source = _source(path)
    raw = source.read(RawConfig, source.table)
    said = {"jar.state_dir": raw.jar.state_dir, "jar.runtime_dir": raw.jar.runtime_dir, "web.socket": raw.web.socket}
    said["model.path"] = raw.model.path
    for one in raw.persona:
        said[f"persona.{one.name}.prompt"] = one.prompt
        said[f"persona.{one.name}.model.path"] = one.model.path if one.model is not None else None
    base = Path(os.path.abspath(path)).parent
    return tuple(SaidPath(key, text, _lead(base, text)) for key, text in said.items() if text)


def _source(path: Path) -> Source:
    return Source(str(path), parse(read_text(path, MAX_CONFIG_BYTES, "config"), str(path)))


def _lead(base: Path, text: str) -> Path:
    return Path(os.path.abspath(base / os.path.expanduser(text)))


def _displace(source: Source, key: str) -> None:
    """A model's name and path exclude each other: the one that the command line sets takes the place of the file's other."""
    *tables, last = key.split(".")
    other = {"name": "path", "path": "name"}.get(last)
    if other and tables[-1:] == ["model"]:
        source.drop(".".join((*tables, other)))


class _Resolver:
    def __init__(self, source: Source, raw: RawConfig, path: Path, cores: tuple[tuple[int, ...], ...]) -> None:
        self.source, self.raw, self.path, self.cores = source, raw, path, cores
        self.allowed = sorted(cpu for core in cores for cpu in core)
        self.base = Path(os.path.abspath(path)).parent
        self.notes: list[str] = []
        self.shares: tuple[tuple[int, ...], ...] = ()
        self.models: dict[str, Model] = {}

    def config(self, state_dir: Path | None) -> Config:
        raw = self.raw
        names = self.names()
        after = {one.name: self.after(one, f"persona.{one.name}", names) for one in raw.persona}
        try:
            order.starts(after)
        except order.Circle as circle:
            raise UsageError(f"{self.source.at('persona.after')}: {circle}: none could ever start; take one away") from None
        self.models = {one.name: self.model(one, f"persona.{one.name}") for one in raw.persona}
        engines_only = all(model.mode == "engine" for model in self.models.values())
        concurrent = self.concurrent(len(names), engines_only=engines_only)
        self.shares = (tuple(self.allowed),) * concurrent if engines_only else affinity.shares(self.cores, concurrent)
        return Config(
            source=self.path,
            jar=self.jar(state_dir),
            inference=self.inference(concurrent),
            restart=self.restart(),
            watchdog=self.watchdog(),
            record=Retention(seconds=raw.record.keep, bytes=raw.record.size, traces=raw.record.traces),
            readers=readers.chosen(tuple(dict.fromkeys(raw.senses.readers)), self.source.at("senses.readers")),
            snapshots=Snapshots(disk=raw.snapshots.disk, write_budget=raw.snapshots.write_budget),
            web=self.web(),
            personas=tuple(self.persona(one, names, after[one.name], i % concurrent) for i, one in enumerate(raw.persona)),
            engines=self.engines(engines_only=engines_only),
            notes=tuple(self.notes),
        )

    def web(self) -> Web:
        raw = msgspec.structs.asdict(self.raw.web)
        raw["socket"] = str(_lead(self.base, raw["socket"])) if raw["socket"] else ""
        web = Web(**raw)
        if web.beyond_loopback and not web.names:
            wanted = 'an address of loopback, or web.names = ["..."] beside it: by what name it is reached from elsewhere'
            raise self.source.wrong("web.host", web.host, wanted)
        return web

    def inference(self, concurrent: int) -> Inference:
        raw = self.raw.inference
        if raw.repack is True and raw.mode == "separate":
            raise self.source.wrong(
                "inference.repack", True, '"auto" or false with inference.mode = "separate" (repacked weights would be each worker\'s own)'
            )
        return Inference(mode=raw.mode, max_concurrent=concurrent, shares=self.shares, repack=raw.repack)

    def engines(self, *, engines_only: bool) -> tuple[Engine, ...]:
        models = tuple(dict.fromkeys(model.shared for model in self.models.values() if model.mode == "engine"))
        # where others compute beside them, one engine takes what one of those takes, and its personas ask for a share as they do
        dealt = affinity.shares(self.cores, min(len(models), len(self.allowed))) if engines_only else self.shares
        found = []
        for n, model in enumerate(models):
            cpus = dealt[n % len(dealt)] if engines_only else min(dealt, key=len)
            wanted = self.raw.inference.threads
            threads = sum(any(cpu in core for cpu in cpus) for core in self.cores) if wanted == "auto" else wanted
            if threads > len(cpus):
                raise self.source.wrong("inference.threads", threads, f'"auto" or 1 to {len(cpus)}, the number of CPUs of an engine')
            personas = tuple(name for name, one in self.models.items() if one.shared == model)
            if len(personas) > MAX_SEQUENCES:
                raise UsageError(
                    f"{self.source.at('persona')}: {len(personas)} personas for one engine, wanted at most {MAX_SEQUENCES}:"
                    " give some another model"
                )
            found.append(Engine(model=model, personas=personas, cpus=cpus if engines_only else tuple(self.allowed), threads=threads))
        return tuple(found)

    def names(self) -> list[str]:
        names = [persona.name for persona in self.raw.persona]
        if not names:
            raise UsageError(f"{self.source.name}: persona: found none, wanted at least one [[persona]] with a name")
        if len(names) > MAX_PERSONAS:
            raise UsageError(f"{self.source.name}: persona: found {len(names)}, wanted at most {MAX_PERSONAS}")
        for n, name in enumerate(names):
            if name in names[:n]:
                raise UsageError(f'{self.source.name}: persona.name: found "{name}" twice, wanted a name of its own for each persona')
        return names

    def jar(self, state_dir: Path | None) -> Jar:
        raw = self.raw.jar
        try:
            state = Path(os.path.abspath(state_dir)) if state_dir is not None else self.file("jar.state_dir", raw.state_dir)
            # two jars of one name with different states must not meet in one runtime directory
            place = raw.name if state is None else f"{raw.name}-{zlib.crc32(os.fsencode(state)):08x}"
            return Jar(
                name=raw.name,
                state_dir=state or paths.default_state_dir(raw.name),
                runtime_dir=self.file("jar.runtime_dir", raw.runtime_dir) or paths.default_runtime_dir(place),
            )
        except RuntimeError as error:  # pathlib: no home directory to be found
            raise UsageError(f"{self.source.at('jar')}: {error}; set jar.state_dir, or HOME") from None

    def restart(self) -> Restart:
        raw = self.raw.restart
        if raw.backoff_max is not None and raw.backoff_max < raw.pause:
            raise self.source.wrong("restart.backoff_max", f"{raw.backoff_max:g}s", f"at least restart.pause ({raw.pause:g}s)")
        backoff_max = max(300.0, raw.pause) if raw.backoff_max is None else raw.backoff_max
        return Restart(**msgspec.structs.asdict(raw) | {"backoff_max": backoff_max})

    def watchdog(self) -> Watchdog:
        raw = self.raw.watchdog
        resume = raw.temperature - 5 if raw.temperature_resume is None else raw.temperature_resume
        if resume >= raw.temperature:
            raise self.source.wrong("watchdog.temperature_resume", f"{resume:g}", f"less than watchdog.temperature ({raw.temperature:g})")
        found: dict[str, Any] = {"temperature_resume": resume}
        for key, mark, kill in (
            ("gpu_memory", raw.gpu_memory, raw.gpu_memory_kill),
            ("host_memory", raw.host_memory, raw.host_memory_kill),
        ):
            if kill is not None and kill < mark:
                raise self.source.wrong(f"watchdog.{key}_kill", f"{kill:g}", f"at least watchdog.{key} ({mark:g})")
            found[f"{key}_kill"] = (mark + 100) / 2 if kill is None else kill
        return Watchdog(**msgspec.structs.asdict(raw) | found)

    def concurrent(self, personas: int, *, engines_only: bool) -> int:
        wanted, cores = self.raw.inference.max_concurrent, len(self.allowed)
        if wanted is None:  # an engine computes for all who think in one batch
            return personas if engines_only else 1
        if wanted > personas:
            raise self.source.wrong("inference.max_concurrent", wanted, f"1 to {personas}, the number of personas")
        if engines_only:
            return wanted
        if wanted > cores:
            self.notes.append(
                f"{self.source.at('inference.max_concurrent')}: lowered from {wanted} to {cores}, "
                f"the number of CPUs that this process may use ({format_cpus(self.allowed)})"
            )
        return min(wanted, cores)

    def persona(self, raw: RawPersona, names: list[str], after: tuple[str, ...], share: int) -> Persona:
        key = f"persona.{raw.name}"
        model = self.models[raw.name]
        cpus = self.cpus(raw, key, share)
        file, front, prompt = self.prompt(raw, key)
        role = raw.role or front.role or raw.name
        sees = self.sees(raw, key, names)
        constants = {
            "name": raw.name,
            "role": role,
            "memory": format_size(raw.memory),
            "model": model.name or model.path.name,
            "context": model.context,
            "sees": ", ".join(sees) or "nobody",
        }

        def filled(place: str, text: str) -> str:
            known = templates.TEXTS[place]
            if (name := templates.unknown(text, known)) is not None:
                raise UsageError(f'{plain(str(file))}: {place}: found the value "{plain(name)}"; {nearest(name, known)}')
            return templates.fill(text, constants)

        told = {name: getattr(front, name) or getattr(Texts(), name) for name in Texts.__struct_fields__}
        sampling = _sampling(front.sampling, self.raw.sampling, raw.sampling)
        if sampling.max_tokens > model.context // 2:
            own = raw.sampling.max_tokens is not None
            where = f"{key}.sampling.max_tokens" if own or self.raw.sampling.max_tokens is None else "sampling.max_tokens"
            raise self.source.wrong(where, sampling.max_tokens, f"at most half the context of {raw.name} ({model.context // 2})")
        if raw.memory_high is not None and raw.memory_high >= raw.memory:
            wanted = f"below persona.memory ({format_size(raw.memory)})"
            raise self.source.wrong(f"{key}.memory_high", format_size(raw.memory_high), wanted)
        return Persona(
            name=raw.name,
            role=role,
            model=model,
            memory=raw.memory,
            memory_high=raw.memory_high,
            cpus=cpus,
            floats=raw.cpus == "auto",
            threads=self.threads(raw, key, cpus),
            cpu_quota=raw.cpu_quota,
            nice=raw.nice,
            ionice=raw.ionice,
            oom_score_adj=raw.oom_score_adj,
            expendable=raw.expendable if raw.expendable is not None else (GOES_LAST if role == "god" else GOES),
            priority=raw.priority,
            growth=raw.mortality.growth,
            sandbox=Sandbox(network=raw.sandbox.network, user=raw.sandbox.user, file_size=raw.sandbox.file_size),
            sees=sees,
            vitals=raw.vitals if raw.vitals is not None else VITALS_S if role == "god" else 0.0,
            after=after,
            when=raw.when,
            prompt=self.told(raw, key, filled("prompt", prompt)),
            first=filled("first", front.first),
            texts=Texts(**{name: filled(name, text) for name, text in told.items()}),
            sampling=sampling,
        )

    def model(self, raw: RawPersona, key: str) -> Model:
        own, jar = raw.model or RawModel(), self.raw.model
        chosen, where = (own, f"{key}.model") if own.name is not None or own.path is not None else (jar, "model")
        if chosen.name is not None and chosen.path is not None:
            raise UsageError(f"{self.source.at(where)}: found both name and path, wanted exactly one of the two")
        if chosen.name is None and chosen.path is None:
            raise UsageError(f"{self.source.at(where)}: found neither name nor path, wanted one of them, for persona {raw.name}")
        name_key = f"{where}.{'name' if chosen.path is None else 'path'}"
        file = self.file(name_key, chosen.path)
        try:
            path = models.resolve(chosen.name, file, self.base)
        except UsageError as error:
            raise UsageError(f"{self.source.at(name_key)}: {error}") from None
        context = own.context or jar.context or 2048
        placement = self.placement(own, key)
        mode = self.mode(placement, f"{key}.model.gpu_layers" if own.gpu_layers is not None else "model.gpu_layers")
        return Model(name=chosen.name, path=Path(os.path.abspath(path)), context=context, mode=mode, placement=placement)

    def placement(self, own: RawModel, key: str) -> Placement:
        """What a persona says of its own model stands before what `[model]` says for all."""
        jar = self.raw.model

        def at(name: str) -> str:
            return f"{key}.model.{name}" if getattr(own, name) is not None else f"model.{name}"

        layers = own.gpu_layers if own.gpu_layers is not None else jar.gpu_layers or 0
        gpu = own.gpu if own.gpu is not None else jar.gpu
        split = own.split if own.split is not None else jar.split
        if layers == 0:
            return Placement()  # nothing is on a GPU, so nothing is said of which
        devices = None if gpu is None or gpu == "auto" else (gpu,) if isinstance(gpu, int) else tuple(gpu)
        if devices is not None and len(set(devices)) < len(devices):
            raise self.source.wrong(at("gpu"), list(devices), "each GPU once")
        if isinstance(split, tuple):
            if devices is None or len(split) != len(devices):
                wanted = "model.gpu to name as many GPUs" if devices is None else f"{len(devices)} numbers, one for each of model.gpu"
                raise self.source.wrong(at("split"), list(split), wanted)
            if not any(split):
                raise self.source.wrong(at("split"), list(split), "at least one that is not 0")
        return Placement(
            gpu_layers=-1 if layers == "all" else layers,
            devices=devices,
            split="layer" if split is None or isinstance(split, tuple) else split,
            shares=split if isinstance(split, tuple) else (),
        )

    def mode(self, placement: Placement, key: str) -> Mode:
        written = self.raw.inference.mode
        if written == "auto":
            return "engine" if placement.gpu_layers else "fork"
        if placement.gpu_layers and written != "engine":
            why = "a process that has a GPU open cannot be forked" if written == "fork" else "each worker would load a copy onto the GPU"
            found = "all" if placement.gpu_layers < 0 else placement.gpu_layers
            raise self.source.wrong(key, found, f'0 with inference.mode = "{written}" ({why}), or inference.mode = "engine"')
        return written

    def cpus(self, raw: RawPersona, key: str, share: int) -> tuple[int, ...]:
        if raw.cpus == "auto":
            return self.shares[share]
        denied = [cpu for cpu in raw.cpus if cpu not in self.allowed]
        if denied:
            wanted = f"only CPUs that this process may use: {format_cpus(self.allowed)}"
            raise self.source.wrong(f"{key}.cpus", format_cpus(raw.cpus), wanted)
        return raw.cpus

    def threads(self, raw: RawPersona, key: str, cpus: tuple[int, ...]) -> int:
        own = raw.threads is not None
        if self.models[raw.name].mode == "engine":
            if own:
                self.notes.append(f"{self.source.at(f'{key}.threads')}: not used: an engine computes for it, with inference.threads")
            return 0
        wanted = raw.threads if raw.threads is not None else self.raw.inference.threads
        # who floats must fit into the smallest share; two threads on one core's siblings gain nothing
        most = min(map(len, self.shares)) if raw.cpus == "auto" else len(cpus)
        if wanted == "auto":
            sets = self.shares if raw.cpus == "auto" else (cpus,)
            return min(sum(any(cpu in core for cpu in one) for core in self.cores) for one in sets)
        if wanted > most:
            where = f"{key}.threads" if own else "inference.threads"
            raise self.source.wrong(where, wanted, f'"auto" or 1 to {most}, the number of CPUs of {raw.name}')
        return wanted

    def sees(self, raw: RawPersona, key: str, names: list[str]) -> tuple[str, ...]:
        others = [name for name in names if name != raw.name]
        seen: list[str] = []
        for name in raw.sees:
            if name == raw.name:
                raise self.source.wrong(f"{key}.sees", name, 'the names of others, or ["*"]: nobody sees itself')
            if name != "*" and name not in others:
                raise UsageError(f'{self.source.at(f"{key}.sees")}: no persona is named "{plain(name)}"; {nearest(name, others)}')
            seen += others if name == "*" else [name]
        return tuple(dict.fromkeys(seen))

    def told(self, raw: RawPersona, key: str, prompt: str) -> str:
        """The prompt, and where it is to know that it is observed, by whom."""
        if not raw.told:
            return prompt
        seers = [other.name for other in self.raw.persona if other.name != raw.name and {"*", raw.name} & set(other.sees)]
        if not seers:
            raise UsageError(f"{self.source.at(f'{key}.told')}: found true, and nobody sees {raw.name}: it would be told what is not so")
        return f"{prompt}\n\n{OBSERVED.format(' and '.join(seers))}"

    def after(self, raw: RawPersona, key: str, names: list[str]) -> tuple[str, ...]:
        others = [name for name in names if name != raw.name]
        for name in raw.after:
            if name == raw.name:
                raise self.source.wrong(f"{key}.after", name, "the names of others: nobody starts after itself")
            if name not in others:
                raise UsageError(f'{self.source.at(f"{key}.after")}: no persona is named "{plain(name)}"; {nearest(name, others)}')
        return tuple(dict.fromkeys(raw.after))

    def prompt(self, raw: RawPersona, key: str) -> tuple[Path, RawFront, str]:
        file = self.file(f"{key}.prompt", raw.prompt)
        if file is None:
            role = raw.role or raw.name
            file = paths.prompt_file(role)
            if not file.is_file():
                where = self.source.at(f"{key}.role")
                roles = (shipped.stem for shipped in file.parent.glob("*.md"))
                raise UsageError(f'{where}: no prompt is shipped for "{role}"; {nearest(role, roles)}; or set prompt = "FILE.md"')
        return file, *read_prompt(file)

    def file(self, key: str, text: str | None) -> Path | None:
        """A path in the file is relative to the file, one on the command line to where the command was typed."""
        if text is None:
            return None
        base = Path.cwd() if self.source.option(key) else self.base
        return _lead(base, text)


def read_prompt(path: Path) -> tuple[RawFront, str]:
    """Front matter (TOML between two `---` lines at the top, may be missing) and body of a prompt file. Raise `UsageError`."""
    lines = read_text(path, MAX_PROMPT_BYTES, "prompt").replace("\r\n", "\n").split("\n")
    front = RawFront()
    if lines and lines[0].rstrip() == "---":
        end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
        if end is None:
            raise UsageError(f"{plain(str(path))}: front matter not closed: found no second --- line")
        # The blank line in the place of the first --- keeps the line numbers of errors true.
        source = Source(str(path), parse("\n".join(["", *lines[1:end]]), str(path)))
        front = source.read(RawFront, source.table)
        lines = lines[end + 1 :]
    body = "\n".join(lines).strip()
    if not body:
        raise UsageError(f"{plain(str(path))}: prompt empty: wanted the words that say who the persona is")
    return front, body


def _sampling(*layers: RawSampling) -> Sampling:
    """The defaults under each layer in turn; the last one wins."""
    said: dict[str, Any] = {}
    for layer in layers:
        said |= {key: value for key, value in msgspec.structs.asdict(layer).items() if value is not None}
    return Sampling(**said)
