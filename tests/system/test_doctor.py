"""`brainjar doctor`, run for real: a report in any circumstances, and what it says of the personas is what they get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainjar import paths
from brainjar.cli import doctor
from brainjar.engine import build
from brainjar.isolation.findings import Finding
from tests.patience import PATIENCE_S
from tests.system import unprivileged
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, brainjar

GROUPS = {"host", "caps", "cgroups", "senses", "walls", "limits", "llama.cpp"}


def config_of(root: Path, text: str = THREE) -> Path:
    (root / "matrix.toml").write_text(text)
    return root / "matrix.toml"


def reported(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    assert set(report) == {"host", "personas"}
    assert {finding["group"] for finding in report["host"]} == GROUPS
    assert all(finding["state"] in ("yes", "no", "partly", "n/a") for finding in report["host"])
    return report


def test_the_table_is_plain_and_fits_eighty_columns(tmp_path: Path) -> None:
    done = brainjar("doctor", "--config", str(config_of(tmp_path)), env=os.environ | {"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert all(
        any(line.startswith(row) for line in lines)
        for row in ("kernel ", "rlimit ", "Landlock ", "OpenMP ", "cap: rlimit ", "wall: files ")
    )
    for name in ("subject", "observer", "god"):
        assert sum(line.startswith(f"PERSONA {name}") for line in lines) == 1


def test_without_a_config_the_shipped_one_is_looked_at_and_that_is_said(tmp_path: Path) -> None:
    done = brainjar("doctor", env=os.environ | paths.import_environment(), cwd=tmp_path)
    assert done.returncode == 0
    assert "no --config" in done.stderr
    assert "PERSONA god" in done.stdout


def test_a_wrong_config_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = brainjar("doctor", "--config", str(config_of(tmp_path, ALONE + 'memroy = "1GiB"\n')))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "memroy" in done.stderr


def test_nothing_is_made(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, THREE.replace('name = "test"', f'name = "test"\nstate_dir = "{tmp_path}/state"\nruntime_dir = "{tmp_path}/run"')
    )
    (tmp_path / "tmp").mkdir()
    reported(brainjar("doctor", "--json", "--config", str(config), env=os.environ | {"TMPDIR": str(tmp_path / "tmp")}))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["matrix.toml", "tmp"]


def test_a_model_that_is_not_here_yet_leaves_the_group_without_a_number(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = brainjar("doctor", "--json", "--config", str(config_of(tmp_path)), env=os.environ | {"BRAINJAR_MODELS": str(tmp_path / "none")})
    for persona in reported(done)["personas"]:
        (cgroup,) = (layer for layer in persona["layers"] if layer["name"] == "cgroup")
        assert cgroup["limit_bytes"] is None
        assert cgroup["why"]


def expected_is_what_comes(jar: Jar, report: dict[str, Any], names: tuple[str, ...]) -> None:
    jar.until_ready()
    for name in names:
        (expected,) = (persona for persona in report["personas"] if persona["name"] == name)
        found = jar.persona(name)
        assert expected["walls"] == found["sandbox"]
        layers = {layer["name"]: layer for layer in found["memory"]["layers"]}
        for layer in expected["layers"]:
            # the watch is effective after its first look, which may not have come yet
            if layer["name"] != "watch":
                assert layer["effective"] is layers[layer["name"]]["effective"], (layer, layers)
            if layer["effective"] and layer["name"] == "cgroup":
                assert layer["limit_bytes"] == layers["cgroup"]["limit_bytes"]
            if not layer["effective"]:
                assert layer["why"]


def test_what_is_expected_of_the_personas_is_what_they_get(make_jar: MakeJar) -> None:
    jar = make_jar(THREE)
    state = f'name = "test"\nstate_dir = "{jar.state_dir}"\n'
    report = reported(
        brainjar("doctor", "--json", "--config", str(config_of(jar.state_dir.parent, THREE.replace('name = "test"\n', state))))
    )
    jar.start()
    expected_is_what_comes(jar, report, ("subject", "observer", "god"))


def test_a_persona_that_keeps_the_network_and_the_uid_is_told_to_have_no_such_walls(tmp_path: Path) -> None:
    text = ALONE + '[persona.sandbox]\nnetwork = true\nuser = "same"\n'
    (subject,) = reported(brainjar("doctor", "--json", "--config", str(config_of(tmp_path, text))))["personas"]
    walls = {wall["name"]: wall for wall in subject["walls"]}
    assert walls["network"]["effective"] is False
    assert "persona.sandbox.network" in walls["network"]["how"]
    assert walls["user"]["effective"] is False
    assert "same" in walls["user"]["how"]


def test_a_user_that_is_not_there_is_said(tmp_path: Path) -> None:
    text = ALONE + '[persona.sandbox]\nuser = "nobody-by-this-name"\n'
    (subject,) = reported(brainjar("doctor", "--json", "--config", str(config_of(tmp_path, text))))["personas"]
    (user,) = (wall for wall in subject["walls"] if wall["name"] == "user")
    assert user["effective"] is False
    assert "nobody-by-this-name" in user["how"]


@pytest.mark.skipif(bool(unprivileged.why_not()), reason=unprivileged.why_not())
def test_somebody_who_is_not_root_is_told_what_is_lacking_and_how_to_get_it() -> None:
    with unprivileged.home() as (home, command):
        config = config_of(home)
        env = {"PATH": os.environ["PATH"], "HOME": str(home)} | paths.import_environment()
        argv = [*command, "brainjar", "doctor", "--config", str(config)]
        done = subprocess.run([*argv, "--json"], capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=env, cwd=home)
        report = reported(done)
        table = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=env, cwd=home)
    assert (table.returncode, table.stderr) == (0, "")
    assert max(map(len, table.stdout.splitlines())) <= 80
    findings = {finding["name"]: finding for finding in report["host"]}
    assert findings["uids for personas"]["state"] == "no"
    assert "root" in findings["uids for personas"]["how"]
    assert findings["CapEff"]["state"] == "no"
    assert findings["rlimit"]["state"] == "yes"
    for persona in report["personas"]:
        (user,) = (wall for wall in persona["walls"] if wall["name"] == "user")
        assert user["effective"] is False
        assert "root" in user["how"]


# ── a library that is broken ──


def program(tmp_path: Path, text: str) -> str:
    """What stands in for the Python that is to ask the library."""
    (tmp_path / "python").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "python").chmod(0o755)
    return str(tmp_path / "python")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kill -ILL $$", "compiled for another CPU"),
        ("kill -SEGV $$", "Segmentation fault"),
        ("sleep 60", "no answer within"),
        ('echo "libcudart.so.12: cannot open shared object file" >&2; exit 1', "libcudart.so.12"),
        ("echo rubbish", "exit status 0"),
    ],
)
def test_a_library_that_breaks_its_process_is_a_row_in_words(tmp_path: Path, text: str, words: str) -> None:
    asked = build.ask(
        patience_s=1.0 if "sleep" in text else PATIENCE_S, python=program(tmp_path, f"exec {text}" if "sleep" in text else text)
    )
    (row,) = build.findings(asked)
    assert (row.state, row.value) == ("no", "n/a")
    assert words in row.consequence
    assert row.how


def test_a_library_that_is_not_installed_is_a_row_in_words(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(build.__file__).parents[2]}", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "brainjar.engine.build"], capture_output=True, text=True, env=env, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama_cpp" in json.loads(done.stdout)["error"]


def test_the_features_of_every_backend_are_told_apart() -> None:
    said = "CPU : AVX2 = 1 | OPENMP = 1 | REPACK = 0 | CUDA : ARCHS = 870,900 | USE_GRAPHS = 1 | "
    assert build.parse(said) == {
        "CPU": {"AVX2": "1", "OPENMP": "1", "REPACK": "0"},
        "CUDA": {"ARCHS": "870,900", "USE_GRAPHS": "1"},
    }
    assert build.parse("") == build.parse("rubbish") == {}


def test_a_gpu_that_is_compiled_for_and_one_that_is_there_are_two_things() -> None:
    orin = build.Device(name="CUDA0", description="Orin", kind="integrated GPU", memory_bytes=None)
    without = build.Build(
        version=None, ggml=None, library="x.so", features={"CPU": {}, "CUDA": {"ARCHS": "870"}}, backends=("CUDA", "CPU"), devices=()
    )
    rows = {row.name: row for row in build.findings(without)}
    assert (rows["CUDA"].state, rows["OpenMP"].state, rows["repack"].state) == ("partly", "no", "no")
    there = {
        row.name: row
        for row in build.findings(build.Build(**{f: getattr(without, f) for f in without.__struct_fields__} | {"devices": (orin,)}))
    }
    assert there["CUDA"].state == "yes"
    assert there["device CUDA0"].value == "Orin, integrated GPU, memory n/a"


def test_whatever_a_row_says_it_cannot_break_the_table() -> None:
    rows = [Finding("thermal \x1b[31m" + "x" * 90, "senses", "n/a", "\x1b]0;title\x07", "words " * 60, "/a/path" * 30)]
    lines = doctor.table(rows, [], 80)
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    assert all(len(line) <= 80 for line in lines if "xxx" not in line)
