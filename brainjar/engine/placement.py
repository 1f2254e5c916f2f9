"""On which devices a model's layers go: a `Placement` as llama.cpp's parameters.

Not run on a GPU: checked on the CPU build for what it refuses and for the structs that it fills.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from brainjar.engine.bindings import lib
from brainjar.engine.vocab import EngineError
from brainjar.messages import Placement

_GPU_KINDS: Final = (1, 2)
"""GPU and integrated GPU of enum ggml_backend_dev_type, ggml-backend.h."""
_SPLITS: Final = {"layer": lib.LLAMA_SPLIT_MODE_LAYER, "row": lib.LLAMA_SPLIT_MODE_ROW, "none": lib.LLAMA_SPLIT_MODE_NONE}
ALL_LAYERS: Final = 1 << 16
"""llama.cpp takes the model's own number where it is asked for more; of a negative one not every version knows that it means all."""
HOW_TO_FIND: Final = "nvidia-smi lists them; CUDA_VISIBLE_DEVICES hides them; group video or render opens them; or model.gpu_layers = 0"
HOW_TO_BUILD: Final = "make setup CMAKE_ARGS=-DGGML_CUDA=on builds llama.cpp for an NVIDIA GPU; or model.gpu_layers = 0"


def place(params: Any, placement: Placement) -> Any:
    """Set what `placement` says on llama_model_params, and return them. Raise `EngineError` for a device that is not there."""
    if placement.gpu_layers == 0:
        params.n_gpu_layers = 0
        nothing = ctypes.c_void_p(None)
        params.devices = ctypes.addressof(nothing)  # an empty list, or llama.cpp would still use a GPU for large products
        params.kept = (nothing,)  # the structure holds bare addresses
        return params
    gpus = devices()
    if not gpus:
        layers = "all" if placement.gpu_layers < 0 else placement.gpu_layers
        if backends() <= {"CPU"}:
            raise EngineError(f"model.gpu_layers = {layers}, but this llama.cpp was built without a GPU: {HOW_TO_BUILD}")
        raise EngineError(f"model.gpu_layers = {layers}, but llama.cpp finds no GPU here ({', '.join(sorted(backends()))}): {HOW_TO_FIND}")
    wanted = tuple(range(len(gpus))) if placement.devices is None else placement.devices
    if missing := [n for n in wanted if n >= len(gpus)]:
        there = ", ".join(f"{n} ({name})" for n, (name, _) in enumerate(gpus))
        raise EngineError(f"model.gpu: there is no GPU {missing[0]}, llama.cpp finds {there}")
    params.n_gpu_layers = ALL_LAYERS if placement.gpu_layers < 0 else placement.gpu_layers
    params.split_mode = _SPLITS[placement.split]
    params.main_gpu = 0  # of those chosen, where split is "none" or rows are summed up
    chosen = (ctypes.c_void_p * (len(wanted) + 1))(*(gpus[n][1] for n in wanted), None)
    params.devices = ctypes.addressof(chosen)
    params.kept = (chosen,)
    if placement.shares:
        shares = (ctypes.c_float * max(int(lib.llama_max_devices()), len(wanted)))(*placement.shares)
        params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        params.kept += (shares,)
    return params


def backends() -> set[str]:
    """What this llama.cpp was built with: "CPU", "CUDA"."""
    so = lib._lib
    count, get, name = so["ggml_backend_reg_count"], so["ggml_backend_reg_get"], so["ggml_backend_reg_name"]
    count.restype, count.argtypes = ctypes.c_size_t, []
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    return {(name(get(n)) or b"").decode(errors="replace") for n in range(count())}


def devices() -> list[tuple[str, int]]:
    """(name, ggml_backend_dev_t) of each GPU; integrated ones only where there are no others, as llama.cpp takes them."""
    so = lib._lib
    get, name, kind = so["ggml_backend_dev_get"], so["ggml_backend_dev_name"], so["ggml_backend_dev_type"]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    count = so["ggml_backend_dev_count"]
    count.restype, count.argtypes = ctypes.c_size_t, []
    found: dict[int, list[tuple[str, int]]] = {number: [] for number in _GPU_KINDS}
    for n in range(count()):
        device = get(n)
        if kind(device) in found:
            found[kind(device)].append(((name(device) or b"").decode(errors="replace"), device))
    return found[_GPU_KINDS[0]] or found[_GPU_KINDS[1]]
