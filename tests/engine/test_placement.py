"""A placement as llama.cpp's parameters. No GPU is here: what llama.cpp would make of them is not run."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from brainjar.engine import placement
from brainjar.engine.bindings import lib
from brainjar.engine.placement import ALL_LAYERS, backends, devices, place
from brainjar.engine.vocab import EngineError
from brainjar.messages import Placement

GPUS = [("CUDA0", 0xC0DA0), ("CUDA1", 0xC0DA1), ("CUDA2", 0xC0DA2)]


def listed(params: Any) -> list[int]:
    """The devices that llama.cpp would read: up to the first null."""
    found: list[int] = []
    array = ctypes.cast(params.devices, ctypes.POINTER(ctypes.c_void_p))
    while array[len(found)]:
        found.append(int(array[len(found)] or 0))
    return found


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "devices", lambda: GPUS)


def placed(**fields: Any) -> Any:
    return place(lib.llama_model_default_params(), Placement(**fields))


def test_with_no_layers_on_a_gpu_no_gpu_is_used_for_anything(gpus: None) -> None:
    params = placed()
    assert params.n_gpu_layers == 0 and listed(params) == []


@pytest.mark.parametrize(("chosen", "expected"), [(None, [0xC0DA0, 0xC0DA1, 0xC0DA2]), ((1,), [0xC0DA1]), ((2, 0), [0xC0DA2, 0xC0DA0])])
def test_the_gpus_are_those_that_were_chosen_in_that_order(gpus: None, chosen: tuple[int, ...] | None, expected: list[int]) -> None:
    assert listed(placed(gpu_layers=-1, devices=chosen)) == expected


def test_layers_split_and_proportions_are_set(gpus: None) -> None:
    params = placed(gpu_layers=7, devices=(0, 1), split="row", shares=(3.0, 1.0))
    assert params.n_gpu_layers == 7 and params.split_mode == lib.LLAMA_SPLIT_MODE_ROW and params.main_gpu == 0
    assert list(params.tensor_split[:2]) == [3.0, 1.0]
    assert placed(gpu_layers=-1).n_gpu_layers == ALL_LAYERS
    assert not placed(gpu_layers=-1).tensor_split


def test_a_gpu_that_is_not_there_is_named_with_those_that_are(gpus: None) -> None:
    with pytest.raises(EngineError, match=r"no GPU 3, llama.cpp finds 0 \(CUDA0\), 1 \(CUDA1\), 2 \(CUDA2\)"):
        placed(gpu_layers=-1, devices=(0, 3))


def test_where_there_is_none_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "devices", list)
    monkeypatch.setattr(placement, "backends", lambda: {"CPU"})
    with pytest.raises(EngineError, match=r"gpu_layers = all, but this llama.cpp was built without a GPU: make setup CMAKE_ARGS"):
        placed(gpu_layers=-1)
    monkeypatch.setattr(placement, "backends", lambda: {"CPU", "CUDA"})
    with pytest.raises(EngineError, match=r"finds no GPU here \(CPU, CUDA\): nvidia-smi"):
        placed(gpu_layers=4)


def test_what_llama_cpp_lists_is_read() -> None:
    assert "CPU" in backends()
    assert all(isinstance(name, str) and address for name, address in devices())
