"""That a trial is made where its answer matters, once, and that its answer is believed only where it is one about this model and host."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from brainjar import gguf
from brainjar.cli import trials
from brainjar.config import Config, Engine, Jar, Placement
from brainjar.gguf import Gguf
from brainjar.plan import MIB, Plan
from brainjar.repack import Timing, Trial, choose
from tests.ggufs import write_tiny
from tests.test_plan import A, config, figures, persona, plan

SLOWER = Trial(repacked=Timing(read_s=2.0, say_s=2.0), plain=Timing(read_s=1.0, say_s=1.0))
FASTER = Trial(repacked=SLOWER.plain, plain=SLOWER.repacked)


@pytest.fixture
def jar(tmp_path: Path) -> Config:
    model = msgspec.structs.replace(A, path=write_tiny(tmp_path / "a.gguf", "llama"))
    made = config(msgspec.structs.replace(persona("subject"), model=model))
    return msgspec.structs.replace(made, jar=Jar(name="j", state_dir=tmp_path, runtime_dir=tmp_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """What a trial was made of; its answer is `SLOWER`."""
    found: list[tuple[Path, int]] = []

    def trial(path: Path, threads: int) -> Trial:
        found.append((path, threads))
        return SLOWER

    monkeypatch.setattr(trials, "_trial", trial)
    return found


def headers(jar: Config) -> dict[Path, Gguf]:
    return {model.path: gguf.read(model.path) for model in jar.models}


def planned(jar: Config, *, repacked: int = 72 * MIB) -> Plan:
    (path,) = {model.path for model in jar.models}
    return plan(jar, known={path: figures(repacked=repacked)})


def test_it_is_measured_once_and_remembered(jar: Config, asked: list[tuple[Path, int]], capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = headers(jar)
    first = trials.measured(trials.known(jar, headers(jar)), headers(jar), planned(jar))
    assert asked == [(path, jar.personas[0].threads)]
    assert first.layouts == {path: choose(SLOWER)} and not first.repacks(first.models[0])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "measuring" in said[0] and "as in the file: 1e+03 ms" in said[1]
    again = trials.known(jar, headers(jar))
    assert again.layouts == first.layouts and trials.measured(again, headers(jar), planned(jar)) == again
    assert len(asked) == 1 and capsys.readouterr().err == ""


def test_where_nothing_would_be_repacked_nothing_is_measured(jar: Config, asked: list[tuple[Path, int]]) -> None:
    assert trials.measured(jar, headers(jar), planned(jar, repacked=0)).layouts == {}
    assert trials.measured(jar, headers(jar), None).layouts == {}, "nor where there is no plan"
    assert asked == []


@pytest.mark.parametrize("repack", [True, False])
def test_who_says_it_in_the_config_has_it_so(jar: Config, asked: list[tuple[Path, int]], repack: bool) -> None:
    said = msgspec.structs.replace(jar, inference=msgspec.structs.replace(jar.inference, repack=repack))
    (tmp := jar.jar.state_dir / trials.FILE).write_bytes(b"{}")
    made = trials.measured(trials.known(said, headers(jar)), headers(jar), planned(said))
    assert made.repacks(made.models[0]) is repack and asked == [] and tmp.read_bytes() == b"{}"


def test_another_model_another_host_and_another_build_are_measured_anew(
    jar: Config, asked: list[tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.measured(jar, headers(jar), planned(jar))
    assert trials.known(jar, headers(jar)).layouts
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(trials, "_cpu", lambda: "another")
        assert not trials.known(jar, headers(jar)).layouts
    with monkeypatch.context() as rebuilt:
        rebuilt.setattr(trials, "_build", lambda: "another")
        assert not trials.known(jar, headers(jar)).layouts
    more = msgspec.structs.replace(jar, personas=(msgspec.structs.replace(jar.personas[0], threads=7),))
    assert not trials.known(more, headers(jar)).layouts
    assert trials.known(jar, headers(jar)).layouts
    (path,) = headers(jar)
    body = bytearray(path.read_bytes())
    body[-100] ^= 1
    path.write_bytes(body)
    assert not trials.known(jar, headers(jar)).layouts


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"a": 1}', b'{"a": {"repacked": {"read_s": "x", "say_s": 1}}}'])
def test_what_cannot_be_read_is_measured_again_and_replaced(jar: Config, asked: list[tuple[Path, int]], body: bytes) -> None:
    (jar.jar.state_dir / trials.FILE).write_bytes(body)
    trials.measured(trials.known(jar, headers(jar)), headers(jar), planned(jar))
    assert len(asked) == 1 and trials.known(jar, headers(jar)).layouts


def test_a_trial_that_fails_is_said_and_nothing_is_kept(
    jar: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trials, "_trial", lambda *_: "ended with signal SIGILL: it said nothing")
    made = trials.measured(jar, headers(jar), planned(jar))
    assert made.layouts == {} and made.repacks(made.models[0]) and made.layout(made.models[0]) == ""
    assert "SIGILL" in capsys.readouterr().err.splitlines()[-1]
    assert not trials.known(jar, headers(jar)).layouts


def test_a_full_disk_is_said_and_the_answer_is_used(jar: Config, asked: list[tuple[Path, int]], capsys: pytest.CaptureFixture[str]) -> None:
    (jar.jar.state_dir / f"{trials.FILE}.new").mkdir()  # what stands in the way, for root too
    assert trials.measured(jar, headers(jar), planned(jar)).layouts
    assert "the next start measures again" in capsys.readouterr().err


@pytest.mark.parametrize("layers", [0, -1])
def test_an_engine_is_asked_with_its_own_threads_and_a_gpu_not_at_all(jar: Config, asked: list[tuple[Path, int]], layers: int) -> None:
    model = msgspec.structs.replace(jar.models[0], mode="engine", placement=Placement(gpu_layers=layers))
    personas = (msgspec.structs.replace(jar.personas[0], model=model, threads=0),)
    engine = Engine(model=model.shared, personas=("subject",), cpus=(0, 1), threads=5)
    made = msgspec.structs.replace(jar, personas=personas, engines=(engine,))
    trials.measured(made, headers(made), planned(jar))
    assert asked == ([(model.path, 5)] if layers == 0 else [])


def test_workers_with_weights_of_their_own_map_the_file(jar: Config, asked: list[tuple[Path, int]]) -> None:
    alone = msgspec.structs.replace(jar.models[0], mode="separate")
    made = msgspec.structs.replace(jar, personas=(msgspec.structs.replace(jar.personas[0], model=alone),))
    assert trials.known(made, headers(made)).layouts == {} and not made.repacks(alone)
    assert "all workers map" in made.layout(alone)
