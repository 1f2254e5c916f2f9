"""`brainjar plan` from outside: its answer, its exit status, and that `supervise` refuses with the same words."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brainjar.cli import planning
from brainjar.isolation import hostmemory
from tests.ggufs import ARRAY, F32, I32, STRING, TYPE_F32, TYPE_Q4_1, U32, Key, Tensor
from tests.patience import PATIENCE_S
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import alive, brainjar
from tests.test_gguf import build

GIB = 1 << 30


def run(command: str, root: Path, text: str, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    config = root / "matrix.toml"
    config.write_text(text)
    more = ("--view", "plain", "--set", f"jar.runtime_dir={root / 'run'}") if command == "supervise" else ()
    return brainjar(command, "--config", str(config), "--state-dir", str(root / "state"), *more, *args, env=env)


def plan(root: Path, text: str, *args: str) -> tuple[int, dict[str, Any]]:
    done = run("plan", root, text, "--json", *args)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def too_big(path: Path) -> int:
    """A sparse model of 70 billion weights that llama.cpp believes: header and vocabulary are whole. Return the bytes of its weights."""
    n_embd, n_layer, n_ff, heads, heads_kv = 8192, 80, 28672, 64, 8
    tokens = ("<s>", "</s>", *(chr(33 + i) for i in range(94)))
    keys: tuple[Key, ...] = (
        ("general.architecture", STRING, "llama"),
        ("general.file_type", U32, 3),
        ("llama.context_length", U32, 8192),
        ("llama.embedding_length", U32, n_embd),
        ("llama.block_count", U32, n_layer),
        ("llama.feed_forward_length", U32, n_ff),
        ("llama.attention.head_count", U32, heads),
        ("llama.attention.head_count_kv", U32, heads_kv),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "smollm"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, (3, 3, *[1] * 94))),
        ("tokenizer.ggml.merges", ARRAY, (STRING, ("! !",))),
    )
    kv = n_embd // heads * heads_kv
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (n_embd,),
        "attn_q": (n_embd, n_embd),
        "attn_k": (n_embd, kv),
        "attn_v": (n_embd, kv),
        "attn_output": (n_embd, n_embd),
        "ffn_norm": (n_embd,),
        "ffn_gate": (n_embd, n_ff),
        "ffn_up": (n_embd, n_ff),
        "ffn_down": (n_ff, n_embd),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (n_embd, 96), "output": (n_embd, 96), "output_norm": (n_embd,)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(n_layer) for name, shape in block.items()}
    tensors: list[Tensor] = []
    at = 0
    for name, shape in shapes.items():
        vector = len(shape) == 1
        tensors.append((f"{name}.weight", shape, TYPE_F32 if vector else TYPE_Q4_1, at))
        at += shape[0] * 4 if vector else shape[0] // 32 * 20 * shape[1]
    path.write_bytes(build(keys, tuple(tensors), data=0))
    os.truncate(path, path.stat().st_size + at)
    return at


def test_a_jar_that_fits_is_told_in_full(tmp_path: Path) -> None:
    status, made = plan(tmp_path, THREE)
    assert (status, made["fits"], made["problems"]) == (0, True, [])
    (model,) = made["models"]
    assert model["personas"] == ["subject", "observer", "god"]
    assert model["weights_bytes"] == 96576768
    assert [p["cap_bytes"] >> 20 for p in made["personas"]] == [128, 144, 160]
    assert {p["kv_bytes"] for p in made["personas"]} == {512 * 23040}
    totals = made["totals"]
    assert totals["caps_bytes"] == 432 << 20
    assert totals["bound_bytes"] == hostmemory.read().bound_bytes
    assert totals["total_bytes"] < totals["bound_bytes"]
    assert totals["cpus"] == len(os.sched_getaffinity(0))
    assert not (tmp_path / "state").exists()


def test_the_table_is_for_people(tmp_path: Path) -> None:
    done = run("plan", tmp_path, THREE)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("jar test: fits; ")
    for title in ("MODEL", "PERSONA"):
        assert sum(line.startswith(title) for line in lines) == 1
    for name in ("subject", "observer", "god"):
        (row,) = [line for line in lines if line.startswith(name)]
        assert "smollm2-135m" in row and "11.2 MiB" in row
    assert max(map(len, lines)) < 200


@pytest.mark.parametrize(("memory", "status"), [("16MiB", 2), ("9TiB", 1)], ids=["a cap too small", "more than there is"])
def test_supervise_refuses_with_the_words_of_the_plan(memory: str, status: int, tmp_path: Path) -> None:
    text = ALONE.replace("128MiB", memory)
    code, made = plan(tmp_path, text)
    assert (code, made["fits"]) == (1, False)
    (problem,) = made["problems"]
    words = f"{problem['what']}; {problem['change']}"
    assert f"does not fit: {words}" in run("plan", tmp_path, text).stdout.splitlines()
    refused = run("supervise", tmp_path, text)
    assert refused.returncode == status
    assert one_line(refused) == f"brainjar supervise: {words}"
    assert not (tmp_path / "state").exists()
    (setting,) = problem["set"]
    assert plan(tmp_path, text, "--set", setting)[0] == 0


def test_several_problems_are_counted_and_the_plan_named(tmp_path: Path) -> None:
    line = one_line(run("supervise", tmp_path, THREE.replace("144MiB", "8MiB").replace("160MiB", "9MiB")))
    assert "persona.observer.memory" in line and "(and 1 more: brainjar plan --config" in line


def test_force_starts_it_all_the_same(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE.replace("128MiB", "9TiB"), "--force").start()
    jar.until_ready()
    assert "started by --force, though it does not fit: " in jar.said()
    assert "9 TiB" in jar.said()
    assert jar.stop() == 0


def test_a_model_too_big_for_this_box_is_planned_without_allocating_it(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    weights = too_big(path)
    assert path.stat().st_size > 39 * GIB and path.stat().st_blocks < 20_000
    status, made = plan(tmp_path, ALONE.replace("128MiB", "1GiB"), "--model", str(path), "--set", "model.context=4096")
    (model,) = made["models"]
    assert model["weights_bytes"] == weights
    assert model["process_bytes"] < 200 << 20
    (row,) = made["personas"]
    assert row["kv_bytes"] == 4096 * 80 * 8 * 128 * 2 * 2
    if made["totals"]["bound_bytes"] < weights:
        assert status == 1
        refused = run("supervise", tmp_path, ALONE.replace("128MiB", "1GiB"), "--model", str(path))
        assert refused.returncode == 1
        assert "choose a smaller model" in one_line(refused)


def test_a_growing_window_is_told_its_end(tmp_path: Path) -> None:
    grows = ALONE + "mortality = { growth = 'context' }\n"
    dies = plan(tmp_path, grows.replace("128MiB", "135MiB"))[1]
    assert dies["personas"][0]["largest_window"] == 2048
    assert dies["notes"] == ["subject: dies when its window would grow past 2048 tokens"]
    lives = plan(tmp_path, grows.replace("128MiB", "512MiB"))[1]
    assert lives["personas"][0]["largest_window"] == 8192
    assert ["it will not die of memory" in note for note in lives["notes"]] == [True]


def test_a_model_that_is_not_fetched_is_said_and_not_fetched(tmp_path: Path) -> None:
    config = tmp_path / "matrix.toml"
    config.write_text(ALONE)
    done = brainjar("plan", "--config", str(config), env=dict(os.environ) | {"BRAINJAR_MODELS": str(tmp_path / "models")})
    assert done.returncode == 1
    line = one_line(done)
    assert "smollm2-135m: not fetched yet" in line and line.endswith("brainjar models fetch smollm2-135m")
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    none = tmp_path / "none.gguf"
    none.write_bytes(b"PK\x03\x04" * 1000)
    done = run("plan", tmp_path, ALONE, "--model", str(none))
    assert done.returncode == 2
    assert "none.gguf: is not a GGUF file" in one_line(done)


def test_a_header_that_only_llama_cpp_refuses_is_one_line_and_can_be_forced(make_jar: MakeJar, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(build())
    done = run("plan", tmp_path, ALONE, "--model", str(path))
    assert done.returncode == 1
    line = one_line(done)
    assert f"{path}: llama.cpp cannot load it" in line
    refused = run("supervise", tmp_path, ALONE, "--model", str(path))
    assert line.partition(": ")[2] in one_line(refused)
    jar = make_jar(ALONE, "--model", str(path), "--force").start()
    assert "started without a plan, by --force" in jar.said()


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A dry run that does what `script` does."""
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\n{script}\n")
    child.chmod(child.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(child))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'ggml.c: GGML_ASSERT failed' >&2; kill -ABRT $$", ["signal SIGABRT", "GGML_ASSERT failed"]),
        ("exit 3", ["exit status 3", "it said nothing"]),
        ("echo nonsense", ["exit status 0"]),
        ("echo '{\"error\": \"it cannot\"}'; printf 'why \\033[2J\\n' >&2; exit 1", ["it cannot: why �[2J"]),
    ],
)
def test_however_a_dry_run_ends_it_is_one_line(script: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, script)
    with pytest.raises(planning.DryRunFailed) as caught:
        planning.dry_run(tmp_path / "model.gguf", (512,))
    line = str(caught.value)
    assert line.isprintable()
    for word in words:
        assert word in line


def test_a_dry_run_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, f"echo $$ > {tmp_path / 'pid'}; exec sleep 3600")
    with pytest.raises(planning.DryRunFailed, match="was ended; try again"):
        planning.dry_run(tmp_path / "model.gguf", (512,), patience_s=3)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_the_supervisor_s_process_loads_no_model_library(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from brainjar import config
from brainjar.cli import planning
made = config.load(Path(sys.argv[1]))
assert planning.make(made, planning.headers(made)).fits
print(sorted({"llama_cpp", "numpy", "rich"} & {name.partition(".")[0] for name in sys.modules}))
"""
    config = tmp_path / "matrix.toml"
    config.write_text(ALONE)
    done = subprocess.run([sys.executable, "-c", code, str(config)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
