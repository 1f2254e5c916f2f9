"""Evidence -> cause of death. Pure.

What was *asked for* comes first: the supervisor records its intent before it sends a signal, so a SIGKILL of its own is
never mistaken for the kernel's. Then what the kernel counted, in the worker's own group, around it, on the whole host. Then
what the worker itself put in words, what llama.cpp and the runtime wrote to stderr before they gave up, and last the bare
signal or exit status. The shapes that "out of memory" takes are those measured in `research/llm.md` §2.2 and
`research/os_ui.md` §A4; every cause is explained in docs/deaths.md.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from brainjar.messages import EXIT_CAP_KV, EXIT_MEMORY, EXIT_REFUSED, WATCH_INTENT, Evidence

RECYCLED: Final = "recycled"
_INTENTS: Final = {"operator": "killed-by-operator", "cap": "cap-watch", "recycle": RECYCLED, "misuse": "engine-misuse"}
_SIGNALS: Final = {signal.SIGSEGV: "segv", signal.SIGBUS: "bus-error", signal.SIGILL: "illegal-instruction", signal.SIGFPE: "fpe"}
_STACK: Final = "Fatal Python error: "
"""How faulthandler begins a dump."""
_ALLOCATION: Final = (
    "bad_alloc",
    "cannot allocate memory",
    "failed to allocate",
    "mem_buffer != NULL",
    "Thread creation failed: Resource temporarily unavailable",
    "MemoryError",
)


def cause(evidence: Evidence) -> str:
    """One word from the list in docs/deaths.md."""
    if not evidence.ready:
        return "failed-start"
    if evidence.intent in _INTENTS:
        return _INTENTS[evidence.intent]
    if evidence.intent is not None and evidence.intent.startswith(WATCH_INTENT):
        return f"watchdog-{evidence.intent.removeprefix(WATCH_INTENT)}"
    starved = _starved(evidence)
    if evidence.signal is not None:
        if evidence.signal == signal.SIGKILL:
            return _killed(evidence)
        if evidence.signal == signal.SIGABRT:
            said = "\n".join(evidence.stderr)
            return _refused_memory(evidence) if starved else ("abort-ggml" if "GGML_ASSERT" in said else "abort")
        if evidence.signal in _SIGNALS:
            return _SIGNALS[signal.Signals(evidence.signal)]
        return f"signal-{signal_name(evidence.signal)}"
    if evidence.exit_code == EXIT_MEMORY or (evidence.exit_code in (1, 127) and starved):
        return _refused_memory(evidence)
    if evidence.exit_code == EXIT_CAP_KV:
        return "cap-kv"
    if evidence.exit_code == EXIT_REFUSED:
        return "refused"
    if evidence.exit_code == 0:
        return "left"
    if evidence.exit_code == 1 and evidence.exit_words:
        return "exception"
    return "unknown" if evidence.exit_code is None else f"exit-{evidence.exit_code}"


def _killed(evidence: Evidence) -> str:
    """SIGKILL that nobody of the jar sent: the kernel's, if it counted one, and then whose limit it was; else somebody's."""
    counted = evidence.cgroup
    if counted is not None:
        if not counted.killed:
            return "killed"  # its group would have counted any kill for want of memory, whoever's
        if counted.own_limit:
            return "oom-cgroup"
        return "oom-unit" if counted.above else "oom-kernel"
    return "oom-kernel" if evidence.kernel_oom_kills else "killed"


def _refused_memory(evidence: Evidence) -> str:
    """An allocation failed. Only where a limit was in force was it the cap."""
    return "cap-rlimit" if evidence.rlimit_bytes is not None else "out-of-memory"


def _starved(evidence: Evidence) -> bool:
    said = "\n".join(evidence.stderr).lower()
    return any(mark.lower() in said for mark in _ALLOCATION)


def in_words(evidence: Evidence) -> str:
    """The evidence on one line, for people."""
    if evidence.exit_words:
        return " ".join(evidence.exit_words.split())
    if evidence.signal is not None:
        how = f"signal {evidence.signal} ({signal_name(evidence.signal)})"
    elif evidence.exit_code is not None:
        how = f"exit status {evidence.exit_code}"
    else:
        how = "how it ended could not be learnt"
    last = _last_words(evidence.stderr)
    return f"{how}: {last}" if last else how


def _last_words(stderr: Sequence[str]) -> str:
    """Its last line; where that is a stack, what was said before it, or what the stack is of."""
    stack = next((n for n, line in enumerate(stderr) if line.startswith(_STACK)), None)
    if stack is None:
        return stderr[-1] if stderr else ""
    return stderr[stack - 1] if stack else stderr[0]


def how_ended(code: int | None, signal_number: int | None, oom_kills: int | None, log: object) -> str:
    """In words, how a process that holds a model ended, which nobody asked to; `oom_kills`: counted by the kernel since the last look."""
    if signal_number == signal.SIGKILL and oom_kills:
        return "the kernel killed it for want of memory: `brainjar plan` says how much the jar needs"
    how = f"signal {signal_name(signal_number)}" if signal_number is not None else f"exit status {code}"
    return f"{how}; its last words are in {log}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
