"""Evidence -> cause of death. Pure.

What was *asked for* comes first: the supervisor records its intent before it sends a signal, so a SIGKILL of its own is
never mistaken for the kernel's. Then what the worker itself put in words, then what llama.cpp and the runtime wrote to
stderr before they gave up, then the bare signal or exit status. The shapes that "out of memory" takes are those measured
in `research/llm.md` §2.2 and `research/os_ui.md` §A4.
"""

from __future__ import annotations

import signal
from typing import Final

from brainjar.messages import EXIT_MEMORY, EXIT_REFUSED, Evidence

_INTENTS: Final = {"operator": "killed-by-operator"}
_SIGNALS: Final = {signal.SIGSEGV: "segv", signal.SIGBUS: "bus-error", signal.SIGILL: "illegal-instruction", signal.SIGFPE: "fpe"}
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
    if evidence.intent in _INTENTS:
        return _INTENTS[evidence.intent]
    said = "\n".join(evidence.stderr)
    starved = any(mark.lower() in said.lower() for mark in _ALLOCATION)
    if evidence.signal is not None:
        if evidence.signal == signal.SIGKILL:
            return "killed"
        if evidence.signal == signal.SIGABRT:
            return "cap-rlimit" if starved else ("abort-ggml" if "GGML_ASSERT" in said else "abort")
        if evidence.signal in _SIGNALS:
            return _SIGNALS[signal.Signals(evidence.signal)]
        return f"signal-{signal_name(evidence.signal)}"
    if evidence.exit_code == EXIT_MEMORY or (evidence.exit_code in (1, 127) and starved):
        return "cap-rlimit"
    if evidence.exit_code == EXIT_REFUSED:
        return "refused"
    if evidence.exit_code == 0:
        return "left"
    if evidence.exit_code == 1 and evidence.exit_words:
        return "exception"
    return "unknown" if evidence.exit_code is None else f"exit-{evidence.exit_code}"


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
    return f"{how}: {evidence.stderr[-1]}" if evidence.stderr else how


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
