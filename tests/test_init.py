"""The shipped configs: each loads, is said in a line, and can be had as a file of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainjar import config, paths
from brainjar.cli.init import described
from brainjar.cli.main import main

SHIPPED = sorted(paths.config_dir().glob("*.toml"))
NAMES = {"matrix", "single", "peer", "observed", "raspberry-pi", "jetson-orin-32g"}


def test_the_experiments_are_there() -> None:
    assert {path.stem for path in SHIPPED} >= NAMES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_each_loads_and_is_said_in_a_line(path: Path) -> None:
    loaded = config.load(path, allowed_cpus=frozenset(range(4)))
    assert loaded.jar.name == path.stem
    assert loaded.notes == ()
    assert 20 <= len(described(path)) <= 120 and described(path).endswith(".")


def test_the_orin_has_the_figures_of_old() -> None:
    loaded = config.load(paths.config_dir() / "jetson-orin-32g.toml", allowed_cpus=frozenset(range(12)))
    assert [persona.memory >> 30 for persona in loaded.personas] == [6, 7, 7]
    assert {persona.model.mode for persona in loaded.personas} == {"engine"}


def test_of_two_that_are_the_same_one_is_told() -> None:
    ada, bea, observer = config.load(paths.config_dir() / "observed.toml", allowed_cpus=frozenset({0})).personas
    assert "You are observed: all that you think reaches observer," in ada.prompt
    assert "observ" not in bea.prompt.lower()
    assert observer.sees == ("ada", "bea")


def test_init_writes_it_with_its_comments_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "observed"]) == 0
    assert "written: brainjar.toml, from observed" in capsys.readouterr().out
    assert Path("brainjar.toml").read_text() == (paths.config_dir() / "observed.toml").read_text()
    Path("brainjar.toml").write_text("mine")
    assert main(["init"]) == 1
    assert "brainjar.toml is there already, and is left as it is" in capsys.readouterr().err
    assert Path("brainjar.toml").read_text() == "mine"
    assert main(["init", "--output", "other.toml"]) == 0
    assert Path("other.toml").read_text() == (paths.config_dir() / "matrix.toml").read_text()


def test_what_cannot_be_written_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "matirx"]) == 2
    assert 'no config is called "matirx"; did you mean "matrix"?' in capsys.readouterr().err
    assert main(["init", "--output", str(tmp_path / "no" / "where.toml")]) == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [path.stem for path in SHIPPED]
