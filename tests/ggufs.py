"""Writing GGUF files: the container, and tiny models of several architectures with random weights, which llama.cpp loads in a millisecond.

The weights of a tiny model say nothing sensible, but they are a model: its attention looks back, its positions matter, its greedy
continuation changes with what it has read. A byte is a token, so that any text can be written.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE_S

_QUANTIZE: Final = """
import ctypes, sys
from brainjar.engine import llama
from brainjar.engine.bindings import lib
llama.silence()
params = lib.llama_model_quantize_default_params()
params.allow_requantize, params.pure, params.ftype, params.nthread = True, True, 2, 2  # LLAMA_FTYPE_MOSTLY_Q4_0
sys.exit(lib.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
TYPE_F32, TYPE_Q4_1, TYPE_UNKNOWN = 0, 3, 99

Key = tuple[str, int, object]
Tensor = tuple[str, tuple[int, ...], int, int]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value_bytes(kind: int, value: object) -> bytes:
    return text(str(value)) if kind == STRING else struct.pack("<" + CODES[kind], value)


def key_bytes(name: str, kind: int, value: object) -> bytes:
    """An array is given as (kind of its elements, elements)."""
    if kind != ARRAY:
        return text(name) + struct.pack("<I", kind) + value_bytes(kind, value)
    assert isinstance(value, tuple)
    inner, elements = value
    head = struct.pack("<IIQ", ARRAY, inner, len(elements))
    return text(name) + head + b"".join(value_bytes(inner, element) for element in elements)


def build(keys: Sequence[Key], tensors: Sequence[Tensor], data: bytes, *, alignment: int = 32, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(key_bytes(*key) for key in keys)
    for name, dimensions, kind, offset in tensors:
        head += text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
    return head + bytes(-len(head) % alignment) + data


# ── tiny models ──

SPECIAL: Final = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
SPACE: Final = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
CHATML: Final = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
EMBD: Final = 64
HEADS: Final = 4
HEADS_KV: Final = 2
HEAD: Final = EMBD // HEADS
FF: Final = 96
N_VOCAB: Final = len(SPECIAL) + 1 + 256
N_CTX_TRAIN: Final = 4096
SWA: Final = 64
"""Tokens that a sliding layer of the tiny gemma3 sees."""

ARCHITECTURES: Final = ("llama", "qwen2", "gemma3", "mamba", "lfm2")


class _Weights:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.tensors: list[Tensor] = []
        self.data = bytearray()
        self.deaf = False
        """The attention of this layer has no say."""

    def add(self, name: str, *dimensions: int, mean: float = 0.0, std: float | None = None) -> None:
        """Gaussian, of which `dimensions[0]` are summed up in a product: by default what keeps the size of what they are applied to."""
        count = 1
        for dimension in dimensions:
            count *= dimension
        std = dimensions[0] ** -0.5 if std is None else std
        self.tensors.append((name, dimensions, TYPE_F32, len(self.data)))
        self.data += array("f", (self._random.gauss(mean, std) for _ in range(count))).tobytes()
        self.data += bytes(-len(self.data) % 32)

    def norm(self, name: str, size: int = EMBD) -> None:
        self.add(name, size, mean=1.0, std=0.1)

    def attention(self, block: str, *, bias: bool = False, norms: bool = False) -> None:
        """Queries and keys are larger than they need be, so that it matters what is looked at."""
        for letter, size in (("q", EMBD), ("k", HEADS_KV * HEAD), ("v", HEADS_KV * HEAD)):
            self.add(f"{block}.attn_{letter}.weight", EMBD, size, std=0.25 if letter != "v" else None)
            if bias:
                self.add(f"{block}.attn_{letter}.bias", size, std=0.3)
            if norms and letter != "v":
                self.add(f"{block}.attn_{letter}_norm.weight", HEAD, mean=2.0, std=0.3)
        self.add(f"{block}.attn_output.weight", EMBD, EMBD, std=0.0 if self.deaf else None)

    def feed_forward(self, block: str) -> None:
        self.norm(f"{block}.ffn_norm.weight")
        self.add(f"{block}.ffn_gate.weight", EMBD, FF)
        self.add(f"{block}.ffn_up.weight", EMBD, FF)
        self.add(f"{block}.ffn_down.weight", FF, EMBD)


def write_tiny(path: Path, architecture: str, *, layers: int = 2, seed: int = 1, template: str = CHATML, deaf: Sequence[int] = ()) -> Path:
    """A model of one of `ARCHITECTURES` at `path`. Of gemma3, every second layer sees `SWA` tokens only, the first one of them being one;
    of lfm2, every second layer is recurrent. `deaf`: layers that only see the token itself.
    """
    weights = _Weights(seed)
    weights.add("token_embd.weight", EMBD, N_VOCAB, std=1.0)
    weights.add("output.weight", EMBD, N_VOCAB)  # not the embedding again: a model whose residual stream is strong would repeat itself
    weights.norm("token_embd_norm.weight" if architecture == "lfm2" else "output_norm.weight")
    keys: list[Key] = []
    for layer in range(layers):
        weights.deaf = layer in deaf
        _BLOCKS[architecture](weights, f"blk.{layer}", layer)

    def key(name: str, kind: int, value: object) -> None:
        keys.append((f"{architecture}.{name}", kind, value))

    key("context_length", U32, N_CTX_TRAIN)
    key("embedding_length", U32, EMBD)
    key("block_count", U32, layers)
    key("feed_forward_length", U32, 0 if architecture == "mamba" else FF)
    key("attention.layer_norm_rms_epsilon", F32, 1e-5)
    if architecture == "mamba":
        for name, value in (("conv_kernel", 4), ("inner_size", 2 * EMBD), ("state_size", 8), ("time_step_rank", 4)):
            key(f"ssm.{name}", U32, value)
    else:
        key("attention.head_count", U32, HEADS)
        kv: tuple[int, object] = (U32, HEADS_KV)
        if architecture == "lfm2":
            kv = (ARRAY, (I32, tuple(0 if layer % 2 == 0 else HEADS_KV for layer in range(layers))))
            key("shortconv.l_cache", U32, 3)
        key("attention.head_count_kv", *kv)
        key("rope.freq_base", F32, 10_000.0)
    if architecture == "gemma3":
        key("attention.key_length", U32, HEAD)
        key("attention.value_length", U32, HEAD)
        key("attention.sliding_window", U32, SWA)
        key("attention.sliding_window_pattern", U32, 2)
        key("rope.freq_base_swa", F32, 500.0)  # another one than the global layers': what moves keys must know
    kinds = [_UNKNOWN, *([_CONTROL] * (len(SPECIAL) - 1)), _NORMAL, *([_BYTE] * 256)]
    head: list[Key] = [
        ("general.architecture", STRING, architecture),
        ("general.name", STRING, f"tiny {architecture}"),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, (*SPECIAL, SPACE, *(f"<0x{byte:02X}>" for byte in range(256))))),
        ("tokenizer.ggml.scores", ARRAY, (F32, (0.0,) * N_VOCAB)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, tuple(kinds))),
        ("tokenizer.ggml.bos_token_id", U32, 1),
        ("tokenizer.ggml.eos_token_id", U32, 4),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
        ("tokenizer.ggml.add_space_prefix", BOOL, False),
        ("tokenizer.chat_template", STRING, template),
    ]
    path.write_bytes(build([*head, *keys], weights.tensors, bytes(weights.data)))
    return path


def _llama(weights: _Weights, block: str, layer: int) -> None:
    weights.norm(f"{block}.attn_norm.weight")
    weights.attention(block)
    weights.feed_forward(block)


def _qwen2(weights: _Weights, block: str, layer: int) -> None:
    weights.norm(f"{block}.attn_norm.weight")
    weights.attention(block, bias=True)
    weights.feed_forward(block)


def _gemma3(weights: _Weights, block: str, layer: int) -> None:
    weights.norm(f"{block}.attn_norm.weight")
    weights.attention(block, norms=True)
    weights.norm(f"{block}.post_attention_norm.weight")
    weights.feed_forward(block)
    weights.norm(f"{block}.post_ffw_norm.weight")


def _mamba(weights: _Weights, block: str, layer: int) -> None:
    inner, state, rank = 2 * EMBD, 8, 4
    weights.norm(f"{block}.attn_norm.weight")
    weights.add(f"{block}.ssm_in.weight", EMBD, 2 * inner)
    weights.add(f"{block}.ssm_conv1d.weight", 4, inner)
    weights.add(f"{block}.ssm_conv1d.bias", inner, std=0.1)
    weights.add(f"{block}.ssm_x.weight", inner, rank + 2 * state)
    weights.add(f"{block}.ssm_dt.weight", rank, inner)
    weights.add(f"{block}.ssm_dt.bias", inner, std=0.1)
    weights.add(f"{block}.ssm_a", state, inner, mean=-1.0, std=0.1)
    weights.add(f"{block}.ssm_d", inner, mean=1.0, std=0.1)
    weights.add(f"{block}.ssm_out.weight", inner, EMBD)


def _lfm2(weights: _Weights, block: str, layer: int) -> None:
    weights.norm(f"{block}.attn_norm.weight")
    if layer % 2:
        weights.attention(block, norms=True)
    else:
        weights.add(f"{block}.shortconv.conv.weight", 3, EMBD)
        weights.add(f"{block}.shortconv.in_proj.weight", EMBD, 3 * EMBD)
        weights.add(f"{block}.shortconv.out_proj.weight", EMBD, EMBD)
    weights.feed_forward(block)


_BLOCKS: Final = {"llama": _llama, "qwen2": _qwen2, "gemma3": _gemma3, "mamba": _mamba, "lfm2": _lfm2}


def quantized(source: Path, target: Path) -> Path:
    """The model `source` as Q4_0, which many CPUs have a layout of their own for; in a process of its own, as it starts threads."""
    subprocess.run([sys.executable, "-c", _QUANTIZE, str(source), str(target)], capture_output=True, timeout=PATIENCE_S, check=True)
    return target
