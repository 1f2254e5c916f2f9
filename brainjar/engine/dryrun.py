"""What a model and its contexts would take, by llama.cpp's own reckoning, without allocating them.

    python -m brainjar.engine.dryrun [--for PID] [--alone] [--plain] [--engine SEQUENCES PLACEMENT] MODEL CONTEXT [CONTEXT …]

prints one JSON object, `plan.Figures` or `{"error": …}`. To be run in a process that is thrown away: llama.cpp aborts where it
runs out of memory, and a model file may be anything. Limits of its own bound what that can cost the host.

`no_alloc` reads the file's header and vocabulary, and simulates every large buffer. Where the sizes are from: weights, KV and
compute by kind of memory from `llama_get_memory_breakdown`, which libllama exports for llama.cpp's own tools; where it is not to
be had or does not agree with the log, from the log's lines. What is small or never touched (graphs, tables of cells) is allocated for
real, and malloc counts it.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from brainjar.engine import llama
from brainjar.engine.bindings import lib
from brainjar.engine.placement import place
from brainjar.isolation import bonds, rlimits
from brainjar.messages import Placement
from brainjar.plan import Buffer, Device, Figures, Place, Window

DATA_BYTES: Final = 4 << 30
"""RLIMIT_DATA of the child; SmolLM2 takes 70 MiB. Not RLIMIT_AS: what CUDA reserves is counted there."""
CPU_S: Final = 60
"""RLIMIT_CPU of the child; it takes 0.3 s."""

_M_MMAP_THRESHOLD: Final = -3
_BREAKDOWN: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_MANY: Final = 256
"""More kinds of memory than any build of llama.cpp has: what says so is no map."""
_KINDS: Final = ("CPU", "GPU", "IGPU", "ACCEL", "META")
"""enum ggml_backend_dev_type of ggml-backend.h."""
_SIZE: Final = re.compile(r"(?P<what>compute buffer|output buffer|) ?size = +(?P<mib>[0-9.]+) MiB")
_MIB: Final = 1 << 20


class _Log:
    """llama.cpp's words: the sizes it tells, and its errors."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        if "MiB" in text:
            self.lines.append(text)

    def take(self) -> dict[str, int]:
        """Bytes by "compute buffer", "output buffer" and "" (a KV cache or recurrent state; there may be several) since the last time."""
        found: dict[str, int] = {}
        for line in self.lines:
            match = _SIZE.search(line)
            # "CPU KV buffer size = 0.00" is what was allocated, which is nothing
            if match and ("buffer size" in line) == bool(match["what"]):
                found[match["what"]] = found.get(match["what"], 0) + round(float(match["mib"]) * _MIB)
        self.lines.clear()
        return found


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def _allocated() -> int:
    """Bytes that malloc has given out. Where it does not tell, VmData, which also depends on where the heap happens to end."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return rlimits.vm_data() or 0
    libc.mallinfo2.restype = _Mallinfo
    told = libc.mallinfo2()
    return int(told.uordblks) + int(told.hblkhd)


class _Node(ctypes.Structure):
    """libstdc++'s _Rb_tree_node<pair<ggml_backend_buffer_type_t, llama_memory_breakdown_data>>."""


_Node._fields_ = [
    ("color", ctypes.c_int),
    ("parent", ctypes.POINTER(_Node)),
    ("left", ctypes.POINTER(_Node)),
    ("right", ctypes.POINTER(_Node)),
    ("kind", ctypes.c_void_p),
    ("model", ctypes.c_size_t),
    ("context", ctypes.c_size_t),
    ("compute", ctypes.c_size_t),
]


class _Map(ctypes.Structure):
    """libstdc++'s std::map, 48 bytes on 64-bit machines."""

    _fields_ = (
        ("compare", ctypes.c_size_t),
        ("color", ctypes.c_int),
        ("root", ctypes.POINTER(_Node)),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


def _ggml(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of ggml that the bindings leave out; libllama's handle finds those of the libraries that it needs."""
    function: Callable[..., Any] = ctypes.CFUNCTYPE(result, *arguments)((name, lib._lib))
    return function


def _breakdown(context: Any) -> dict[str, tuple[int, int, int]]:
    """Kind of memory -> bytes of (model, context, compute); nothing where this libllama does not export it."""
    if not hasattr(lib._lib, _BREAKDOWN):
        return {}
    name_of = _ggml("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    told = _ggml(_BREAKDOWN, _Map, ctypes.c_void_p)(context)
    found: dict[str, tuple[int, int, int]] = {}
    todo = [told.root] if 0 < told.count <= _MANY else []
    while todo and len(found) < told.count:
        if not (node := todo.pop()):
            continue
        one = node.contents
        found[(name_of(one.kind) or b"").decode(errors="replace")] = (one.model, one.context, one.compute)
        todo += [one.left, one.right]
    return found


def dry_run(
    path: Path,
    contexts: Sequence[int],
    log: _Log,
    *,
    alone: bool = False,
    repack: bool = True,
    sequences: int = 0,
    placement: Placement | None = None,
) -> Figures:
    """As a fork server loads it, a worker `alone`, or an engine for so many `sequences`. Raise `EngineError` or `OutOfMemory`, in words."""
    placement = placement or Placement()  # nothing on a GPU: a zygote sees none either, while `_devices` here lists them
    # A fixed threshold: it would grow with each context that is freed, and the next one's tables would come from the heap unseen.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
    params = place(llama.model_params(alone=alone, repack=repack), placement)
    params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise llama.EngineError(f"{path}: llama.cpp cannot load it")
    log.take()
    process = _allocated()
    weights: tuple[Buffer, ...] = ()
    windows = []
    for n_ctx in contexts:
        before = _allocated()
        context = lib.llama_init_from_model(model, llama.context_params(n_ctx, 1, sequences, gpu=placement.gpu_layers != 0))
        if not context:
            raise llama.OutOfMemory(f"{path}: llama.cpp cannot make a context of {n_ctx} tokens of it")
        grown = _allocated() - before
        said, kinds = log.take(), _breakdown(context)
        kv, compute, output = said.get("", 0), said.get("compute buffer", 0), said.get("output buffer", 0)
        # the log is rounded to 0.01 MiB, once for each of its lines
        agreed = bool(kinds) and abs(sum(c for _, _, c in kinds.values()) - compute) <= _MIB
        if agreed:
            kv, compute = sum(k for _, k, _ in kinds.values()), sum(c for _, _, c in kinds.values())
        sizes = {kind: m for kind, (m, _, _) in sorted(kinds.items()) if m} if agreed else {"CPU": int(lib.llama_model_size(model))}
        weights = tuple(Buffer(name=kind, bytes=size) for kind, size in sizes.items())
        windows.append(
            Window(
                asked=n_ctx,
                n_ctx=int(lib.llama_n_ctx(context)),
                kv_bytes=kv,
                compute_bytes=compute,
                output_bytes=output,
                bookkeeping_bytes=max(0, grown - output),  # the output buffer is allocated
                places=tuple(
                    Place(name=kind, weights_bytes=m, context_bytes=k, compute_bytes=c)
                    for kind, (m, k, c) in sorted(kinds.items())
                    if agreed
                ),
            )
        )
        lib.llama_free(context)
        log.take()  # it says goodbye with sizes
    return Figures(
        description=_description(model),
        n_ctx_train=int(lib.llama_model_n_ctx_train(model)),
        weights=weights,
        windows=tuple(windows),
        process_bytes=process,
        devices=_devices(),
    )


def _description(model: Any) -> str:
    buffer = ctypes.create_string_buffer(256)
    lib.llama_model_desc(model, buffer, 256)
    return buffer.value.decode(errors="replace")


def _devices() -> tuple[Device, ...]:
    """Those beside the CPU. ggml has found them when a model was loaded."""
    get = _ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    name_of = _ggml("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    text_of = _ggml("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind_of = _ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    memory_of = _ggml("ggml_backend_dev_memory", None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t))
    found = []
    for i in range(_ggml("ggml_backend_dev_count", ctypes.c_size_t)()):
        device = get(i)
        number = kind_of(device)
        kind = _KINDS[number] if 0 <= number < len(_KINDS) else str(number)
        if kind == "CPU":
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory_of(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=(name_of(device) or b"").decode(errors="replace"),
                description=(text_of(device) or b"").decode(errors="replace"),
                kind=kind,
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return tuple(found)


def _harmless() -> None:
    rlimits.no_core_dumps()
    for limit, value in ((resource.RLIMIT_DATA, DATA_BYTES), (resource.RLIMIT_CPU, CPU_S)):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    os.environ["GGML_NO_BACKTRACE"] = "1"  # or it forks a debugger on itself when it aborts


def main(arguments: Sequence[str]) -> int:
    parent = os.getppid()
    if arguments[:1] == ["--for"] and arguments[1:2] and arguments[1].isdecimal():
        # whoever wants to know may be gone by now: to be tied to who has adopted this process would be to outlive it
        parent, arguments = int(arguments[1]), arguments[2:]
    more: dict[str, Any] = {}
    if arguments[:1] == ["--alone"]:
        more, arguments = {"alone": True}, arguments[1:]
    if arguments[:1] == ["--plain"]:
        more, arguments = {**more, "repack": False}, arguments[1:]
    if arguments[:1] == ["--engine"] and len(arguments) > 3 and arguments[1].isdecimal():
        more |= {"sequences": int(arguments[1]), "placement": msgspec.json.decode(arguments[2], type=Placement)}
        arguments = arguments[3:]
    if len(arguments) < 2 or not all(one.isdecimal() and int(one) > 0 for one in arguments[1:]):
        usage = "[--for PID] [--alone] [--plain] [--engine SEQUENCES PLACEMENT] MODEL CONTEXT [CONTEXT …]"
        print(f"usage: python -m brainjar.engine.dryrun {usage}", file=sys.stderr)
        return 2
    try:
        bonds.die_with(parent)
    except bonds.NotTied:
        return 1  # nobody reads what it would say
    _harmless()
    log = _Log()
    llama.silence(log)
    try:
        figures = dry_run(Path(arguments[0]), [int(one) for one in arguments[1:]], log, **more)
    except (llama.EngineError, MemoryError) as error:
        print(msgspec.json.encode({"error": str(error) or "it ran out of memory"}).decode())
        return 1
    print(msgspec.json.encode(figures).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
