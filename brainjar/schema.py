"""The config file as it is written: every key that the design names, its type, its bounds, its default, what it wants in words.

These structs mirror matrix.toml and the front matter of prompt files; `tables.Source` reads them, `config` resolves them, nobody
else sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from brainjar.messages import JAR
from brainjar.tables import Key
from brainjar.units import MAX_CPU, parse_cpus, parse_duration, parse_percent, parse_size

MAX_PERSONAS: Final = 1024
MAX_SECONDS: Final = 10 * 365 * 86400.0
MAX_MEMORY: Final = 16 << 40
FIRST: Final = "You are awake. Think aloud."
"""What is said first to a persona whose prompt file has no `first`."""


def _text(read: Callable[[str], object]) -> Callable[[object], object]:
    def parse_text(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError
        return read(value)

    return parse_text


def _cpus(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, list) and all(type(cpu) is int for cpu in value):
        value = ",".join(map(str, value))
    return _text(parse_cpus)(value)


def _percent(default: str) -> Key:
    return Key(f"a percentage from 1 to 100 (100: never), such as {default}")


NAME_WORDS: Final = f'a name of 1 to 32 of a-z, 0-9, "_", "-", not "{JAR}", beginning with a letter or digit'
Name = Annotated[str, Meta(pattern=rf"^(?!{JAR}\Z)[a-z0-9][a-z0-9_-]{{0,31}}\Z"), Key(NAME_WORDS)]
Dir = Annotated[str, Meta(pattern=r"^[^\x00]+\Z", max_length=4096), Key("a directory")]
File = Annotated[str, Meta(pattern=r"^[^\x00]+\Z", max_length=4096), Key("the path of a file")]
Span = Annotated[float, Meta(ge=0, lt=MAX_SECONDS), Key('a duration under 10 years, such as "3s" or "5m"', _text(parse_duration))]
Told = Annotated[str, Meta(min_length=1, max_length=1024), Key("what it is told, 1 to 1024 characters")]
Vitals = Annotated[float, Meta(ge=0, lt=MAX_SECONDS), Key('a duration under 10 years, such as "1m"; "0s": never', _text(parse_duration))]
Threads = Annotated[Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_CPU + 1)], Key('"auto" or a number of threads, at least 1')]


class RawModel(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=256), Key("the name of a model in the catalog")] | None = None
    path: File | None = None
    context: Annotated[int, Meta(ge=256, le=1 << 20), Key("a number of tokens from 256 to 1048576")] | None = None
    gpu_layers: (
        Annotated[Literal["all"] | Annotated[int, Meta(ge=-1, le=1 << 16)], Key('a number of layers from 0 (none on a GPU), or "all"')]
        | None
    ) = None
    gpu: (
        Annotated[
            Literal["auto"]
            | Annotated[int, Meta(ge=0, le=63)]
            | Annotated[tuple[Annotated[int, Meta(ge=0, le=63)], ...], Meta(min_length=1, max_length=64)],
            Key('"auto", the number of a GPU or a list of them, such as [0, 1]'),
        ]
        | None
    ) = None
    split: (
        Annotated[
            Literal["layer", "row", "none"]
            | Annotated[tuple[Annotated[float, Meta(ge=0, le=1e6)], ...], Meta(min_length=2, max_length=64)],
            Key('"layer", "row", "none" (all on the first) or how much of the model each GPU gets, such as [3, 1]'),
        ]
        | None
    ) = None


class RawSampling(Struct, frozen=True, kw_only=True):
    """`messages.Sampling`, each field of which may be left out."""

    temperature: Annotated[float, Meta(ge=0, le=10), Key("a number from 0 to 10")] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 20), Key("an integer from 0 (off) to 1048576")] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1), Key("a number from 0 to 1")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1), Key("a number from 0 to 1")] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.1, le=10), Key("a number from 0.1 to 10 (1 is off)")] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 19), Key("an integer from 1 to half the context")] | None = None
    # 2^32 - 1 is llama.cpp's word for "any seed".
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 2), Key("an integer from 0 to 4294967294")] | None = None
    loop_guard: Annotated[bool, Key("true or false")] | None = None


class RawSandbox(Struct, frozen=True, kw_only=True):
    network: Annotated[bool, Key("true or false")] = False
    user: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z"), Key('"auto", "same" (the supervisor\'s own) or the name of a user')
    ] = "auto"
    file_size: Annotated[int, Meta(ge=1 << 20, le=MAX_MEMORY), Key('a size from 1MiB to 16TiB, such as "1GiB"', _text(parse_size))] = (
        1 << 30
    )


class RawMortality(Struct, frozen=True, kw_only=True):
    growth: Annotated[Literal["none", "context"], Key('"none" or "context"')] = "none"


class RawPersona(Struct, frozen=True, kw_only=True):
    name: Name
    role: Name | None = None
    prompt: File | None = None
    model: RawModel | None = None
    memory: Annotated[int, Meta(ge=1, le=MAX_MEMORY), Key('a size from 1B to 16TiB, such as "256MiB"', _text(parse_size))] = 256 << 20
    cpus: Annotated[
        Literal["auto"] | Annotated[tuple[int, ...], Meta(min_length=1)], Key('"auto" or CPUs such as [0, 1] or "0-3"', _cpus)
    ] = "auto"
    threads: Threads | None = None
    sees: Annotated[tuple[str, ...], Meta(max_length=2 * MAX_PERSONAS), Key('a list of names of other personas, or ["*"]')] = ()
    sampling: RawSampling = RawSampling()
    told: Annotated[bool, Key("true or false")] = False
    vitals: Vitals | None = None
    after: Annotated[tuple[str, ...], Meta(max_length=MAX_PERSONAS), Key("a list of names of other personas")] = ()
    when: Annotated[Literal["always", "on_death", "never"], Key('"always", "on_death" or "never"')] = "always"
    expendable: Annotated[int, Meta(ge=0, le=1000), Key("an integer from 0 (goes last) to 1000 (goes first)")] | None = None
    priority: Annotated[int, Meta(ge=0, le=1000), Key("an integer from 0 to 1000 (thinks first)")] = 0
    memory_high: (
        Annotated[int, Meta(ge=1, le=MAX_MEMORY), Key('a size below persona.memory, such as "240MiB"', _text(parse_size))] | None
    ) = None
    cpu_quota: (
        Annotated[float, Meta(ge=0.01, le=MAX_CPU + 1), Key('a share of one core from "1%", such as "150%"', _text(parse_percent))] | None
    ) = None
    nice: Annotated[int, Meta(ge=0, le=19), Key("an integer from 0 to 19")] = 0
    ionice: Annotated[
        str, Meta(pattern=r"^(none|idle|best-effort:[0-7])\Z"), Key('"none", "idle" or "best-effort:0" to "best-effort:7"')
    ] = "none"
    oom_score_adj: Annotated[int, Meta(ge=0, le=1000), Key("an integer from 0 to 1000")] = 500
    sandbox: RawSandbox = RawSandbox()
    mortality: RawMortality = RawMortality()


class RawJar(Struct, frozen=True, kw_only=True):
    name: Name = "brainjar"
    state_dir: Dir | None = None
    runtime_dir: Dir | None = None


class RawInference(Struct, frozen=True, kw_only=True):
    mode: Annotated[Literal["auto", "fork", "engine", "separate"], Key('"auto", "fork", "engine" or "separate"')] = "auto"
    max_concurrent: Annotated[int, Meta(ge=1, le=MAX_PERSONAS), Key("an integer from 1 to the number of personas")] | None = None
    threads: Threads = "auto"
    repack: Annotated[Literal["auto"] | bool, Key('"auto", true or false')] = "auto"


class RawRestart(Struct, frozen=True, kw_only=True):
    strategy: Annotated[Literal["one_for_one", "one_for_all", "rest_for_one"], Key('"one_for_one", "one_for_all" or "rest_for_one"')] = (
        "one_for_one"
    )
    pause: Span = 3.0
    intensity: Annotated[int, Meta(ge=1, le=1_000_000), Key("a number of deaths from 1 to 1000000")] = 5
    window: Annotated[
        float, Meta(ge=0.001, lt=MAX_SECONDS), Key('a duration from "1ms" to under 10 years, such as "60s"', _text(parse_duration))
    ] = 60.0
    backoff_max: Span | None = None
    reset: Span = 10.0
    give_up: Annotated[Literal["never", "persona", "jar"], Key('"never", "persona" or "jar"')] = "never"
    standby: Annotated[bool, Key("true or false")] = False


class RawWatchdog(Struct, frozen=True, kw_only=True):
    interval: Annotated[float, Meta(ge=0.1, le=3600), Key('a duration from "100ms" to "1h", such as "5s"', _text(parse_duration))] = 5.0
    gpu_memory: Annotated[float, Meta(ge=1, le=100), _percent("85")] = 85
    host_memory: Annotated[float, Meta(ge=1, le=100), _percent("90")] = 90
    gpu_memory_kill: Annotated[float, Meta(ge=1, le=100), Key("a percentage of at least watchdog.gpu_memory")] | None = None
    host_memory_kill: Annotated[float, Meta(ge=1, le=100), Key("a percentage of at least watchdog.host_memory")] | None = None
    pressure: Annotated[float, Meta(ge=1, le=100), _percent("40")] = 40
    disk: Annotated[float, Meta(ge=1, le=100), _percent("95")] = 95
    temperature: Annotated[float, Meta(ge=20, le=150), Key("degrees Celsius from 20 to 150, such as 85")] = 85
    temperature_resume: Annotated[float, Meta(ge=0, le=150), Key("degrees Celsius below watchdog.temperature, such as 80")] | None = None
    sensors: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
        Meta(max_length=64),
        Key('a list of names of sensors, where * stands for anything, such as ["cpu*", "GPU*"]; [] reads none'),
    ] = ("*",)
    cooldown: Annotated[float, Meta(ge=1, le=3600), Key('a duration from "1s" to "1h", such as "15s"', _text(parse_duration))] = 15.0
    stall: Annotated[
        float, Meta(ge=1, lt=MAX_SECONDS), Key('a duration from "1s" to under 10 years, such as "120s"', _text(parse_duration))
    ] = 120.0
    leak_window: Annotated[
        float, Meta(ge=1, lt=MAX_SECONDS), Key('a duration from "1s" to under 10 years, such as "30m"', _text(parse_duration))
    ] = 1800.0
    leak_horizon: Annotated[
        float, Meta(ge=0, lt=MAX_SECONDS), Key('a duration under 10 years, such as "10m"; "0s": never', _text(parse_duration))
    ] = 600.0


class RawSnapshots(Struct, frozen=True, kw_only=True):
    disk: Annotated[bool, Key("true or false")] = True
    write_budget: Annotated[
        int,
        Meta(ge=1 << 20, le=MAX_MEMORY),
        Key('a size that may be written in a day, from 1MiB to 16TiB, such as "4GiB"', _text(parse_size)),
    ] = 4 << 30


class RawRecord(Struct, frozen=True, kw_only=True):
    keep: Annotated[
        float, Meta(ge=0, lt=MAX_SECONDS), Key('a duration under 10 years, such as "90d"; "0s": for ever', _text(parse_duration))
    ] = 0.0
    size: Annotated[int, Meta(ge=0, le=MAX_MEMORY), Key('a size up to 16TiB, such as "1GiB"; "0B": without bound', _text(parse_size))] = 0
    traces: Annotated[bool, Key("true or false")] = True


class RawSenses(Struct, frozen=True, kw_only=True):
    readers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(max_length=16),
        Key('a list of names of readers that installed packages bring, such as ["sentiment"]'),
    ] = ()


class RawWeb(Struct, frozen=True, kw_only=True):
    enabled: Annotated[bool, Key("true or false")] = False
    host: Annotated[str, Meta(min_length=1, max_length=255), Key('an address to listen at, such as "127.0.0.1"')] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535), Key("a port from 1 to 65535, such as 8095")] = 8095
    socket: Annotated[str, Meta(max_length=100), Key("the path of a unix socket, of at most 100 characters")] = ""
    names: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...],
        Meta(max_length=16),
        Key('a list of names by which it is reached, such as ["jar.example"]'),
    ] = ()
    proxies: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(max_length=16),
        Key('a list of addresses of proxies that are believed, such as ["127.0.0.1"]'),
    ] = ()
    control: Annotated[bool, Key("true or false")] = False


class RawConfig(Struct, frozen=True, kw_only=True):
    jar: RawJar = RawJar()
    model: RawModel = RawModel()
    inference: RawInference = RawInference()
    restart: RawRestart = RawRestart()
    watchdog: RawWatchdog = RawWatchdog()
    snapshots: RawSnapshots = RawSnapshots()
    record: RawRecord = RawRecord()
    senses: RawSenses = RawSenses()
    web: RawWeb = RawWeb()
    sampling: RawSampling = RawSampling()
    persona: tuple[RawPersona, ...] = ()


class RawFront(Struct, frozen=True, kw_only=True):
    """What stands between the `---` lines of a prompt file."""

    role: Name | None = None
    first: Annotated[str, Meta(min_length=1, max_length=4096), Key("what is said to it first, 1 to 4096 characters")] = FIRST
    death: Told | None = None
    nudge: Told | None = None
    other_death: Told | None = None
    other_life: Told | None = None
    sampling: RawSampling = RawSampling()
