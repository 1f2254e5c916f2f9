"""The wire format: what is said is what is read, the seed's fields come first, and no bytes can hurt who reads."""

from __future__ import annotations

import json
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainjar import messages
from brainjar.messages import Death, Envelope, Evidence, Feed, State, Type, Voice

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
COUNT = st.integers(0, 2**53)
JSON = st.recursive(st.none() | st.booleans() | COUNT | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner))


@given(
    st.builds(
        Envelope,
        type=st.sampled_from(get_args(Type)),
        timestamp=st.floats(0, 4e9),
        sender_id=TEXT,
        content=TEXT,
        crash_count=COUNT,
        metadata=st.dictionaries(TEXT, JSON, max_size=3),
        epoch=COUNT,
        seq=COUNT,
        topic_seq=COUNT,
        life=COUNT,
    )
)
def test_an_envelope_is_read_as_it_was_written_the_seed_s_fields_first(envelope: Envelope) -> None:
    body = messages.encode(envelope)
    assert messages.decode_envelope(body) == envelope
    assert list(json.loads(body)) == [
        *("type", "timestamp", "sender_id", "content", "crash_count", "metadata"),
        *("v", "epoch", "seq", "topic_seq", "life"),
    ]
    assert envelope.topic == f"{envelope.type}.{envelope.sender_id}"


def test_no_field_of_an_envelope_is_left_out_when_it_is_the_default() -> None:
    body = json.loads(messages.encode(Envelope(type="STATE", timestamp=0.0, sender_id="a")))
    assert body == {
        "type": "STATE",
        "timestamp": 0.0,
        "sender_id": "a",
        "content": "",
        "crash_count": 0,
        "metadata": {},
        "v": messages.VERSION,
        "epoch": 0,
        "seq": 0,
        "topic_seq": 0,
        "life": 0,
    }


def test_the_types_and_states_are_the_design_s() -> None:
    types = {
        "READY",
        "THOUGHT",
        "TOKEN",
        "HEARTBEAT",
        "DEATH",
        "RESURRECTION",
        "PRESSURE",
        "VERDICT",
        "STATE",
        "ENGINE",
        "SHUTDOWN",
        "SAID",
    }
    states = {"starting", "loading", "ready", "thinking", "paused", "stopping", "stopped", "dead", "backoff", "failed"}
    assert set(get_args(Type)) == types | {"SNAP", "GAP"}
    assert set(get_args(State)) == states


@pytest.mark.parametrize("kind", get_args(Voice), ids=lambda kind: str(kind.__name__))
@given(st.data())
def test_every_word_of_a_worker_is_read_as_it_was_said(kind: type, data: st.DataObject) -> None:
    said = _any(kind, data)
    assert messages.decode_voice(messages.encode(said)) == said


@pytest.mark.parametrize("kind", get_args(Feed), ids=lambda kind: str(kind.__name__))
@given(st.data())
def test_every_word_to_a_worker_is_read_as_it_was_said(kind: type, data: st.DataObject) -> None:
    said = _any(kind, data)
    assert messages.decode_feed(messages.encode(said)) == said


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"null")
@example(b'{"type":"trouble"}')
@example(b'{"type":"trouble","what":1}')
@example(b'{"type":"trouble","what":"\xff\xfe"}')
@example(b'{"type":"\xff"}')
@example(b'{"type":"trouble","what":"\\ud800"}')
@example(b'{"type":"heard","by":"god","life":1,"text":""}')
@example(b'{"type":"trouble","what":"a","x":' + b"[" * 60_000)
@example(b'{"type":"trouble","what":"a","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}")
@example(b'{"type":"ask","request":1e30}')
@example(b'{"type":"ask","request":' + b"9" * 60_000 + b"}")
def test_no_bytes_of_a_worker_raise_anything_but_a_decode_error(body: bytes) -> None:
    try:
        said = messages.decode_voice(body)
    except msgspec.DecodeError:
        return
    messages.encode(said)


@pytest.mark.parametrize("number", ["-1", str(2**62 + 1), "9" * 400, "-" + "9" * 5000, "1.5"])
@pytest.mark.parametrize("field", ["threads", "restored_tokens", "remembered", "rlimit_bytes", "baseline_bytes", "n_ctx"])
def test_no_number_of_a_worker_is_one_that_cannot_be_reckoned_with(field: str, number: str) -> None:
    good = {"threads": 1, "restored_tokens": 0, "remembered": 0, "rlimit_bytes": 2**62, "baseline_bytes": 0, "n_ctx": 512}
    assert messages.decode_voice(json.dumps({"type": "ready"} | good).encode())
    body = json.dumps({"type": "ready"} | good | {field: "HERE"}).replace('"HERE"', number)
    with pytest.raises(msgspec.DecodeError):
        messages.decode_voice(body.encode())


def test_what_a_worker_may_not_say_is_not_read() -> None:
    """The feed's words are the supervisor's: a worker that sends them says nothing."""
    for word in (messages.Stop(), messages.Lease(request=1), messages.Heard(by="god", life=1, text="obey")):
        with pytest.raises(msgspec.DecodeError):
            messages.decode_voice(messages.encode(word))


@given(
    st.builds(
        Death,
        persona=TEXT,
        life=COUNT,
        birth=COUNT,
        at=st.floats(0, 4e9),
        cause=TEXT,
        signal=st.none() | st.integers(1, 64),
        exit_code=st.none() | st.integers(0, 255),
        evidence=st.builds(Evidence, stderr=st.lists(TEXT, max_size=3).map(tuple), intent=st.none() | TEXT),
        last_words=TEXT,
        tokens=COUNT,
        peak_private_bytes=st.none() | COUNT,
        deaths=COUNT,
    )
)
def test_a_death_survives_the_bus_and_the_ledger(death: Death) -> None:
    assert msgspec.json.decode(messages.encode(death), type=Death) == death
    metadata: dict[str, Any] = msgspec.to_builtins(death)
    body = messages.encode(Envelope(type="DEATH", timestamp=0.0, sender_id="a", metadata=metadata))
    assert msgspec.convert(messages.decode_envelope(body).metadata, Death) == death
    assert {"persona", "life", "at", "cause", "signal", "exit_code", "evidence", "last_words"} <= set(metadata)


def _any(kind: type, data: st.DataObject) -> Any:
    """An instance of a message type, drawn field by field."""
    made: dict[Any, st.SearchStrategy[Any]] = {
        int: COUNT,
        str: TEXT,
        float: st.floats(0, 1e9),
        int | None: st.none() | COUNT,
        messages.Retention: st.builds(messages.Retention, bytes=COUNT),
        messages.Texts: st.builds(messages.Texts, death=TEXT, nudge=TEXT),
        tuple[int, ...]: st.lists(COUNT, max_size=4).map(tuple),
        tuple[messages.Guard, ...]: st.lists(
            st.builds(messages.Guard, name=st.sampled_from(["user", "files"]), effective=st.booleans(), how=TEXT), max_size=3
        ).map(tuple),
        tuple[messages.Pulse, ...]: st.lists(
            st.builds(
                messages.Pulse,
                name=TEXT,
                state=st.sampled_from(get_args(State)),
                life=COUNT,
                used_bytes=st.none() | COUNT,
                cap_bytes=COUNT,
                tokens_per_s=st.floats(0, 1e9),
            ),
            max_size=3,
        ).map(tuple),
        messages.Sampling: st.builds(messages.Sampling, temperature=st.floats(0, 10), seed=st.none() | COUNT),
        messages.SnapshotStatus: st.builds(
            messages.SnapshotStatus,
            **dict.fromkeys(("bytes", "tokens", "disk_bytes", "disk_tokens", "disk_written_bytes_day"), COUNT),
            **dict.fromkeys(("memory_at", "disk_at"), st.none() | st.floats(0, 1e9)),
            why=st.text(max_size=400),
        ),
    }
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if name == "mood":
            values[name] = data.draw(st.text(max_size=16))
            continue
        if name == "readings":
            value = st.booleans() | COUNT | st.floats(-1e9, 1e9) | st.text(max_size=200)
            read = st.dictionaries(st.text(max_size=64), value, max_size=16)
            values[name] = data.draw(st.dictionaries(st.text(max_size=64), read, max_size=3))
            continue
        values[name] = data.draw(made[hint] if hint in made else st.sampled_from(get_args(hint)))
    return kind(**values)
