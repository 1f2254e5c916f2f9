"""The record of minds as a file of lines that other programs read: JSONL, one object a line.

A persona begins with a `Head`, its lines follow, oldest first, as `Entry`. What is written of a mind and read again is the same mind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Final

import msgspec

from brainjar.errors import UsageError
from brainjar.minds import Kind, Line
from brainjar.readers import Value
from brainjar.schema import Name
from brainjar.tables import plain

VERSION: Final = 1
LINE_BYTES: Final = 64 * 1024 * 1024


class Head(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="mind"):
    v: int = VERSION
    persona: Name
    told_deaths: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    """How many of its deaths it has been told of."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="line"):
    id: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    at: float
    persona: Name
    life: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    kind: Kind
    source: str = msgspec.field(name="from")
    content: str
    readings: dict[str, dict[str, Value]] = {}

    @property
    def line(self) -> Line:
        return Line(self.id, self.at, self.life, self.kind, self.source, self.content, self.readings)


_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Head | Entry] = msgspec.json.Decoder(Head | Entry)


def head(persona: str, told_deaths: int) -> bytes:
    return _encode(Head(persona=persona, told_deaths=told_deaths)) + b"\n"


def entry(persona: str, line: Line) -> bytes:
    facts = {name: getattr(line, name) for name in line.__struct_fields__}
    one = Entry(persona=persona, **facts)
    return _encode(one) + b"\n"


def read(file: BinaryIO, name: str) -> Iterator[Head | Entry]:
    """What stands in it, checked as a whole: each persona once, its lines behind its head, their ids ascending.

    Raise `UsageError`, which names the line.
    """
    heads: set[str] = set()
    persona, newest = "", 0
    for number, body in enumerate(_lines(file), 1):

        def wrong(what: str, number: int = number) -> UsageError:
            return UsageError(f"{plain(name)}: line {number}: {what}; nothing is imported")

        if len(body) > LINE_BYTES:
            raise wrong(f"longer than {LINE_BYTES} bytes")
        try:
            one = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise wrong(f"is no line of an export ({plain(str(error))})") from None
        if isinstance(one, Head):
            if one.v != VERSION:
                raise wrong(f"is of version {one.v}, and this brainjar reads {VERSION}")
            if one.persona in heads:
                raise wrong(f"{one.persona} has begun already")
            persona, newest = one.persona, 0
            heads.add(persona)
        else:
            if one.persona != persona:
                raise wrong(f"a line of {one.persona}, whose head is not before it")
            if one.id <= newest:
                raise wrong(f"its id {one.id} does not follow {newest}")
            newest = one.id
        yield one


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while body := file.readline(LINE_BYTES + 2):
        if body.strip():
            yield body


# ── for people ──


def markdown(persona: str, line: Line, before: Line | None) -> str:
    """A line as Markdown, behind a heading where it begins a life."""
    parts = [f"## {persona}, life {line.life}\n\n"] if before is None or before.life != line.life else []
    who = "" if line.kind == "thought" else f"*{line.kind}, from {_plain(line.source)}:* "
    quoted = "\n".join(f"> {one}" for one in _plain(line.content).split("\n"))
    return "".join(parts) + (f"{who}\n\n{quoted}\n\n" if who else f"{_plain(line.content)}\n\n")


_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")


def _plain(text: str) -> str:
    """Nothing that Markdown, or a terminal, would act on."""
    return _MARKUP.sub(r"\\\1", "".join(c if c.isprintable() or c == "\n" else "�" for c in text))
