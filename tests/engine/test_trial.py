"""A trial of both layouts, by the real llama.cpp: what it says is measured, it leaves nothing, and it ends with who asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from brainjar import models
from brainjar.cli import planning, trials
from brainjar.engine import llama, trial
from brainjar.repack import Timing, Trial
from brainjar.supervisor import zygotes
from tests.ggufs import quantized, write_tiny
from tests.patience import PATIENCE_S

MODEL = models.lookup("smollm2-135m")


class Fake:
    """An engine that notes when it is asked what."""

    context = model = None

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self._said = name, said

    def tokenize(self, _: str, *, start: bool) -> list[int]:
        return list(range(500))

    def truncate(self, _: int) -> None:
        self._said.append(self.name)

    def feed(self, tokens: list[int]) -> bool:
        assert len(tokens) in (1, trial.READ)
        return True


def test_rounds_are_taken_in_turns_and_the_first_of_each_is_not_counted() -> None:
    said: list[str] = []
    found = trial._rounds([Fake("a", said), Fake("b", said)], 0.0)  # type: ignore[list-item]
    assert [len(rounds) for rounds in found] == [trial.LEAST] * 2
    assert said == ["a", "b"] * (trial.LEAST + 1)


def test_rounds_end_at_their_greatest_number_where_there_is_time_left() -> None:
    (found,) = trial._rounds([Fake("a", [])], 3600.0)  # type: ignore[list-item]
    assert len(found) == trial.MOST


def test_what_is_said_are_medians() -> None:
    assert trial._timing([(1.0, 10.0), (3.0, 30.0), (2.0, 500.0)]) == Timing(read_s=2.0, say_s=30.0)


@pytest.mark.parametrize("room", [1 << 50, 0])
def test_both_layouts_are_loaded_at_once_where_there_is_room_and_in_turn_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    model, open_now, seen = write_tiny(tmp_path / "a.gguf", "llama"), [], []
    loaded, rounds = trial._loaded, trial._rounds

    def noted(path: Path, threads: int, *, repack: bool) -> object:
        open_now.append(repack)
        return loaded(path, threads, repack=repack)

    def counted(engines: list[llama.Engine], budget: float) -> object:
        seen.append(len(engines))
        return rounds(engines, 0.0)

    monkeypatch.setattr(trial, "_room", lambda: room)
    monkeypatch.setattr(trial, "_loaded", noted)
    monkeypatch.setattr(trial, "_rounds", counted)
    llama.silence()
    found = trial.trial(model, 1)
    assert open_now == [True, False] and seen == ([2] if room else [1, 1])
    assert min(found.repacked.turn_s, found.plain.turn_s) > 0


def test_a_file_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    said = trials._trial(tmp_path / "no.gguf", 1)
    assert isinstance(said, str) and "cannot load" in said and "Traceback" not in said
    said = trials._trial(tmp_path / "absent.gguf", 1)
    assert isinstance(said, str) and "absent.gguf" in said


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "a.gguf", "llama")
    said = trials._trial(model, 1, patience_s=0.05)
    assert isinstance(said, str) and "was not done after 0.05 s" in said


def test_it_ends_with_who_asked(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "a.gguf", "llama")
    argv = [sys.executable, "-m", "brainjar.engine.trial", "--for", "1", str(model), "1"]
    done = subprocess.run(argv, env=zygotes.environment(), capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1 and done.stdout == b""


@pytest.mark.parametrize("arguments", [[], ["m"], ["m", "0"], ["m", "x"], ["m", "1", "2"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.model
@pytest.mark.skipif(not models.is_present(MODEL), reason=f"{MODEL.path} is not here; brainjar models fetch {MODEL.name}")
def test_it_agrees_with_what_a_look_at_the_same_work_finds(tmp_path: Path) -> None:
    """Measured here in the same way but by a clock around the whole: each layout's figure is what its tokens take."""
    model = quantized(MODEL.path, tmp_path / "q4_0.gguf")
    if not any(one.name == "CPU_REPACK" for one in planning.dry_run(model, (512,)).weights):
        pytest.skip("this CPU repacks no Q4_0")
    began = time.monotonic()
    found = trials._trial(model, len(os.sched_getaffinity(0)))
    took = time.monotonic() - began
    assert isinstance(found, Trial)
    rounds = trial.LEAST * (
        trial.READ * (found.repacked.read_s + found.plain.read_s) + trial.SAID * (found.repacked.say_s + found.plain.say_s)
    )
    assert 0 < rounds < took
    assert msgspec.json.decode(msgspec.json.encode(found), type=Trial) == found
