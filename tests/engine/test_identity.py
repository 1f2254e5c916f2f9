"""What a context was computed by: the same for a model that was copied, another for any other weights, library or parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainjar import gguf, models
from brainjar.engine import identity, llama
from brainjar.engine.bindings import lib

MODEL = models.lookup("smollm2-135m")
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not models.is_present(MODEL), reason="the model smollm2-135m is not here: brainjar models fetch smollm2-135m"),
]


def of(path: Path) -> str:
    return identity.of_model(gguf.read(path))


def requantise(source: Path, target: Path) -> None:
    """The same weights as Q4_0: same architecture, same tokens, and a state of the same size."""
    llama.silence()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = 2, True, 2
    assert lib.llama_model_quantize(str(source).encode(), str(target).encode(), params) == 0


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(MODEL.path, tmp_path / "elsewhere.gguf"))


def test_a_copy_is_the_same_model(copy: Path) -> None:
    assert of(copy) == of(MODEL.path)


def test_another_quantisation_is_another(tmp_path: Path) -> None:
    requantise(MODEL.path, tmp_path / "q4_0.gguf")
    assert of(tmp_path / "q4_0.gguf") != of(MODEL.path)


@pytest.mark.parametrize("where", ["header", "first tensor", "middle", "end"])
def test_other_bytes_are_another_model(copy: Path, where: str) -> None:
    header = gguf.read(copy)
    at = {
        "header": header.data_at - 100,
        "first tensor": header.data_at,
        "middle": header.data_at + identity.SAMPLES // 2 * ((header.size_bytes - header.data_at) // identity.SAMPLES),
        "end": header.size_bytes - 1,
    }[where]
    with open(copy, "r+b") as file:
        file.seek(at)
        was = file.read(1)
        file.seek(at)
        file.write(bytes([was[0] ^ 1]))
    assert identity.of_model(header) != of(MODEL.path)


def test_a_file_that_is_longer_is_another_model(copy: Path) -> None:
    before = of(copy)
    with open(copy, "ab") as file:
        file.write(bytes(1))
    assert of(copy) != before


def test_all_samples_together_are_a_few_mebibytes() -> None:
    assert identity.SAMPLES * identity.SAMPLE_BYTES <= 4 << 20


def test_the_library_is_named_with_its_version_and_build() -> None:
    name, version, *commit = identity.of_library(lib).split()
    assert name.startswith("llama_cpp_python-") and name[-1].isdigit()
    assert version[0].isdigit()
    assert commit


@pytest.mark.parametrize(("name", "value"), [("type_k", 8), ("type_v", 8), ("flash_attn_type", 1), ("rope_freq_base", 1e6)])
def test_how_a_context_is_made_is_part_of_it(name: str, value: float) -> None:
    params = llama.context_params(512, 1)
    before = identity.of_parameters(params)
    setattr(params, name, value)
    assert identity.of_parameters(params) != before


def test_windows_batches_and_threads_are_no_part_of_it() -> None:
    assert identity.of_parameters(llama.context_params(512, 1)) == identity.of_parameters(llama.context_params(2048, 8))
