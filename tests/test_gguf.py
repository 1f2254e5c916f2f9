"""What `gguf.read` promises: the facts of a whole model, and a `GgufError`, never anything else, for everything that is not one."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainjar import gguf, models
from brainjar.gguf import GgufError
from tests import ggufs
from tests.ggufs import ARRAY, BOOL, CODES, F32, I32, STRING, TYPE_F32, TYPE_Q4_1, TYPE_UNKNOWN, U8, U32, U64, Key, Tensor, text

LLAMA: tuple[Key, ...] = (
    ("general.architecture", STRING, "llama"),
    ("general.name", STRING, "Tiny"),
    ("general.file_type", U32, 3),
    ("llama.context_length", U32, 128),
    ("llama.embedding_length", U32, 64),
    ("llama.block_count", U32, 2),
    ("llama.attention.head_count", U32, 4),
    ("llama.attention.head_count_kv", U32, 2),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, ("a", "b", "", "long one"))),
    ("tokenizer.ggml.scores", ARRAY, (F32, (0.0, 1.0, 2.0, 3.0))),
    ("tokenizer.chat_template", STRING, "{{ messages }}"),
    *((f"other.{kind}", kind, 1) for kind in CODES),
)
TENSORS: tuple[Tensor, ...] = (("a", (64, 2), TYPE_Q4_1, 0), ("b", (3,), TYPE_F32, 96), ("c", (), TYPE_F32, 128))
"""Q4_1 takes 20 bytes for 32 elements: 80 bytes, then padding to 96; 12, then padding to 128; a scalar of 4."""
TENSORS_BYTES = 80 + 12 + 4


def build(
    keys: tuple[Key, ...] = LLAMA, tensors: tuple[Tensor, ...] = TENSORS, data: int = 132, alignment: int = 32, version: int = 3
) -> bytes:
    return ggufs.build(keys, tensors, bytes(data), alignment=alignment, version=version)


def without(name: str) -> tuple[Key, ...]:
    return tuple(key for key in LLAMA if key[0] != name)


def with_(*new: Key) -> tuple[Key, ...]:
    names = {key[0] for key in new}
    return (*(key for key in LLAMA if key[0] not in names), *new)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def read(file: Path, content: bytes) -> gguf.Gguf:
    file.write_bytes(content)
    return gguf.read(file)


def refusal(file: Path, content: bytes) -> str:
    with pytest.raises(GgufError) as caught:
        read(file, content)
    words = str(caught.value)
    assert words.startswith(f"{file}: ")
    assert words.isprintable()
    return words


def test_the_header_is_told_as_it_is(file: Path) -> None:
    content = build()
    assert read(file, content) == gguf.Gguf(
        path=file,
        size_bytes=len(content),
        architecture="llama",
        name="Tiny",
        n_ctx_train=128,
        n_layer=2,
        n_head_kv=2,
        key_length=16,
        value_length=16,
        vocab_size=4,
        has_chat_template=True,
        file_type=3,
        data_at=len(content) - 132,
        tensors_bytes=TENSORS_BYTES,
    )
    assert gguf.read(file).quantization == "Q4_1"


def test_kv_bytes_counts_keys_and_values_of_every_layer_in_f16(file: Path) -> None:
    assert read(file, build()).kv_bytes(10) == 10 * 2 * 2 * (16 + 16) * 2


def test_layers_may_differ_in_their_heads(file: Path) -> None:
    model = read(file, build(with_(("llama.attention.head_count_kv", ARRAY, (I32, (4, 1))))))
    assert model.n_head_kv == (4, 1)
    assert model.kv_bytes(1) == (4 + 1) * (16 + 16) * 2


def test_given_head_lengths_win_over_the_computed_ones(file: Path) -> None:
    model = read(file, build(with_(("llama.attention.key_length", U32, 24), ("llama.attention.value_length", U32, 8))))
    assert (model.key_length, model.value_length) == (24, 8)


def test_what_is_not_said_has_llama_cpp_s_defaults(file: Path) -> None:
    missing = ("general.name", "general.file_type", "llama.attention.head_count_kv", "tokenizer.ggml.tokens", "tokenizer.chat_template")
    model = read(file, build((*(key for key in LLAMA if key[0] not in missing), ("llama.vocab_size", U32, 7))))
    assert (model.name, model.file_type, model.n_head_kv, model.vocab_size, model.has_chat_template) == ("", None, 4, 7, False)


def test_the_architecture_may_come_last(file: Path) -> None:
    assert read(file, build((*without("general.architecture"), LLAMA[0]))).n_layer == 2


def test_alignment_is_the_file_s_own(file: Path) -> None:
    keys = with_(("general.alignment", U32, 128))
    tensors = (("a", (64,), TYPE_Q4_1, 0), ("b", (1,), TYPE_F32, 128))
    content = build(keys, tensors, data=132, alignment=128)
    assert read(file, content).tensors_bytes == 44
    assert "is cut short" in refusal(file, content[:-1])


def test_an_unknown_tensor_type_is_measured_by_its_offset_alone(file: Path) -> None:
    tensors = (("a", (64,), TYPE_UNKNOWN, 0), ("b", (1,), TYPE_F32, 4096))
    assert read(file, build(tensors=tensors, data=4100)).tensors_bytes == 4100
    assert "is cut short" in refusal(file, build(tensors=tensors, data=4000))


def test_every_prefix_is_refused(file: Path) -> None:
    content = build()
    for length in range(len(content)):
        words = refusal(file, content[:length])
        assert "is cut short" in words or length < 4, (length, words)


def test_a_cut_names_the_bytes_that_are_wanted(file: Path) -> None:
    content = build()
    assert f"needs {len(content)} bytes, has {len(content) - 1};" in refusal(file, content[:-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), r"it begins with b'\x89PNG', a GGUF begins with b'GGUF'"),
        (b"GG", r"it begins with b'GG'"),
        (build(version=1), "version 1; versions 2 and 3"),
        (build(version=4), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100), "big-endian"),
        (build(tensors=()), "has no tensors"),
        (build(without("general.architecture")), "no general.architecture"),
        (build(without("llama.context_length")), "is not a language model: it has no llama.context_length"),
        (build(with_(("llama.block_count", STRING, "many"))), "llama.block_count is 'many', a whole number is wanted"),
        (build(with_(("llama.block_count", I32, -1))), "llama.block_count is -1"),
        (build(with_(("llama.block_count", BOOL, True))), "llama.block_count is True"),
        (build(with_(("llama.block_count", U64, 2**63))), f"llama.block_count is {2**63}"),
        (build(with_(("general.alignment", U32, 0))), "general.alignment is 0"),
        (build(with_(("general.alignment", U32, 48))), "general.alignment is 48"),
        (build(with_(("llama.attention.head_count_kv", ARRAY, (I32, (4,))))), "has 1 numbers for 2 layers"),
        (build(with_(("", U8, 1))), "a name of 0 bytes"),
        (build(tensors=(("a", (33,), TYPE_Q4_1, 0),)), "a multiple of 32 is wanted"),
        (build(tensors=(("a", (1,) * 5, TYPE_F32, 0),)), "5 dimensions"),
        (build(tensors=(("a", (1,), TYPE_F32, 0), ("b", (1,), TYPE_F32, 64))), "tensor 'b' is at 64 of the data, 32 is wanted"),
        (build(tensors=(("a", (2**62, 2**62, 2**62, 2**62), TYPE_F32, 0),)), "is cut short"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_words(file: Path, content: bytes, words: str) -> None:
    assert words in refusal(file, content)


def test_unknown_and_nested_types_are_refused(file: Path) -> None:
    nested = text("x") + struct.pack("<IIQ", ARRAY, ARRAY, 1)
    unknown = text("x") + struct.pack("<I", 13)
    for key, words in ((nested, "'x' is an array of unknown type 9"), (unknown, "'x' has the unknown type 13")):
        assert words in refusal(file, b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + key + bytes(200))


def test_a_name_cannot_write_to_the_terminal(file: Path) -> None:
    assert "\x1b" not in read(file, build(with_(("general.name", STRING, "\x1b[2Jgone")))).name


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in ((tmp_path, "is a directory"), (fifo, "is not a file"), (tmp_path / "none", "No such file"), (Path("a\0b"), "null")):
        with pytest.raises(GgufError, match=words):
            gguf.read(path)


def _counts(value: int) -> list[bytes]:
    head = b"GGUF" + struct.pack("<I", 3)
    one_key = head + struct.pack("<QQ", 1, 1)
    return [
        head + struct.pack("<QQ", value, 1),
        head + struct.pack("<QQ", 1, value),
        one_key + struct.pack("<Q", value),
        one_key + text("x") + struct.pack("<IQ", STRING, value),
        one_key + text("tokenizer.chat_template") + struct.pack("<IQ", STRING, value),
        one_key + text("general.name") + struct.pack("<IQ", STRING, value),
        one_key + text("x") + struct.pack("<IIQ", ARRAY, STRING, value),
        one_key + text("x") + struct.pack("<IIQ", ARRAY, U64, value),
        one_key + text("x.attention.head_count") + struct.pack("<IIQ", ARRAY, U64, value),
        head + struct.pack("<QQ", 1, 0) + struct.pack("<Q", value),
        head + struct.pack("<QQ", 1, 0) + text("a") + struct.pack("<I", value & 0xFFFFFFFF),
    ]


@pytest.mark.parametrize("value", [2**20, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("size", [256, 2**30], ids=["short", "sparse"])
def test_hostile_counts_take_no_memory(file: Path, value: int, size: int) -> None:
    for content in _counts(value):
        file.write_bytes(content)
        os.truncate(file, max(size, len(content)))
        tracemalloc.start()
        try:
            with pytest.raises(GgufError):
                gguf.read(file)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_a_long_vocabulary_is_read_across_windows(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tuple("t" * (i % 300) for i in range(3000))
    content = build(with_(("tokenizer.ggml.tokens", ARRAY, (STRING, tokens))))
    whole = read(file, content)
    assert whole.vocab_size == 3000
    for chunk in (1, 7, 64, 4096):
        monkeypatch.setattr(gguf, "_CHUNK", chunk)
        assert gguf.read(file) == whole


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda tail: b"GGUF\x03\0\0\0" + tail)))
def test_random_bytes_are_refused(file: Path, content: bytes) -> None:
    refusal(file, content)


def test_a_damaged_header_is_read_or_refused(file: Path) -> None:
    whole = build()
    chance = random.Random(1)
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.choice((0, 1, 9, 255, chance.randrange(256)))
        file.write_bytes(content)
        try:
            gguf.read(file)
        except GgufError as error:
            assert str(error).isprintable()


@pytest.mark.model
def test_the_real_model_is_what_the_plan_counts_on() -> None:
    entry = models.lookup("smollm2-135m")
    if not models.is_present(entry):
        pytest.skip(f"{entry.path} is not here; brainjar models fetch {entry.name}")
    model = gguf.read(entry.path)
    assert (model.architecture, model.n_layer, model.n_head_kv, model.key_length, model.value_length) == ("llama", 30, 3, 64, 64)
    assert (model.n_ctx_train, model.vocab_size, model.has_chat_template, model.quantization) == (8192, 49152, True, "Q4_1")
    assert model.kv_bytes(1) == 23040
    assert model.tensors_bytes < model.size_bytes == entry.size_bytes
