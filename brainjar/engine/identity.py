"""What a computed context depends on beside its tokens: the model, by its content, the library and its build, how contexts are made.

The model's path and times are no part of it: a model that was moved or copied is the same. Its size, the whole header with
the directory of tensors (a requantised one has other types and offsets there) and samples spread over the data (the same
architecture with other weights) are. To read all of a large model would cost what the snapshot saves.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any, Final

from brainjar.gguf import Gguf

SAMPLES: Final = 1024
"""So many, of `SAMPLE_BYTES` each: every tensor larger than a thousandth of the file is in it."""
SAMPLE_BYTES: Final = 4096


def of_model(header: Gguf) -> str:
    """Read the file that `header` is of. Raise OSError."""
    digest = hashlib.sha256(f"{header.size_bytes} {header.data_at} ".encode())
    fd = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        while at < header.data_at and (piece := os.pread(fd, min(1 << 20, header.data_at - at), at)):
            digest.update(piece)
            at += len(piece)
        data = header.size_bytes - header.data_at
        apart = max(SAMPLE_BYTES, data // SAMPLES)
        for at in range(header.data_at, header.size_bytes, apart):
            digest.update(os.pread(fd, SAMPLE_BYTES, at))
        digest.update(os.pread(fd, SAMPLE_BYTES, max(header.data_at, header.size_bytes - SAMPLE_BYTES)))
    finally:
        os.close(fd)
    return digest.hexdigest()


def of_library(lib: Any) -> str:
    """`lib`: the ctypes layer of llama-cpp-python."""
    # the name of its metadata: importlib.metadata would cost each fork the package `email`
    packages = Path(lib.__file__).parent.parent.glob("llama_cpp_python-*.dist-info")
    said = [max((path.name.removesuffix(".dist-info") for path in packages), default="llama_cpp_python")]
    for name in ("ggml_version", "ggml_commit"):
        try:
            function = getattr(lib._lib, name)
        except AttributeError:
            continue
        function.restype = ctypes.c_char_p
        said.append((function() or b"?").decode(errors="replace"))
    return " ".join(said)


def of_parameters(params: Any) -> str:
    """`params`: llama_context_params as a context is made with. Sizes of windows and batches, and threads, are no part of it."""
    names = (
        *(
            "type_k",
            "type_v",
            "flash_attn_type",
            "attention_type",
            "pooling_type",
            "rope_scaling_type",
            "rope_freq_base",
            "rope_freq_scale",
        ),
        *("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx", "offload_kqv", "swa_full"),
    )
    return " ".join(f"{name}={getattr(params, name)}" for name in names if hasattr(params, name))
