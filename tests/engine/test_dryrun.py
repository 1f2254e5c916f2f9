"""What the dry run promises: llama.cpp's own figures, which a real load then takes, from a child that costs and harms nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from brainjar import models
from brainjar.cli import planning
from brainjar.engine import llama
from brainjar.plan import MIB, Figures
from brainjar.supervisor import zygotes
from tests.ggufs import quantized
from tests.patience import PATIENCE_S

MODEL = models.lookup("smollm2-135m")
CONTEXTS = (512, 1024, 2048, 4096, 8192)

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not models.is_present(MODEL), reason=f"{MODEL.path} is not here; brainjar models fetch {MODEL.name}"),
]

REAL = """
import sys
from pathlib import Path
from brainjar.engine import llama
from brainjar.isolation import rlimits
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024
llama.silence()
before = anonymous()
engine = llama.Engine(Path(sys.argv[1]))
loaded = anonymous() - before
before = rlimits.vm_data()
engine.open_context(int(sys.argv[2]))
engine.warm_up()
print(rlimits.vm_data() - before, loaded, engine.n_ctx)
"""
"""What a zygote does, and what it took: (VmData of the context, memory of the weights and the vocabulary, tokens)."""


def python(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=env or planning._environment())


def really(model: Path, n_ctx: int) -> tuple[int, int, int]:
    done = python("-c", REAL, str(model), str(n_ctx), env=zygotes.environment())
    context, loaded, tokens = map(int, done.stdout.split())
    return context, loaded, tokens


@pytest.fixture(scope="module")
def figures() -> Figures:
    return planning.dry_run(MODEL.path, CONTEXTS)


@pytest.mark.parametrize("n_ctx", CONTEXTS)
def test_a_context_takes_what_the_dry_run_said(figures: Figures, n_ctx: int) -> None:
    window = figures.window(n_ctx)
    took, _, tokens = really(MODEL.path, n_ctx)
    assert window.n_ctx == tokens
    # the heap grows in steps of 2 MiB, with huge pages at both its ends
    assert abs(took - window.owned_bytes) <= 5 * MIB, (took, window)


def test_the_sizes_are_llama_cpp_s_own(figures: Figures) -> None:
    assert figures.n_ctx_train == 8192
    assert "256M Q4_1" in figures.description
    assert [window.kv_bytes for window in figures.windows] == [23040 * n for n in CONTEXTS]
    for window in figures.windows:
        scores = 4 * 9 * llama.BATCH * window.n_ctx  # without flash attention: of a batch, for each of its 9 heads
        assert scores < window.compute_bytes < scores + 8 * MIB
        assert 190_000 < window.output_bytes < 210_000  # one row of 49,152 floats
        assert 40 * MIB < window.bookkeeping_bytes < 52 * MIB


def test_weights_take_what_the_dry_run_said(figures: Figures) -> None:
    weights = sum(buffer.bytes for buffer in figures.weights)
    _, loaded, _ = really(MODEL.path, 512)
    assert 0 <= loaded - weights <= 24 * MIB, (loaded, weights)  # the vocabulary comes on top


def test_repacked_weights_take_the_place_of_the_file_s(tmp_path: Path) -> None:
    model = quantized(MODEL.path, tmp_path / "q4_0.gguf")
    told = planning.dry_run(model, (512,))
    sizes = {buffer.name: buffer.bytes for buffer in told.weights}
    if "CPU_REPACK" not in sizes:
        pytest.skip("this CPU repacks no Q4_0")
    assert sizes["CPU_REPACK"] > 60 * MIB
    _, loaded, _ = really(model, 512)
    assert 0 <= loaded - sum(sizes.values()) <= 24 * MIB, (loaded, sizes)
    plain = planning.dry_run(model, (512,), more=["--plain"])
    assert [buffer.name for buffer in plain.weights] == ["CPU"]
    # repacked, a tied embedding is held twice: by rows as a table, by blocks as the output
    table = sizes.get("CPU", 0)
    assert 0 <= sum(sizes.values()) - plain.weights[0].bytes <= table + MIB


def test_the_log_alone_says_the_same(figures: Figures) -> None:
    """A libllama without the breakdown (another compiler, another version) still gives a plan."""
    code = "import sys; from brainjar.engine import dryrun; dryrun._breakdown = lambda _: {}; sys.exit(dryrun.main(sys.argv[1:]))"
    done = python("-c", code, str(MODEL.path), *map(str, CONTEXTS))
    told = msgspec.json.decode(done.stdout, type=Figures)
    assert [buffer.bytes for buffer in told.weights] == [buffer.bytes for buffer in figures.weights]
    for one, other in zip(told.windows, figures.windows, strict=True):
        assert abs(one.kv_bytes - other.kv_bytes) < 20_000
        assert abs(one.compute_bytes - other.compute_bytes) < 20_000


MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_cache_is_counted_once_whether_it_was_allocated_or_not() -> None:
    code = """
from brainjar.engine import dryrun
log = dryrun._Log()
log("llama_kv_cache:        CPU KV buffer size =    45.00 MiB\\n")
log("llama_kv_cache: size =   45.00 MiB (  2048 cells,  30 layers,  1/1 seqs), K (f16):   22.50 MiB, V (f16):   22.50 MiB\\n")
log("llama_kv_cache: size =    5.00 MiB (  1024 cells,   4 layers,  1/1 seqs), K (f16):    2.50 MiB, V (f16):    2.50 MiB\\n")
log("sched_reserve:        CPU compute buffer size =     7.50 MiB\\n")
log("sched_reserve:      CUDA0 compute buffer size =     0.50 MiB\\n")
log("llama_context:        CPU  output buffer size =     0.25 MiB\\n")
told = log.take()
print(*(told[what] / 2**20 for what in ("", "compute buffer", "output buffer")), log.take())
"""
    assert python("-c", code).stdout == "50.0 8.0 0.25 {}\n"


def test_it_costs_next_to_nothing() -> None:
    argv = [sys.executable, "-m", "brainjar.engine.dryrun", str(MODEL.path), *map(str, CONTEXTS)]
    # asked of a small process between: what a child takes begins with the largest that its parent ever was
    done = subprocess.run([sys.executable, "-c", MEASURED, *argv], env=planning._environment(), capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 80 * MIB < MODEL.size_bytes


def test_twice_it_says_the_same(figures: Figures) -> None:
    again = planning.dry_run(MODEL.path, CONTEXTS)
    assert again.weights == figures.weights
    # but for what Python leaves behind when it has compiled a file
    assert abs(again.process_bytes - figures.process_bytes) < MIB // 4
    for one, other in zip(again.windows, figures.windows, strict=True):
        assert abs(one.owned_bytes - other.owned_bytes) < MIB // 16


def test_a_context_that_no_host_has_room_for_is_answered(figures: Figures) -> None:
    (window,) = planning.dry_run(MODEL.path, (1 << 20,)).windows
    assert window.kv_bytes == 23040 << 20


def test_the_child_bounds_itself() -> None:
    code = """
import resource
from brainjar.engine import dryrun
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
dryrun._harmless()
print(*(resource.getrlimit(one)[0] for one in (resource.RLIMIT_CORE, resource.RLIMIT_DATA, resource.RLIMIT_CPU)))
"""
    core, data, cpu = map(int, python("-c", code).stdout.split())
    assert core == 0
    assert 0 < data <= 4 << 30
    assert 0 < cpu <= 60


def said(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = python("-m", "brainjar.engine.dryrun", *arguments)
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_what_cannot_be_loaded_is_said_in_one_object(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(MODEL.path.read_bytes()[:4000])
    for path in (broken, tmp_path / "none.gguf"):
        status, answer = said(str(path), "512")
        assert (status, list(answer)) == (1, ["error"])
        assert str(path) in answer["error"]


def test_wrong_usage_is_one_line() -> None:
    for arguments in ([], [str(MODEL.path)], [str(MODEL.path), "many"], [str(MODEL.path), "0"]):
        done = python("-m", "brainjar.engine.dryrun", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ") and len(done.stderr.splitlines()) == 1


def test_it_ends_at_once_where_whoever_asked_is_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    argv = [sys.executable, "-m", "brainjar.engine.dryrun", "--for", str(gone.pid), str(MODEL.path), "512"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=planning._environment())
    assert (done.returncode, done.stdout) == (1, "")
