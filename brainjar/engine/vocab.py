"""A model's vocabulary and chat format: text to tokens and back. It needs no weights.

Loaded alone (`vocab_only`) it is a few MiB and touches no GPU: all that a worker needs whose context is computed elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brainjar import gguf
from brainjar.engine import identity
from brainjar.engine.bindings import lib
from brainjar.engine.template import PLAIN, ChatTemplate, Message


class EngineError(Exception):
    """llama.cpp refused: a model that it cannot load, a state that it does not take."""


class OutOfMemory(MemoryError):
    """llama.cpp could not allocate; under a cap, this is the cap."""


def silence(keep: Callable[[str], None] | None = None) -> None:
    """Route llama.cpp's log: errors to stderr (the autopsy reads it), the rest to `keep` or nowhere. Call before a load."""

    def log(level: int, text: bytes, _: Any) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            sys.stderr.write(text.decode(errors="replace"))
            sys.stderr.flush()
        elif keep is not None:
            keep(text.decode(errors="replace"))

    global _log_callback
    _log_callback = lib.llama_log_callback(log)
    lib.llama_log_set(_log_callback, ctypes.c_void_p(0))


_log_callback: Any = None  # the C side keeps a pointer to it


class Vocabulary:
    """Of a model that is loaded with `params`, by default nothing but its vocabulary."""

    def __init__(self, path: Path, params: Any = None) -> None:
        """Raise `EngineError` for an unusable file."""
        self.path = path
        self.model = lib.llama_model_load_from_file(str(path).encode(), vocabulary_params() if params is None else params)
        if not self.model:
            raise EngineError(f"llama.cpp cannot load {path}; its own words are in the zygote's log")
        self.identity = _identity(path)
        """(model, library, parameters): what a computed context depends on; taken here, as a worker may not see the file any more."""
        vocab = lib.llama_model_get_vocab(self.model)
        assert vocab is not None  # of a loaded model
        self.vocab = vocab
        self.n_vocab = lib.llama_vocab_n_tokens(vocab)
        self.n_ctx_train = lib.llama_model_n_ctx_train(self.model)
        self.n_swa = int(lib.llama_model_n_swa(self.model))
        """Tokens that the layers with a sliding window see; 0 where there are none."""
        self._template = self._chat_template()
        self._markers = self._control_markers()

    def _chat_template(self) -> ChatTemplate:
        raw = lib.llama_model_chat_template(self.model, None)
        bos, eos = (self._token_text(f(self.vocab)) for f in (lib.llama_vocab_bos, lib.llama_vocab_eos))
        try:
            return ChatTemplate(raw.decode() if raw else PLAIN, bos=bos, eos=eos)
        except Exception as error:
            raise EngineError(f"{self.path}: its chat template cannot be used: {error}") from None

    def _token_text(self, token: int) -> str:
        return (lib.llama_vocab_get_text(self.vocab, token) or b"").decode() if token >= 0 else ""

    def render(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The conversation in the model's own chat format; with `generate`, open for its answer."""
        return self._template.render(messages, generate=generate)

    def tokenize(self, text: str, *, start: bool = False) -> list[int]:
        """Control tokens in `text` are read as such. At the `start` of a sequence the model's BOS is added where its template has none."""
        raw = text.encode()
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        bos = self._token_text(lib.llama_vocab_bos(self.vocab))
        add = start and lib.llama_vocab_get_add_bos(self.vocab) and not (bos and text.startswith(bos))
        n = lib.llama_tokenize(self.vocab, raw, len(raw), buffer, room, add, True)
        if n < 0:
            raise EngineError(f"llama.cpp cannot tokenize {text[:40]!r}…")
        return list(buffer[:n])

    def defang(self, text: str) -> str:
        """`text` from outside, such that no control token of the model can be written by whoever wrote it."""
        for marker in self._markers:
            if marker in text:
                text = text.replace(marker, marker[0] + "\u200b" + marker[1:])
        return text

    def _control_markers(self) -> list[str]:
        found = (self._token_text(t) for t in range(self.n_vocab) if lib.llama_vocab_is_control(self.vocab, t))
        return sorted((m for m in found if len(m) > 1), key=len, reverse=True)

    def piece(self, token: int) -> bytes:
        """The bytes of one token; a character may be spread over several."""
        buffer = ctypes.create_string_buffer(256)
        n = lib.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False)
        return buffer.raw[: max(n, 0)]

    def ends(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.model, buffer, 256)
        return buffer.value.decode(errors="replace")

    def size_bytes(self) -> int:
        return int(lib.llama_model_size(self.model))


def vocabulary_params() -> Any:
    """How nothing but a vocabulary is loaded."""
    params = lib.llama_model_default_params()
    params.vocab_only = True
    params.n_gpu_layers = 0
    return params


def _identity(path: Path) -> tuple[str, str, str]:
    """While the file is still cached; without the parameters, which whoever makes a context adds. Raise `EngineError`."""
    try:
        return identity.of_model(gguf.read(path)), identity.of_library(lib), ""
    except (OSError, gguf.GgufError) as error:
        raise EngineError(f"{path}: what it is cannot be told: {error}") from None


def drop_cached(path: Path) -> None:
    """The weights are in memory once; what the kernel cached while they were read is not needed again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
