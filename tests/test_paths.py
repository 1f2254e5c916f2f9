"""Where things are, from the environment; and that a wheel has all that a checkout has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import brainjar
from brainjar import paths

PACKAGE = Path(brainjar.__file__).parent


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRAINJAR_MODELS", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")


def test_what_is_shipped_is_found() -> None:
    assert paths.catalog_file().is_file()
    assert paths.config_dir().is_dir()
    assert paths.prompt_file("subject").parent == PACKAGE / "prompts"


def test_models_land_in_the_checkout_else_in_the_data_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.models_dir() == PACKAGE.parent / "models"
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site-packages" / "brainjar")
    assert paths.models_dir() == Path("/home/somebody/.local/share/brainjar/models")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert paths.models_dir() == Path("/data/brainjar/models")
    monkeypatch.setenv("BRAINJAR_MODELS", "~/m")
    assert paths.models_dir() == Path("/home/somebody/m")


def test_state_is_systemd_s_else_xdg_s_else_the_home_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.default_state_dir("j") == Path("/home/somebody/.local/state/brainjar/j")
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert paths.default_state_dir("j") == Path("/home/somebody/.local/state/brainjar/j")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert paths.default_state_dir("j") == Path("/s/brainjar/j")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
    assert paths.default_state_dir("j") == Path("/var/lib/a")


def test_sockets_are_systemd_s_else_xdg_s_else_below_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.default_runtime_dir("j") == Path(f"/tmp/brainjar-{os.getuid()}/j")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert paths.default_runtime_dir("j") == Path("/run/user/1/brainjar/j")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/a")
    assert paths.default_runtime_dir("j") == Path("/run/a")


def test_every_directory_of_code_is_a_package() -> None:
    """`packages = find:` leaves out what has no __init__.py: it would be missing from the wheel alone."""
    homeless = {file.parent for file in PACKAGE.rglob("*.py") if not (file.parent / "__init__.py").exists()}
    assert homeless == set()
