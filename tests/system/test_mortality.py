"""Out of memory, by the cap: what a growing window comes to. Each life ends of it, is told so, and goes on where it was."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from brainjar import minds, models
from brainjar.engine.snapshot import Meta
from tests.system.conftest import MakeJar
from tests.system.harness import Jar, Listener, until
from tests.system.test_death import deaths, left_behind, told

N_CTX = 512
FITS_1024 = 96
"""MiB: a window of 1024 tokens needs 82, one of 2048 needs 105."""
FITS_ALL = 280
REFUSED, ABORTED = FITS_1024, 210
"""MiB with which llama.cpp answers NULL when it is asked for 8192 tokens, and with which it aborts, as only their keys and values fit."""


def config(tmp_path: Path, memory: int, growth: str = "context", model: str = 'name = "smollm2-135m"') -> str:
    (tmp_path / "prompt.md").write_text("You are SUBJECT. Tell a long story.")
    return f"""
[jar]
name = "test"
[model]
{model}
context = {N_CTX}
[restart]
pause = "50ms"
intensity = 1000
[sampling]
max_tokens = 128
seed = 7
[[persona]]
name = "subject"
prompt = "{tmp_path}/prompt.md"
memory = "{memory}MiB"
threads = 1
mortality.growth = "{growth}"
"""


def until_grown(listener: Listener, tokens: int) -> None:
    _, before = listener.until("PRESSURE", "subject", lambda e: f"window grown to {tokens} tokens" in e.content)
    assert not any(e.type == "DEATH" for e in before)


def until_left_behind(jar: Jar, n_ctx: int, more_than: int) -> Meta:
    """What the newest snapshot is of, as soon as it is of so large a window, and of more tokens than that."""

    def large() -> Meta | None:
        return next((meta for meta in left_behind(jar) if meta.n_ctx == n_ctx and meta.n_past > more_than), None)

    found: Meta = until(large)
    return found


def test_a_window_that_is_full_is_doubled_and_forgets_nothing(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(config(tmp_path, FITS_ALL)).start()
    with jar.listening() as listener:
        jar.until_ready()
        until_grown(listener, 2 * N_CTX)
        listener.until("THOUGHT", "subject")
        meta = until_left_behind(jar, 2 * N_CTX, N_CTX)
    thoughts = [line.content for line in minds.read_lines(jar.state_dir / "minds" / "subject" / "mind.db") if line.id <= meta.line]
    assert [text.strip() for role, text in meta.messages if role == "assistant"] == thoughts, "a thought was cut out"
    assert jar.persona("subject")["deaths"] == 0
    layer = jar.persona("subject")["memory"]["layers"][0]
    assert layer["used_bytes"] < FITS_1024 << 20, "the window that it was born with is given back"


def test_it_dies_of_its_cap_over_and_over_is_told_each_time_and_reads_nothing_again(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(config(tmp_path, FITS_1024)).start()
    jar.until_ready()
    with jar.listening() as listener:
        until_grown(listener, 2 * N_CTX)
        for life in (1, 2):
            death, _ = listener.until("DEATH", "subject")
            assert (death.metadata["life"], death.metadata["cause"]) == (life, "cap-rlimit")
            ready, before = listener.until("READY", "subject")
            assert not any("cannot be had" in e.content or e.metadata.get("state") == "backoff" for e in before)
            assert ready.metadata["n_ctx"] == 2 * N_CTX, "what it was computed in fitted before"
            assert 64 < ready.metadata["restored_tokens"] <= N_CTX // 2, "with more it would soon be full again"
            _, before = listener.until("THOUGHT", "subject")
            assert not any(e.type == "DEATH" for e in before)
    assert [d.cause for d in deaths(jar, "subject")][:2] == ["cap-rlimit", "cap-rlimit"]
    assert told(jar, "subject")[:2] == [
        "You have died once. Cause: out of memory, at your cap. Go on.",
        "You have died 2 times. Cause: out of memory, at your cap. Go on.",
    ]
    assert jar.persona("subject")["failed_starts"] == 0


def test_without_growth_it_lives_on_with_what_fits(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(config(tmp_path, FITS_1024, growth="none")).start()
    jar.until_ready()
    with jar.listening() as listener:
        tokens = 0
        while tokens < 2 * N_CTX:
            thought, before = listener.until("THOUGHT", "subject")
            tokens += thought.metadata["tokens"]
            assert not any(e.type in ("PRESSURE", "DEATH") for e in before)
        assert {meta.n_ctx for meta in until(lambda: left_behind(jar))} == {N_CTX}


def test_killed_in_a_large_window_it_goes_on_in_as_large_a_one(make_jar: MakeJar, tmp_path: Path) -> None:
    jar = make_jar(config(tmp_path, FITS_ALL)).start()
    jar.until_ready()
    with jar.listening() as listener:
        until_grown(listener, 2 * N_CTX)
        before = until_left_behind(jar, 2 * N_CTX, N_CTX)
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        ready, _ = listener.until("READY", "subject")
        listener.until("THOUGHT", "subject")
    assert ready.metadata["n_ctx"] == 2 * N_CTX
    assert ready.metadata["restored_tokens"] >= before.n_past


def test_at_the_size_that_the_model_was_trained_for_it_slides_and_says_so_once(make_jar: MakeJar, tmp_path: Path) -> None:
    """The model is the real one, with another number in its header: to fill 8192 tokens would take minutes."""
    whole = models.lookup("smollm2-135m").path.read_bytes()
    key, uint32 = b"llama.context_length", 4
    value = struct.pack("<2I", uint32, 8192)
    assert whole.count(key + value) == 1
    path = tmp_path / "short.gguf"
    path.write_bytes(whole.replace(key + value, key + struct.pack("<2I", uint32, 2 * N_CTX)))
    jar = make_jar(config(tmp_path, FITS_ALL, model=f'path = "{path}"')).start()
    jar.until_ready()
    with jar.listening() as listener:
        until_grown(listener, 2 * N_CTX)
        listener.until("PRESSURE", "subject", lambda e: "slides from here" in e.content and "1024 tokens" in e.content)
        tokens = 0
        while tokens < 2 * N_CTX:  # so many that it has slid once more
            thought, before = listener.until("THOUGHT", "subject")
            tokens += thought.metadata["tokens"]
            assert not any(e.type in ("PRESSURE", "DEATH") for e in before)


@pytest.mark.parametrize(("memory", "aborts"), [(REFUSED, False), (ABORTED, True)])
def test_a_window_that_cannot_be_had_any_more_is_no_loop_of_deaths(make_jar: MakeJar, tmp_path: Path, memory: int, aborts: bool) -> None:
    jar = make_jar(config(tmp_path, memory)).start()
    jar.until_ready()
    with jar.listening() as listener:
        until_grown(listener, 2 * N_CTX)
        until_left_behind(jar, 2 * N_CTX, N_CTX)
        pid = jar.persona("subject")["pid"]
        os.kill(pid, signal.SIGSTOP)
        claim_window(jar, 2 * N_CTX, 8192)
        os.kill(pid, signal.SIGKILL)
        ready, before = listener.until("READY", "subject")
        listener.until("THOUGHT", "subject")
    assert (ready.metadata["n_ctx"], ready.metadata["restored_tokens"]) == (N_CTX, 0), "its past is read again, in the window of a birth"
    assert any("8192 tokens cannot be had any more" in e.content for e in before) != aborts
    assert sum(e.type == "STATE" and e.metadata["state"] == "backoff" for e in before) == aborts, (
        "one start fails where it aborts, none else"
    )
    assert [d.cause for d in deaths(jar, "subject")] == ["killed"]


def claim_window(jar: Jar, is_of: int, says: int) -> None:
    """Make what was left behind say that it was computed in another window. Its worker must stand still."""
    changed = 0
    for fd in os.listdir(f"/proc/{jar.pid}/fd"):
        at = f"/proc/{jar.pid}/fd/{fd}"
        try:
            if not os.readlink(at).startswith(("/memfd:brainjar-a", "/memfd:brainjar-b")):
                continue
            copy = os.open(at, os.O_RDWR)
        except FileNotFoundError:  # the supervisor closed it since: its fds come and go, the snapshots' stay
            continue
        try:
            head = os.pread(copy, 256 * 1024, 0)
            there = head.find(b'"n_ctx":%d,' % is_of)
            if head.startswith(b"BJSNAP") and there > 0:
                os.pwrite(copy, b'"n_ctx":%d,' % says, there)
                changed += 1
        finally:
            os.close(copy)
    assert changed
