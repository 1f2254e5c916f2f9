"""What differs between two configs asks for the least harm that it takes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import config
from brainjar.config import Config, Persona
from brainjar.supervisor.changes import SUPERVISED, TOLD, compare

HEAD = '[model]\npath = "/m.gguf"\ncontext = 1024\n'
THREE = HEAD + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\nmemory = "128MiB"\n' for name in "abc")


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return config.load(path, overrides, allowed_cpus=frozenset({0, 1}))


@pytest.fixture
def old(tmp_path: Path) -> Config:
    return load(tmp_path, THREE)


def test_nothing_is_nothing(old: Config) -> None:
    assert compare(old, old).nothing
    assert compare(old, config.decode(config.encode(old))).nothing, "and it survives the way to another process"


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("persona.b.priority=3", ("priority",)),
        ("persona.b.expendable=3", ("expendable",)),
        ('persona.b.sees=["a"]', ("sees",)),
        ('persona.b.after=["a"]', ("after",)),
        ("persona.b.when=never", ("when",)),
        ("persona.b.sampling.temperature=0", ("sampling",)),
    ],
)
def test_what_nobody_need_die_for(tmp_path: Path, old: Config, override: str, keys: tuple[str, ...]) -> None:
    found = compare(old, load(tmp_path, THREE, override))
    assert found.live == {"b": keys}
    assert not (found.reborn or found.added or found.removed or found.jar or found.refused)
    assert found.words() == f"b: {keys[0]} (as it lives)"


def test_a_new_prompt_is_told(tmp_path: Path, old: Config) -> None:
    (tmp_path / "p.md").write_text("You are somebody else.")
    assert compare(old, load(tmp_path, THREE, f"persona.a.prompt={tmp_path / 'p.md'}")).live == {"a": ("prompt", "first")}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("persona.b.memory=256MiB", "memory"),
        ("persona.b.model.context=512", "model"),
        ("persona.b.sandbox.network=true", "sandbox"),
        ("persona.b.nice=3", "nice"),
        ("persona.b.oom_score_adj=3", "oom_score_adj"),
        ("persona.b.mortality.growth=context", "growth"),
    ],
)
def test_what_only_a_birth_can_change(tmp_path: Path, old: Config, override: str, key: str) -> None:
    found = compare(old, load(tmp_path, THREE, override))
    assert found.reborn == {"b": (key,)}
    assert not (found.live or found.added or found.removed)


def test_the_others_are_not_touched_when_one_comes_and_one_goes(tmp_path: Path, old: Config) -> None:
    text = HEAD + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\nmemory = "128MiB"\n' for name in "bcd")
    found = compare(old, load(tmp_path, text))
    assert (found.added, found.removed, found.live, found.reborn) == (("d",), ("a",), {}, {})
    assert found.words() == "d is new; a is stopped and gone from the jar"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("restart.pause=1s", "restart.pause"),
        ("watchdog.stall=9s", "watchdog.stall"),
        ("snapshots.write_budget=1GiB", "snapshots.write_budget"),
    ],
)
def test_the_jar_s_own(tmp_path: Path, old: Config, override: str, key: str) -> None:
    found = compare(old, load(tmp_path, THREE, override))
    assert found.jar == (key,)
    assert not (found.live or found.reborn)


@pytest.mark.parametrize("override", ["jar.name=other", "jar.state_dir=/s", "jar.runtime_dir=/r"])
def test_what_a_running_jar_cannot_become(tmp_path: Path, old: Config, override: str) -> None:
    found = compare(old, load(tmp_path, THREE, override, "persona.a.priority=9"))
    assert override.split("=")[0] in found.refused
    assert "stop it" in found.refused
    assert not (found.live or found.reborn or found.jar), "nothing at all is changed"


def test_weights_that_are_to_lie_otherwise_are_for_the_next_birth_of_all(tmp_path: Path, old: Config) -> None:
    found = compare(load(tmp_path, THREE, "inference.repack=true"), load(tmp_path, THREE, "inference.repack=false"))
    assert found.reborn == dict.fromkeys("abc", ("inference.repack",))


def test_where_one_of_an_engine_s_changes_all_of_it_begin_again(tmp_path: Path) -> None:
    old = load(tmp_path, THREE, "inference.mode=engine")
    new = load(tmp_path, THREE, "inference.mode=engine", "persona.b.memory=256MiB", "persona.c.priority=1")
    found = compare(old, new)
    assert found.reborn == {"a": ("its engine",), "b": ("memory",), "c": ("priority", "its engine")}
    assert found.live == {}
    assert compare(old, load(tmp_path, THREE, "inference.mode=engine", "persona.c.priority=1")).reborn == {}


@given(st.sampled_from([field for field in Persona.__struct_fields__ if field != "name"]))
def test_every_key_of_a_persona_is_acted_on(tmp_path_factory: pytest.TempPathFactory, field: str) -> None:
    old = load(tmp_path_factory.getbasetemp(), THREE)
    first = old.personas[0]
    other = msgspec.structs.replace(first, **{field: object()})
    found = compare(old, msgspec.structs.replace(old, personas=(other, *old.personas[1:]))) if field != "model" else None
    if found is not None:
        assert found.live == ({"a": (field,)} if field in SUPERVISED | TOLD else {})
        assert found.reborn == ({} if field in SUPERVISED | TOLD else {"a": (field,)})
