"""Evidence -> cause: every shape of death that was measured, and that no cause is produced which docs/deaths.md does not explain."""

from __future__ import annotations

import itertools
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainjar.ledger import SUPERVISOR_LOST
from brainjar.messages import EXIT_CAP_KV, EXIT_LIFELINE, EXIT_MEMORY, EXIT_REFUSED, WATCH_INTENT, Evidence, OomCounts, Texts
from brainjar.persona import told
from brainjar.supervisor import autopsy

DOCUMENT = Path(__file__).parents[2] / "docs" / "deaths.md"
EXPLAINED = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE)

TLS = "python: error while loading shared libraries: cannot allocate memory for thread-local data: ABORT"
LIBGOMP = "libgomp: Thread creation failed: Resource temporarily unavailable"
ARENA = "/src/ggml/src/ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed"
ASSERT = "/src/ggml/src/ggml-cpu/ops.cpp:10: GGML_ASSERT(a->ne[0] == b->ne[0]) failed"
BAD_ALLOC = ("terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc")

CAP = 256 << 20
KILLED: dict[str, Any] = {"signal": signal.SIGKILL, "rlimit_bytes": CAP}

NO_DEATHS = {"stopped", "failed-start"}
"""What the document tells of below its table."""

MEASURED = {
    # research/llm.md §2.2, research/os_ui.md §A4
    "a NULL that became OutOfMemory": (
        Evidence(rlimit_bytes=CAP, exit_code=EXIT_MEMORY, exit_words="OutOfMemory: llama_decode returned -2"),
        "cap-rlimit",
    ),
    "a MemoryError that it caught": (Evidence(rlimit_bytes=CAP, exit_code=EXIT_MEMORY, exit_words="MemoryError: "), "cap-rlimit"),
    "a MemoryError that killed the interpreter": (
        Evidence(rlimit_bytes=CAP, exit_code=1, stderr=("Traceback", "MemoryError")),
        "cap-rlimit",
    ),
    "ggml's arena": (Evidence(rlimit_bytes=CAP, signal=signal.SIGABRT, stderr=(ARENA,)), "cap-rlimit"),
    "a std::vector in decode": (Evidence(rlimit_bytes=CAP, signal=signal.SIGABRT, stderr=BAD_ALLOC), "cap-rlimit"),
    "no OpenMP thread": (Evidence(rlimit_bytes=CAP, exit_code=1, stderr=(LIBGOMP,)), "cap-rlimit"),
    "ld.so's TLS": (Evidence(rlimit_bytes=CAP, exit_code=127, stderr=(TLS,)), "cap-rlimit"),
    "the same with no limit in force": (Evidence(exit_code=EXIT_MEMORY, exit_words="MemoryError: "), "out-of-memory"),
    "bad_alloc with no limit in force": (Evidence(signal=signal.SIGABRT, stderr=BAD_ALLOC), "out-of-memory"),
    "its cgroup's limit": (Evidence(**KILLED, cgroup=OomCounts(own_limit=1, killed=1)), "oom-cgroup"),
    # with memory.oom.group one death counts two (research/os_ui.md §A4)
    "its cgroup's limit, counted twice": (Evidence(**KILLED, cgroup=OomCounts(own_limit=3, killed=2, above=1)), "oom-cgroup"),
    "the limit of the unit around it": (Evidence(**KILLED, cgroup=OomCounts(above=1, killed=1), kernel_oom_kills=1), "oom-unit"),
    "the kernel, of all in its cgroup": (Evidence(**KILLED, cgroup=OomCounts(killed=1), kernel_oom_kills=1), "oom-kernel"),
    "the kernel, where there are no cgroups": (Evidence(**KILLED, kernel_oom_kills=2), "oom-kernel"),
    "somebody's kill -9, while the kernel killed others": (Evidence(**KILLED, cgroup=OomCounts(), kernel_oom_kills=2), "killed"),
    "the supervisor's own watch": (Evidence(**KILLED, intent="cap", private_bytes=CAP + 1), "cap-watch"),
    "a watchdog": (Evidence(**KILLED, intent=f"{WATCH_INTENT}temperature"), "watchdog-temperature"),
    "a planned end": (Evidence(exit_code=0, intent="recycle"), "recycled"),
    "a stall that took SIGABRT": (Evidence(signal=signal.SIGABRT, intent=f"{WATCH_INTENT}stalled"), "watchdog-stalled"),
    "an abort of starvation, its stack behind it": (
        Evidence(rlimit_bytes=CAP, signal=signal.SIGABRT, stderr=(*BAD_ALLOC, "Fatal Python error: Aborted", "  File x, line 3 in feed")),
        "cap-rlimit",
    ),
    "an end before READY": (Evidence(exit_code=EXIT_REFUSED, ready=False, exit_words="EngineError: no"), "failed-start"),
    "a cap too small to be born under": (Evidence(exit_code=EXIT_MEMORY, ready=False, rlimit_bytes=CAP), "failed-start"),
    "use of a NULL": (Evidence(signal=signal.SIGSEGV), "segv"),
    "somebody's kill -9, or the kernel's": (Evidence(signal=signal.SIGKILL), "killed"),
    "the operator's": (Evidence(signal=signal.SIGKILL, intent="operator"), "killed-by-operator"),
    "an assertion of ggml's": (Evidence(signal=signal.SIGABRT, stderr=(ASSERT,)), "abort-ggml"),
    "an abort": (Evidence(signal=signal.SIGABRT, stderr=("glibc detected something",)), "abort"),
    "SIGBUS": (Evidence(signal=signal.SIGBUS), "bus-error"),
    "SIGILL": (Evidence(signal=signal.SIGILL), "illegal-instruction"),
    "SIGFPE": (Evidence(signal=signal.SIGFPE), "fpe"),
    "another signal": (Evidence(signal=signal.SIGXCPU), "signal-SIGXCPU"),
    "a signal without a name": (Evidence(signal=63), "signal-63"),
    "a reason in words": (Evidence(exit_code=EXIT_REFUSED, exit_words="EngineError: the context is full"), "refused"),
    "an exception": (Evidence(exit_code=1, exit_words="ValueError: no"), "exception"),
    "exit 1 and not a word": (Evidence(exit_code=1), "exit-1"),
    "exit 127 for another reason": (Evidence(exit_code=127, stderr=("sh: nothing: not found",)), "exit-127"),
    "a window that its quota of cells has no room for": (
        Evidence(rlimit_bytes=CAP, exit_code=EXIT_CAP_KV, exit_words="CapKv: a window of 1024 tokens is more than the 600 KV cells"),
        "cap-kv",
    ),
    "let go of by its engine": (Evidence(signal=9, intent="misuse", verdict="it sent what is no request"), "engine-misuse"),
    "exit 0 unasked": (Evidence(exit_code=0), "left"),
    "its lifeline": (Evidence(exit_code=EXIT_LIFELINE), f"exit-{EXIT_LIFELINE}"),
    "nobody can say": (Evidence(), "unknown"),
}


@pytest.mark.parametrize(("evidence", "cause"), MEASURED.values(), ids=MEASURED)
def test_every_measured_shape_of_death(evidence: Evidence, cause: str) -> None:
    assert autopsy.cause(evidence) == cause


@pytest.mark.parametrize("evidence", [e for e, _ in MEASURED.values()], ids=MEASURED)
def test_what_was_asked_for_comes_before_what_was_found(evidence: Evidence) -> None:
    asked = msgspec.structs.replace(evidence, intent="operator", ready=True)
    assert autopsy.cause(asked) == "killed-by-operator"


def test_old_words_on_stderr_do_not_turn_a_kill_into_a_full_cap() -> None:
    """SIGKILL is never the rlimit: whatever was refused before, this was somebody else."""
    assert autopsy.cause(Evidence(signal=signal.SIGKILL, stderr=BAD_ALLOC)) == "killed"
    assert autopsy.cause(Evidence(exit_code=0, stderr=BAD_ALLOC)) == "left"


@given(
    st.builds(
        Evidence,
        exit_code=st.none() | st.integers(0, 255),
        signal=st.none() | st.integers(1, 64),
        intent=st.sampled_from([None, "operator", "stop", "cap", "nonsense", f"{WATCH_INTENT}heat"]),
        ready=st.booleans(),
        rlimit_bytes=st.none() | st.integers(0, 1 << 40),
        cgroup=st.none() | st.builds(OomCounts, own_limit=st.integers(0, 2), above=st.integers(0, 2), killed=st.integers(0, 2)),
        kernel_oom_kills=st.none() | st.integers(0, 3),
        exit_words=st.none() | st.text(max_size=20),
        stderr=st.lists(st.sampled_from([ARENA, ASSERT, TLS, LIBGOMP, *BAD_ALLOC, "x"]) | st.text(max_size=30), max_size=3).map(tuple),
    )
)
@example(Evidence())
def test_whatever_is_found_has_a_cause_that_the_document_explains_and_words_on_one_line(evidence: Evidence) -> None:
    cause = autopsy.cause(evidence)
    assert _explained(cause), cause
    assert "None" not in cause
    assert "\n" not in autopsy.in_words(evidence) or any("\n" in line for line in evidence.stderr)
    assert "None" not in autopsy.in_words(evidence) or "None" in f"{evidence.exit_words}{evidence.stderr}"


def test_the_document_explains_nothing_that_cannot_happen() -> None:
    produced = {cause for _, cause in MEASURED.values()} | {SUPERVISOR_LOST}
    for pattern, family in ((r"^signal-.*", "signal-NAME"), (r"^exit-.*", "exit-N"), (r"^watchdog-.*", "watchdog-KIND")):
        produced = {re.sub(pattern, family, cause) for cause in produced}
    families = produced - NO_DEATHS
    assert sorted(EXPLAINED) == sorted(families)


def test_a_persona_is_told_every_cause_in_words() -> None:
    for cause in [c for _, c in MEASURED.values()] + [SUPERVISOR_LOST]:
        assert "-" not in told.of_own_death(Texts(), 2, cause).split("Cause:")[1]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(signal=9), "signal 9 (SIGKILL)"),
        (Evidence(signal=63), "signal 63 (63)"),
        (Evidence(exit_code=3), "exit status 3"),
        (Evidence(exit_code=3, stderr=("first", "last")), "exit status 3: last"),
        (Evidence(exit_code=1, exit_words="ValueError: no\nmore", stderr=("x",)), "ValueError: no more"),
        (Evidence(), "how it ended could not be learnt"),
    ],
)
def test_the_evidence_in_words(evidence: Evidence, words: str) -> None:
    assert autopsy.in_words(evidence) == words


@pytest.mark.parametrize(
    ("code", "signal_number", "oom_kills", "words"),
    [
        (None, 9, 1, "the kernel killed it for want of memory: `brainjar plan` says how much the jar needs"),
        (None, 9, 0, "signal SIGKILL; its last words are in zygote.log"),
        (None, 9, None, "signal SIGKILL; its last words are in zygote.log"),
        (None, 11, 1, "signal SIGSEGV; its last words are in zygote.log"),
        (3, None, 1, "exit status 3; its last words are in zygote.log"),
    ],
)
def test_how_a_process_that_holds_a_model_ended(code: int | None, signal_number: int | None, oom_kills: int | None, words: str) -> None:
    assert autopsy.how_ended(code, signal_number, oom_kills, "zygote.log") == words


def _explained(cause: str) -> bool:
    return cause in EXPLAINED or cause in NO_DEATHS or bool(re.fullmatch(r"signal-(SIG[A-Z0-9+]+|\d+)|exit-\d+|watchdog-[a-z]+", cause))


def test_a_kill_that_nobody_of_the_jar_sent_is_the_kernels_only_if_the_kernel_counted_one() -> None:
    for own, above, killed, kernel in itertools.product((0, 1), (0, 1), (0, 1), (None, 0, 1)):
        counts = OomCounts(own_limit=own, above=above, killed=killed)
        cause = autopsy.cause(Evidence(**KILLED, cgroup=counts, kernel_oom_kills=kernel))
        assert (cause == "killed") == (killed == 0)
        assert (cause == "oom-cgroup") == bool(killed and own)


def test_every_cause_about_memory_is_known_as_such() -> None:
    assert {cause for _, cause in MEASURED.values() if cause.startswith(("cap-", "oom-", "out-of"))} == told.OF_MEMORY
