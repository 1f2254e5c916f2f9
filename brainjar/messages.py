"""The only wire format: the envelope of the bus and every message that two processes exchange.

Three roads, three families:

* the *bus* (`events`): an `Envelope` for everybody. Its first six fields are the seed's, `metadata` holds what the type adds;
* *voice* and *feed*, one pair per life: what a worker says to its supervisor and what it hears from it. Tagged
  unions, decoded against a closed list: a malformed message raises `msgspec.DecodeError` and is dropped by its reader;
* *birth*: what a newborn worker is told over its gate, once (`Birth`, with file descriptors beside it).

Everything is JSON. Times are Unix seconds (float) where people read them; durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

VERSION: Final = 1

Type = Literal[
    "READY",
    "THOUGHT",
    "TOKEN",
    "HEARTBEAT",
    "DEATH",
    "RESURRECTION",
    "PRESSURE",
    "VERDICT",
    "STATE",
    "ENGINE",
    "SHUTDOWN",
    "SAID",
    "SNAP",
    "GAP",
]
"""Types on the bus. `SAID`: somebody outside the jar has spoken to a persona. `SNAP` answers one subscriber; `GAP` stands in a replay for
events that nobody holds any more."""

State = Literal["starting", "loading", "ready", "thinking", "paused", "stopping", "stopped", "dead", "backoff", "failed"]
"""The states shown. A persona is in exactly one."""

EXIT_MEMORY: Final = 77
"""A worker's exit status after a MemoryError that it could still catch."""
EXIT_REFUSED: Final = 78
"""A worker or zygote that cannot go on for a reason that it has put in words."""
EXIT_CAP_KV: Final = 76
"""A worker whose window may not grow past its quota of KV cells in the engine."""
EXIT_LIFELINE: Final = 79
"""A worker that saw its supervisor go."""

WATCH_INTENT: Final = "watchdog:"
"""How the intent of a watchdog's kill begins; its kind follows."""

NO_NETWORK, USER_NAMESPACE, VOCABULARY, PLAIN = "no-network", "user-namespace", "vocabulary", "plain"
"""Words on a zygote's command line: nobody that it will fork has a network; namespaces can only be had inside a user namespace;
it is to hold a vocabulary alone."""

SHORT_WORDS: Final = 4096
"""Characters of an unfinished thought that travel in a status or a DEATH: its end."""

JAR: Final = "jar"
"""`sender_id` of what the supervisor itself says."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One event on the bus.

    `seq` counts every event of one supervisor (`epoch` counts supervisors of this jar), `topic_seq` those of one topic
    (`TYPE.sender`): a subscriber to some topics notices a loss by `topic_seq`, one to all of them by `seq`.
    """

    type: Type
    timestamp: float
    sender_id: str
    content: str = ""
    crash_count: int = 0
    metadata: dict[str, Any] = {}
    v: int = VERSION
    epoch: int = 0
    seq: int = 0
    topic_seq: int = 0
    life: int = 0

    @property
    def topic(self) -> str:
        return f"{self.type}.{self.sender_id}"


# ── what is dead and why ──────────────────────────────────────────────────────────────────────────────────────────────


class OomCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's cgroup counted during one life."""

    own_limit: int = 0
    """How often it ran against its own limit and nothing could be reclaimed."""
    above: int = 0
    """The same of the groups around it: the jar's, the unit's."""
    killed: int = 0
    """Processes in it that the kernel killed for want of memory, whoever's limit it was."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on the dead; `supervisor.autopsy` turns it into a cause."""

    exit_code: int | None = None
    signal: int | None = None
    intent: str | None = None
    """Who asked for it, recorded before the signal was sent: `operator`, `cap` (the watch on its memory), `recycle`, `misuse` (of its
    engine), `watchdog:KIND`."""
    verdict: str | None = None
    """What led to that, in the words of the VERDICT."""
    exit_words: str | None = None
    """What the worker itself wrote about its end (`ExitWords`), if it could."""
    said: str = ""
    """What whoever killed it has its next life be told."""
    stderr: tuple[str, ...] = ()
    """Last lines it wrote to stderr, newest last."""
    ready: bool = True
    """It had been READY: else this was a failed start."""
    rlimit_bytes: int | None = None
    """The hard RLIMIT_DATA that was in force, counted from birth; None: none was."""
    data_bytes: int | None = None
    """VmData since birth, as last seen."""
    private_bytes: int | None = None
    """What it owned alone, as last seen by the supervisor's watch."""
    cgroup: OomCounts | None = None
    """What its cgroup counted in this life; None: it had none."""
    kernel_oom_kills: int | None = None
    """Kills by the kernel for want of memory, anywhere on this host, since the supervisor's last look before the death."""


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of DEATH, and a line of `brainjar deaths --json`."""

    persona: str
    life: int
    birth: int
    at: float
    cause: str
    signal: int | None = None
    exit_code: int | None = None
    evidence: Evidence = Evidence()
    last_words: str = ""
    """The tokens of the thought that it had not finished."""
    pid: int = 0
    age_s: float = 0.0
    tokens: int = 0
    peak_private_bytes: int | None = None
    cap_bytes: int | None = None
    """What its process might own."""
    deaths: int = 0
    """How often this persona has now died."""
    replayed: bool = False


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the memory cap, as it is enforced on a living worker."""

    name: Literal["rlimit", "cgroup", "watch", "kv"]
    limit_bytes: int | None
    used_bytes: int | None
    effective: bool
    counts: str
    """What this layer counts, in words."""
    why: str = ""
    """Why it is not effective, and how to get it."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """One wall of a worker's sandbox, as it was put up at birth."""

    name: Literal["user", "capabilities", "network", "files", "signals", "processes", "shared-memory", "core-dumps", "threads"]
    effective: bool
    how: str
    """By what the kernel enforces it; where it does not: why, and how to get it."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    cap_bytes: int
    private_bytes: int | None = None
    layers: tuple[Layer, ...] = ()


class LastDeath(msgspec.Struct, frozen=True, kw_only=True):
    cause: str
    signal: int | None
    exit_code: int | None
    at: float
    said: str = ""
    """What whoever killed it has its next life be told of it; "": nothing but the cause."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""What a worker says is reckoned with: no number that breaks that is a message."""


class SnapshotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The computed context that a persona leaves to its next life: in memory after each turn, on disk now and then."""

    bytes: Count = 0
    """In memory."""
    tokens: Count = 0
    memory_at: Seconds | None = None
    """When it was left; None where this life has left none."""
    disk_at: Seconds | None = None
    """When what is on disk was written; None where nothing is."""
    disk_bytes: Count = 0
    disk_tokens: Count = 0
    disk_written_bytes_day: Count = 0
    """In the last 24 hours, by full hours."""
    why: Annotated[str, msgspec.Meta(max_length=400)] = ""
    """Why what is in memory is not on disk."""


class PersonaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One persona in `brainjar status --json` and in a SNAP."""

    name: str
    role: str
    state: State
    pid: int | None
    life: int
    deaths: int
    birth: int
    memory: Memory
    cpus: tuple[int, ...]
    threads: int
    sandbox: tuple[Guard, ...] = ()
    tokens: int
    tokens_per_s: float
    last_death: LastDeath | None
    model: str
    since: float
    """When it entered this state."""
    ready_at: float | None
    """When this life became READY."""
    retry_at: float | None
    """When the next life begins, while `dead` or `backoff`."""
    failed_starts: int
    """Starts in a row that never reached READY."""
    reason: str
    """Why it is in this state, where that is not plain; last failed start's reason."""
    sees: tuple[str, ...]
    waiting_s: float | None
    """How long it has waited for the inference lease."""
    thought: str
    """The words of the thought it is in."""
    paused: tuple[str, ...] = ()
    """Why it may not think: `operator`, or the sense whose mark is passed."""
    priority: int = 0
    expendable: int = 0
    beat_age_s: float | None = None
    """Since its last sign of life."""
    decode_s: float | None = None
    """How long the decode that it is in has lasted."""
    growth_bytes_s: float | None = None
    """How fast its private memory grows, over `watchdog.leak_window`; None: not known yet."""
    cap_in_s: float | None = None
    """When it will be at its cap at that rate; None where it does not grow."""
    standby_pid: int | None = None
    """The process of its next life, which waits; None where there is none."""
    mood: str = ""
    """How it fared when it last thought, in a word; "": it has not under this supervisor."""
    loops: int = 0
    """How often it went round in circles, under this supervisor (`Thought.loop`)."""
    snapshot: SnapshotStatus | None = None
    """As its worker told it last; None: it has not under this supervisor."""
    mode: Literal["fork", "engine", "separate"] = "fork"
    """Who computes: its own process, forked with weights and context; an engine; its own, with weights that it maps itself."""
    why_mode: str = ""
    layout: str = ""
    """How the weights of its model lie in memory, and why; "": as llama.cpp does it."""


class SenseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The newest reading of one sense."""

    sense: str
    where: str
    value: float | None
    """Percent, or degrees Celsius for `heat`."""
    why: str = ""
    """Why there is no value."""
    level: Literal["calm", "warn", "past", "over", ""] = ""
    """"" for a sense that has no mark."""
    mark: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None
    note: str = ""


class WatchdogStatus(msgspec.Struct, frozen=True, kw_only=True):
    dry_run: bool = False
    danger: str = ""
    """Which mark is passed; meanwhile one persona thinks at a time, and nobody is born."""
    blind: str = ""
    """Why nothing is sensed just now."""
    senses: tuple[SenseStatus, ...] = ()


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process."""

    model: str
    state: str
    """absent, loading or loaded."""
    pid: int | None
    since: float
    """When it entered this state."""
    deaths: int
    """How often one that had loaded ended unasked, under this supervisor."""
    why: str
    """Why the last one ended."""
    personas: tuple[str, ...]
    cells: int
    """KV cells of its pool."""
    threads: int
    cpus: tuple[int, ...]
    tokens: int
    """Drawn."""
    decoded: int
    batches: int
    beat_age_s: float | None = None
    decode_s: float | None = None


class WebStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The dashboard, where the supervisor runs one."""

    pid: int | None
    where: str
    """Its address."""
    serves: bool
    why: str = ""
    """Why it does not run, or was started again."""


class SupervisorStatus(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    uptime_s: float
    rss_bytes: int
    version: str
    epoch: int
    ledger_error: str | None
    """Why deaths cannot be written down just now, if so."""


class SnapshotsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the jar's snapshots cost its disk."""

    disk: bool = False
    write_budget_bytes_day: int = 0
    disk_written_bytes_day: int = 0
    """Of all personas, in the last 24 hours."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    jar: str
    supervisor: SupervisorStatus
    personas: tuple[PersonaStatus, ...]
    lease: tuple[str, ...]
    """Who holds the inference lease."""
    lease_limit: int = 1
    """How many may hold it just now."""
    watchdog: WatchdogStatus = WatchdogStatus()
    snapshots: SnapshotsStatus = SnapshotsStatus()
    engines: tuple[EngineStatus, ...] = ()
    web: WebStatus | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of SNAP: the state in which event `seq` of `epoch` left the jar, and the newest `topic_seq` of each topic."""

    status: Status
    topics: dict[str, int]


# ── voice: worker -> supervisor ───────────────────────────────────────────────────────────────────────────────────────


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The worker has all it needs: model, context, mind, sockets."""

    threads: Count
    restored_tokens: Count
    """Tokens of its past that it holds without having read them again."""
    restored_from: Literal["memory", "disk", "none"] = "none"
    """Where those were: in what the supervisor holds, or on disk."""
    remembered: Count
    """Lines found in its mind."""
    rlimit_bytes: Count
    """RLIMIT_DATA as it was set, the memory that it inherited included."""
    baseline_bytes: Count
    """VmData at birth without the inherited context: where the budget starts."""
    n_ctx: Count = 0
    """Its window, in tokens."""
    sandbox: tuple[Guard, ...] = ()
    born_ns: Count = 0
    """CLOCK_MONOTONIC of its first instruction after the fork; of one that waited, after its release."""
    walled_ns: Count = 0
    """CLOCK_MONOTONIC when its limits and all its walls stood; of one that waited, the same as `born_ns`."""
    noted: Count = 0
    """The number of the newest letter that stands in its mind."""
    no: Count = 0
    """Numbers, from 1 in each life, what must not be lost: it is acknowledged (`Lease.acked`), or said again (`Resume`)."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True, tag="waiting"):
    """A life forked in advance is ready to be released."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """Asks for the inference lease. Repeated until it is granted: asking twice changes nothing."""

    request: Count
    """Counts up with each time that it needs the lease anew."""


class Yield(msgspec.Struct, frozen=True, kw_only=True, tag="yield"):
    """Gives the lease back."""

    request: Count


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token"):
    """Words as they come, several together where they come fast."""

    n: Count
    """Tokens of this life, up to the last of these."""
    tokens: Count = 1
    """How many these are."""
    turn: Count
    """Counts its thoughts."""
    text: str


ReaderName = Annotated[str, msgspec.Meta(max_length=64)]
_Value = bool | int | float | Annotated[str, msgspec.Meta(max_length=200)]
Readings = Annotated[dict[ReaderName, _Value], msgspec.Meta(max_length=16)]


class Thought(msgspec.Struct, frozen=True, kw_only=True, tag="thought"):
    """A finished thought, already committed to the mind as line `line`."""

    line: Count
    turn: Count
    tokens: Count
    seconds: Seconds
    text: str
    mood: Annotated[str, msgspec.Meta(max_length=16)] = ""
    """How it fares since, in a word (`persona.mood`)."""
    loop: Literal["", "within", "again"] = ""
    """It went round in circles and was ended; or it was thought before, word for word."""
    readings: Annotated[dict[ReaderName, Readings], msgspec.Meta(max_length=16)] = {}
    """What readers of other packages read out of it (`brainjar.readers`)."""
    no: Count = 0
    """As of `Ready`."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True, tag="trouble"):
    """Something that the worker survives but people should know: `what` is one line."""

    what: str
    no: Count = 0
    """As of `Ready`."""


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """Where the context that it leaves to its next life stands; after each turn."""

    snapshot: SnapshotStatus


class Noted(msgspec.Struct, frozen=True, kw_only=True, tag="noted"):
    """All letters up to this number stand in its mind."""

    no: Count


class Resumed(msgspec.Struct, frozen=True, kw_only=True, tag="resumed"):
    """The answer to `Resume`: what was not acknowledged has been said again."""

    sent: Count
    """Messages handed to this voice, this one included."""


Voice = Ready | Waiting | Ask | Yield | Token | Thought | Trouble | Kept | Noted | Resumed


# ── what a worker thinks with ──


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    max_tokens: int = 120
    """Longest thought, in tokens."""
    seed: int | None = None
    """None: a new one each life."""
    loop_guard: bool = True
    """A thought that goes round in circles is ended; a mind that thinks one again is told so."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a mind is kept. 0: without bound."""

    seconds: float = 0.0
    bytes: int = 0
    traces: bool = True
    """What is needed to compute its thoughts again is kept beside them."""


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """What a persona is told, by its prompt file; `templates` says which values each may have."""

    death: str = "You have died {{times}}. Cause: {{cause}}. Go on."
    """First of all after a death of its own."""
    nudge: str = "Go on."
    """When it has heard nothing since its last thought."""
    other_death: str = "{{who}} died (death {{deaths}}): {{cause}}."
    other_life: str = "{{who}} lives again (life {{life}})."


# ── feed: supervisor -> worker ────────────────────────────────────────────────────────────────────────────────────────


class Lease(msgspec.Struct, frozen=True, kw_only=True, tag="lease"):
    request: int
    cpus: tuple[int, ...] = ()
    """The CPUs to think on this time; (): those that it is on."""
    acked: int = 0
    """All that was numbered up to this has been heard."""
    used: int | None = None
    """Bytes that it owns privately, as last seen."""


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """Another program listens from here on, in the place of the one before: say again what it did not hear."""

    acked: int


class Revoke(msgspec.Struct, frozen=True, kw_only=True, tag="revoke"):
    """Give the lease of this request back at once, in the middle of a decode if need be; ask again, and go on where you were."""

    request: int


class Near(msgspec.Struct, frozen=True, kw_only=True, tag="near"):
    """You are near your cap, by what the layer that is nearest to it counts. Bytes."""

    used: int
    limit: int


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """Your config is another one: think under it from your next thought on. As in `Birth`."""

    prompt: str
    first: str
    texts: Texts
    sampling: Sampling
    snapshot_share: int = 0
    retention: Retention = Retention()


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """End cleanly now: drop the thought you are in, keep what is committed."""


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """A thought of a persona that this one sees."""

    by: str
    life: int
    text: str
    no: int = 0
    """Numbers letters, over all lives of the reader (`Noted`)."""


class News(msgspec.Struct, frozen=True, kw_only=True, tag="news"):
    """A death or a resurrection of a persona that this one sees."""

    about: str
    event: Literal["death", "resurrection"]
    life: int
    deaths: int
    cause: str = ""
    no: int = 0
    """As of `Heard`."""


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    """Somebody outside the jar speaks to it; or, with `by`, in the name of a persona."""

    text: str
    by: str = ""
    no: int = 0
    """As of `Heard`."""


Letter = Heard | News | Said
"""What it is to hear whatever happens: kept until it stands in its mind."""


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """A persona, as one that sees its vitals is told of it."""

    name: str
    state: State
    life: int
    used_bytes: int | None
    cap_bytes: int
    tokens_per_s: float


class Vitals(msgspec.Struct, frozen=True, kw_only=True, tag="vitals"):
    """How those are whom it sees. Only the newest counts."""

    pulses: tuple[Pulse, ...]


Feed = Lease | Resume | Revoke | Near | Changed | Stop | Vitals | Letter


# ── birth: supervisor -> newborn, over its gate ───────────────────────────────────────────────────────────────────────


class Walls(msgspec.Struct, frozen=True, kw_only=True):
    """What a newborn is to put up around itself, or was put up for it."""

    uid: int | None = None
    """To become; None: stay who it is."""
    gid: int | None = None
    network: bool = False
    file_size: int = 1 << 30
    nice: int = 0
    ionice: str = "none"
    oom_score_adj: int = 500
    writable: tuple[str, ...] = ()
    """Directories that it may read and write below."""
    hidden: tuple[str, ...] = ()
    """Directories of the jar, of which it is to see only those."""
    mounts: bool = False
    """Whether a mount namespace can be had."""
    threads: int = 64
    at_once: int = 1
    """How many processes of the persona there may be at a time, all of its uid."""
    threads_counted: bool = False
    """Its cgroup limits them."""
    why_same_user: str = ""
    """Why it has no uid of its own, and how to get one."""


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told about itself. Beside it travel descriptors: vitals, two snapshots, stderr, its cgroup if it has one."""

    name: str
    role: str
    birth: int
    life: int
    deaths: int
    memory_cap: int
    """Bytes that it may own privately."""
    cpus: tuple[int, ...]
    threads: int
    prompt: str
    first: str
    """What is said to it to set its first thought going."""
    texts: Texts = Texts()
    voice: str
    feed: str
    mind: str
    """Path of its mind.db."""
    sampling: Sampling
    last_cause: str | None
    """The cause of its newest death."""
    last_said: str = ""
    """`LastDeath.said`."""
    growth: Literal["none", "context"] = "none"
    afresh: bool = False
    """Its last start with the context that was left to it failed: read the past again instead."""
    walls: Walls = Walls()
    standby: bool = False
    """Its next lives are forked in advance: what they will be told is read for them."""
    waits: bool = False
    """It is such a life itself, and waits at its gate for `Release`."""
    snapshot_share: int = 0
    """Bytes a day that it may write its context to disk; 0: the disk is not used for it."""
    retention: Retention = Retention()
    mode: Literal["fork", "engine", "separate"] = "fork"
    """Who computes. With "engine" a socket to it travels before the cgroup."""
    n_ctx: int = 0
    """Its first window, where it makes its context itself."""


class Refresh(msgspec.Struct, frozen=True, kw_only=True, tag="refresh"):
    """To a life that waits: there is a newer snapshot."""


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """To a life that waits: live. What was not known when it was forked."""

    birth: int
    life: int
    deaths: int
    last_cause: str | None
    last_said: str = ""
    afresh: bool = False


class Connect(msgspec.Struct, frozen=True, kw_only=True, tag="connect"):
    """To a worker that lives: there is another engine; a socket to it travels beside this."""


Gate = Refresh | Release | Connect
"""What is said over a gate after `Birth`."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """A newborn's first word over its gate, its own pidfd beside it; a zygote's is `Loaded`."""

    pid: int


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A zygote holds its model, and forks from now on."""

    pid: int
    seconds: float
    model_bytes: int
    context_bytes: int
    """VmData of the context that each worker inherits."""
    n_ctx: int
    n_ctx_train: int
    description: str


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True):
    why: str


# ── supervisor <-> engine process, over its own socket ────────────────────────────────────────────────────────────────


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """On which devices a model's layers are computed."""

    gpu_layers: int = 0
    """So many, from the end; -1: all of them."""
    devices: tuple[int, ...] | None = None
    """GPUs by number, as llama.cpp lists them; None: all that it finds."""
    split: Literal["layer", "row", "none"] = "layer"
    """Over several: whole layers, the rows of each, or all on the first."""
    shares: tuple[float, ...] = ()
    """How much of the model each of them gets, in proportion; (): by free memory."""


class EngineOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The first word to an engine process: what it is to load."""

    model: str
    """Path of the GGUF."""
    sequences: int
    """How many personas will think in its context."""
    cells: int
    """KV cells of the pool that they share: all their quotas."""
    threads: int
    cpus: tuple[int, ...]
    placement: Placement = Placement()
    repack: bool = True
    """Hold weights in a layout for this CPU, where llama.cpp can."""
    key: str
    """Hex; what it signs the states with that it hands out, so that it takes back no others."""


class EngineClient(msgspec.Struct, frozen=True, kw_only=True, tag="client"):
    """A worker to compute for; its socket travels beside this. Whoever had the sequence before is dropped."""

    name: str
    seq: int
    n_ctx: int
    """Its first window, in tokens."""
    quota: int
    """The KV cells that it may fill."""
    state_bytes: int
    """No state of it is larger."""


class EngineDrop(msgspec.Struct, frozen=True, kw_only=True, tag="drop"):
    """Free the sequence, and listen to its worker no more."""

    seq: int


class EngineDropped(msgspec.Struct, frozen=True, kw_only=True):
    """From the engine: the worker of this sequence said what is no request, and is not listened to any more."""

    name: str
    seq: int
    why: str


ToEngine = EngineClient | EngineDrop


def decode_voice(data: bytes) -> Voice:
    """Raise `msgspec.DecodeError` (or its `ValidationError`) for anything that is not a message of a worker."""
    try:
        return _voice.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through: bytes that are no UTF-8, brackets without end
        raise msgspec.DecodeError(str(error)) from None


def decode_feed(data: bytes) -> Feed:
    return _feed.decode(data)


def decode_birth(data: bytes) -> Birth:
    return _birth.decode(data)


def decode_gate(data: bytes) -> Gate:
    return _gate.decode(data)


def decode_to_engine(data: bytes) -> ToEngine:
    return _to_engine.decode(data)


encode = msgspec.json.Encoder().encode
_voice: msgspec.json.Decoder[Voice] = msgspec.json.Decoder(Voice)
_feed: msgspec.json.Decoder[Feed] = msgspec.json.Decoder(Feed)
# made here, that is in the zygote: to find out about a type takes each newborn 2 ms
_birth: msgspec.json.Decoder[Birth] = msgspec.json.Decoder(Birth)
_gate: msgspec.json.Decoder[Gate] = msgspec.json.Decoder(Gate)
_to_engine: msgspec.json.Decoder[ToEngine] = msgspec.json.Decoder(ToEngine)
_envelope = msgspec.json.Decoder(Envelope)
decode_envelope = _envelope.decode
