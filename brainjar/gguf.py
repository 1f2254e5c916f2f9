"""The header of a GGUF file: what a model is and what it will need, without loading any of it.

The file may be anything: a download that broke off, a picture, something made to hurt. Every count is checked against what is left of
the file before it is believed, nothing is kept but a few known keys, and whatever is wrong is a `GgufError`. It is read with pread and
not mapped: a file that shrinks under a mapping kills the reader with SIGBUS, and the reader is the supervisor.

Layout: ggml/include/gguf.h of llama.cpp. What llama.cpp refuses (version 1, the other byte order, arrays of arrays, offsets that leave
gaps) is refused here too, only sooner and in words.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Final

import msgspec

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_CHUNK: Final = 1 << 20
_MAX_HEADER: Final = 128 << 20
"""Bounds the time a hostile file can take. The longest known headers (vocabularies of 262,144 tokens with their merges) are 16 MiB."""
_MAX_KEY: Final = 1 << 16
_MAX_TEXT: Final = 4096
"""No text that is kept is longer."""
_MAX_LAYERS: Final = 4096
_MAX_DIMENSIONS: Final = 4
_DEFAULT_ALIGNMENT: Final = 32

_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING: Final = 8
_ARRAY: Final = 9

_BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""ggml type -> (elements in a block, bytes of a block), from ggml_blck_size and ggml_type_size of llama-cpp-python 0.3.36."""

_FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
    32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""general.file_type -> name, from llama_ftype."""

_KEPT: Final = frozenset({"general.architecture", "general.name", "general.file_type", "general.alignment"})
_KEPT_OF_ARCHITECTURE: Final = frozenset(
    {
        "context_length",
        "embedding_length",
        "block_count",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
    }
)
_TOKENS: Final = "tokenizer.ggml.tokens"
_CHAT_TEMPLATE: Final = "tokenizer.chat_template"

_Value = int | float | bool | str | tuple[int, ...]


class GgufError(Exception):
    """The file is no GGUF that this machine can load. The message is one line and begins with the path."""


class Gguf(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a language model says. Sizes are bytes, lengths are tokens or elements."""

    path: Path
    size_bytes: int
    architecture: str
    name: str
    n_ctx_train: int
    """The context that it was trained for."""
    n_layer: int
    n_head_kv: int | tuple[int, ...]
    """Key/value heads; per layer where the layers differ."""
    key_length: int
    value_length: int
    vocab_size: int
    has_chat_template: bool
    file_type: int | None
    data_at: int = 0
    """Where the weights begin: what is before it says all that the file says of itself."""
    tensors_bytes: int
    """The weights as they lie in the file; llama.cpp may hold a repacked copy beside them."""

    @property
    def quantization(self) -> str:
        """`Q4_1` and the like; the number where llama.cpp has a type that this does not know; `?` where the file does not say."""
        return "?" if self.file_type is None else _FILE_TYPES.get(self.file_type, str(self.file_type))

    def kv_bytes(self, n_ctx: int) -> int:
        """Bytes of a key/value cache of `n_ctx` tokens in f16.

        An upper bound where layers see only a window of the context or share their cache.
        """
        heads = self.n_head_kv * self.n_layer if isinstance(self.n_head_kv, int) else sum(self.n_head_kv)
        return n_ctx * heads * (self.key_length + self.value_length) * 2


def read(path: str | os.PathLike[str]) -> Gguf:
    """Read the header of the model at `path`.

    Raises `GgufError` for everything that keeps llama.cpp from loading it and that the header can show: not there or not readable, not a
    GGUF, of a version or byte order that it does not take, damaged, cut short, or not a language model.
    """
    where = Path(path)
    try:
        # O_NONBLOCK: opening a FIFO would wait for somebody to write.
        fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise GgufError(f"{where}: cannot be read: {_words(error)}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise GgufError(f"{where}: is {'a directory' if stat.S_ISDIR(status.st_mode) else 'not a file'}, a GGUF file is wanted")
        return _parse(_Reader(fd, status.st_size, where))
    except OSError as error:
        raise GgufError(f"{where}: cannot be read: {_words(error)}") from None
    finally:
        os.close(fd)


def _words(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Reader:
    """Takes bytes from the front of the file, one window of it in memory."""

    def __init__(self, fd: int, size: int, path: Path) -> None:
        self._fd = fd
        self._window = b""
        self._window_at = 0
        self.size = size
        self.path = path
        self.at = 0

    def error(self, what: str) -> GgufError:
        return GgufError(f"{self.path}: {what}")

    def cut_short(self, needed: int, or_more: str = " or more") -> GgufError:
        return self.error(f"is cut short: needs {needed} bytes{or_more}, has {self.size}; fetch or copy it again")

    def take(self, count: int) -> bytes:
        start = self._reach(self.at, count)
        self.at += count
        return self._window[start : start + count]

    def skip(self, count: int) -> None:
        self._check(self.at, count)
        self.at += count

    def number(self, code: str) -> int | float | bool:
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return value  # type: ignore[no-any-return]

    def count(self, code: str = "<Q") -> int:
        return int(self.number(code))

    def text(self) -> str:
        """A string, at most `_MAX_TEXT` bytes of it, safe to show on a terminal."""
        length = self.count()
        self._check(self.at, length)
        shown = self.take(min(length, _MAX_TEXT))
        self.skip(length - len(shown))
        return "".join(c if c.isprintable() else "�" for c in shown.decode("utf-8", "replace"))

    def key(self) -> str:
        length = self.count()
        if not 0 < length <= _MAX_KEY:
            raise self.error(f"is damaged: a name of {length} bytes at byte {self.at - 8}")
        return self.take(length).decode("utf-8", "replace")

    def skip_string(self) -> None:
        self.skip(self.count())

    def skip_strings(self, count: int) -> None:
        """Spelt out for speed: a vocabulary has up to a million of them."""
        self._check(self.at, 8 * count)
        at, unpack = self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = at - self._window_at
            if start < 0 or start + 8 > len(self._window):
                start = self._reach(at, 8)
            at += 8 + unpack(self._window, start)[0]
            if at > self.size or at > _MAX_HEADER:
                self._check(at, 0)
        self.at = at

    def _check(self, at: int, count: int) -> None:
        if at + count > self.size:
            raise self.cut_short(at + count)
        if at + count > _MAX_HEADER:
            raise self.error(f"is damaged: its header is longer than {_MAX_HEADER >> 20} MiB")

    def _reach(self, at: int, count: int) -> int:
        """Bring bytes `at` to `at + count` into the window; return where in the window they begin."""
        self._check(at, count)
        start = at - self._window_at
        if start < 0 or start + count > len(self._window):
            self._window = os.pread(self._fd, max(_CHUNK, count), at)
            self._window_at = at
            start = 0
            if len(self._window) < count:
                raise self.error("became shorter while it was read")
        return start


def _parse(reader: _Reader) -> Gguf:
    magic = reader.take(min(4, reader.size))
    if magic != _MAGIC:
        found = f"begins with {magic!r}" if magic else "is empty"
        raise reader.error(f"is not a GGUF file: it {found}, a GGUF begins with {_MAGIC!r}")
    version = reader.count("<I")
    if version & 0xFFFF == 0:
        raise reader.error("is a GGUF for big-endian machines; this one is little-endian")
    if version not in _VERSIONS:
        raise reader.error(f"is a GGUF of version {version}; versions {_VERSIONS[0]} and {_VERSIONS[-1]} can be loaded")
    n_tensors, n_keys = reader.count(), reader.count()

    values, n_tokens, has_chat_template = _keys(reader, n_keys)
    alignment = _whole(reader, values, "general.alignment", _DEFAULT_ALIGNMENT)
    if alignment < 1 or alignment & (alignment - 1):
        raise reader.error(f"is damaged: general.alignment is {alignment}, a power of 2 is wanted")
    tensors_bytes = _tensors(reader, n_tensors, alignment)
    return _model(reader, values, n_tokens, has_chat_template, tensors_bytes, _padded(reader.at, alignment))


def _keys(reader: _Reader, n_keys: int) -> tuple[dict[str, _Value], int | None, bool]:
    """What is kept of the keys, how many tokens the vocabulary has, and whether there is a chat template."""
    values: dict[str, _Value] = {}
    n_tokens: int | None = None
    has_chat_template = False
    least = n_keys * 14  # a key: the length of its name, a letter, a type, a byte
    if least > reader.size - reader.at:
        raise reader.cut_short(reader.at + least)
    for _ in range(n_keys):
        key = reader.key()
        kind = reader.count("<I")
        kept = key in _KEPT or key.partition(".")[2] in _KEPT_OF_ARCHITECTURE
        if kind == _ARRAY:
            kind, count = reader.count("<I"), reader.count()
            if key == _TOKENS:
                n_tokens = count
            if kind == _STRING:
                reader.skip_strings(count)
            elif code := _SCALARS.get(kind):
                if kept and count <= _MAX_LAYERS and code not in ("<f", "<d"):
                    values[key] = tuple(int(reader.number(code)) for _ in range(count))
                else:
                    reader.skip(count * struct.calcsize(code))
            else:
                raise reader.error(f"is damaged: {key!r} is an array of unknown type {kind}")
        elif kind == _STRING:
            if key == _CHAT_TEMPLATE:
                before = reader.at
                reader.skip_string()
                has_chat_template = reader.at - before > 8
            elif kept:
                values[key] = reader.text()
            else:
                reader.skip_string()
        elif code := _SCALARS.get(kind):
            value = reader.number(code)
            if kept:
                values[key] = value
        else:
            raise reader.error(f"is damaged: {key!r} has the unknown type {kind}")
    return values, n_tokens, has_chat_template


def _tensors(reader: _Reader, n_tensors: int, alignment: int) -> int:
    """Bytes of all tensors; raises where the file ends before the last of them does."""
    least = n_tensors * 25  # a tensor: the length of its name, a letter, the number of its dimensions, a type, an offset
    if least > reader.size - reader.at:
        raise reader.cut_short(reader.at + least)
    total = end = furthest = 0
    all_known = True
    for _ in range(n_tensors):
        name = reader.key()
        n_dimensions = reader.count("<I")
        if n_dimensions > _MAX_DIMENSIONS:
            raise reader.error(f"is damaged: tensor {name!r} has {n_dimensions} dimensions, at most {_MAX_DIMENSIONS} can be")
        dimensions = [reader.count() for _ in range(n_dimensions)]
        kind, offset = reader.count("<I"), reader.count()
        if kind not in _BLOCKS:
            all_known = False
            furthest = max(furthest, offset)
            continue
        per_block, block_bytes = _BLOCKS[kind]
        elements = 1
        for dimension in dimensions:
            elements *= dimension
        if dimensions and dimensions[0] % per_block:
            raise reader.error(f"is damaged: rows of tensor {name!r} have {dimensions[0]} elements, a multiple of {per_block} is wanted")
        if all_known and offset != end:
            raise reader.error(f"is damaged: tensor {name!r} is at {offset} of the data, {end} is wanted")
        size = elements // per_block * block_bytes
        total += size
        furthest = max(furthest, offset + size)
        end = _padded(offset + size, alignment)
    if not n_tensors:
        raise reader.error("has no tensors: a vocabulary or a header alone, not a model")
    data = _padded(reader.at, alignment)
    if data + furthest > reader.size:
        raise reader.cut_short(data + furthest, "" if all_known else " or more")
    return total if all_known else reader.size - data


def _model(
    reader: _Reader, values: dict[str, _Value], n_tokens: int | None, has_chat_template: bool, tensors_bytes: int, data_at: int
) -> Gguf:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise reader.error("is damaged: it has no general.architecture")

    def whole(key: str, default: int | None = None) -> int:
        return _whole(reader, values, f"{architecture}.{key}", default)

    n_layer = whole("block_count")
    if n_layer > _MAX_LAYERS:
        raise reader.error(f"is damaged: {architecture}.block_count is {n_layer}")
    embedding = whole("embedding_length")
    heads = _per_layer(reader, values, f"{architecture}.attention.head_count", n_layer, 0)
    first = heads if isinstance(heads, int) else heads[0] if heads else 0
    head = embedding // first if first else 0
    file_type = values.get("general.file_type")
    return Gguf(
        path=reader.path,
        size_bytes=reader.size,
        architecture=architecture,
        name=str(values.get("general.name", "")),
        n_ctx_train=whole("context_length"),
        n_layer=n_layer,
        n_head_kv=_per_layer(reader, values, f"{architecture}.attention.head_count_kv", n_layer, heads),
        key_length=whole("attention.key_length", head),
        value_length=whole("attention.value_length", head),
        vocab_size=n_tokens if n_tokens is not None else whole("vocab_size", 0),
        has_chat_template=has_chat_template,
        file_type=file_type if isinstance(file_type, int) else None,
        data_at=data_at,
        tensors_bytes=tensors_bytes,
    )


def _whole(reader: _Reader, values: dict[str, _Value], key: str, default: int | None) -> int:
    value = values.get(key, default)
    if value is None:
        raise reader.error(f"is not a language model: it has no {key}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise reader.error(f"is damaged: {key} is {value!r}, a whole number is wanted")
    return value


def _per_layer(reader: _Reader, values: dict[str, _Value], key: str, n_layer: int, default: int | tuple[int, ...]) -> int | tuple[int, ...]:
    value = values.get(key, default)
    if not isinstance(value, tuple):
        return _whole(reader, {key: value}, key, None)
    if len(value) < n_layer or any(one < 0 for one in value):
        raise reader.error(f"is damaged: {key} has {len(value)} numbers for {n_layer} layers")
    return value[:n_layer]


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
