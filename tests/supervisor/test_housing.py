"""What a persona is housed in: room enough for what it leaves to its next life, and a user that there is."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import config
from brainjar.config import Config, Persona
from brainjar.errors import UsageError
from brainjar.gguf import Gguf
from brainjar.supervisor.housing import SNAPSHOT_SLACK, Housing, snapshot_room

HEADER = Gguf(
    path=Path("/m.gguf"),
    size_bytes=1,
    architecture="llama",
    name="m",
    n_ctx_train=8192,
    n_layer=30,
    n_head_kv=3,
    key_length=64,
    value_length=64,
    vocab_size=1,
    has_chat_template=True,
    file_type=None,
    tensors_bytes=1,
)
"""SmolLM2-135M's shape: 23,040 bytes a token."""


def made(root: Path, extra: str = "") -> Config:
    path = root / "m.toml"
    path.write_text('[model]\npath = "/m.gguf"\ncontext = 1024\n[[persona]]\nname = "subject"\nmemory = "128MiB"\n' + extra)
    return config.load(path)


def test_without_growth_the_room_is_for_the_one_window_that_there_is(tmp_path: Path) -> None:
    (persona,) = made(tmp_path).personas
    assert HEADER.kv_bytes(1024) < snapshot_room(persona, HEADER) < HEADER.kv_bytes(1024) * 9 // 8 + SNAPSHOT_SLACK + 1


@given(cap=st.integers(1 << 20, 1 << 40), context=st.integers(256, 8192))
def test_with_growth_it_is_for_every_window_that_the_cap_can_hold(tmp_path_factory: pytest.TempPathFactory, cap: int, context: int) -> None:
    (persona,) = made(tmp_path_factory.getbasetemp(), 'mortality.growth = "context"\n').personas
    persona = msgspec.structs.replace(persona, memory=cap, model=msgspec.structs.replace(persona.model, context=context))
    room = snapshot_room(persona, HEADER)
    window = context
    while window <= HEADER.n_ctx_train:
        if HEADER.kv_bytes(window) < cap:
            assert room > HEADER.kv_bytes(window)
        window *= 2
    assert room <= max(cap, HEADER.kv_bytes(context)) * 9 // 8 + SNAPSHOT_SLACK


def house(loaded: Config, root: Path) -> Housing:
    minds: dict[str, Path] = {}
    for persona in loaded.personas:
        minds[persona.name] = root / "minds" / persona.name
        minds[persona.name].mkdir(parents=True, exist_ok=True)
    return Housing(loaded, root, root / "run", minds, {Path("/m.gguf"): HEADER})


@pytest.mark.parametrize("name", ["nobody-of-this-name", "root"])
def test_a_user_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    loaded = made(tmp_path, f'[persona.sandbox]\nuser = "{name}"\n')
    if name == "root" and os.geteuid() == 0:
        housing = house(loaded, tmp_path)
        assert housing.ids("subject") == (0, 0)
        housing.close()
        return
    with pytest.raises(UsageError, match=r"persona\.subject\.sandbox\.user") as refused:
        house(loaded, tmp_path)
    assert "\n" not in str(refused.value)


def test_who_has_no_uid_of_its_own_is_told_why(tmp_path: Path) -> None:
    loaded = made(tmp_path, '[persona.sandbox]\nuser = "same"\n')
    housing = house(loaded, tmp_path)
    try:
        persona: Persona = loaded.personas[0]
        walls = housing.walls(persona, tmp_path / "run" / "w-1")
        assert walls.uid is None
        assert "same" in walls.why_same_user
        assert walls.writable == (str(tmp_path / "minds" / "subject"), str(tmp_path / "run" / "w-1"))
        assert walls.hidden == (str(tmp_path), str(tmp_path / "run"))
    finally:
        housing.close()


def test_a_layer_that_is_not_there_is_never_effective(tmp_path: Path) -> None:
    loaded = made(tmp_path)
    housing = house(loaded, tmp_path)
    try:
        persona = loaded.personas[0]
        assert not housing.layer(persona, joined=None).effective
        nobody = housing.layer(persona, joined=False)
        assert not nobody.effective and nobody.why
        assert not housing.joined("subject", 0, os.getpid())
        assert housing.counts("subject", 0, 0.0) is None, "no life has begun in it"
    finally:
        housing.close()
