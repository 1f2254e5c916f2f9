"""TOML read into structs, strictly, with errors for people: file, key, what was found, what is wanted.

A field of a struct is a table (a struct), a list of tables, or a value: `Annotated[type, Key(…)]`, with a `msgspec.Meta` for
bounds. `Key` says in words what is wanted there, so that every error about that field, whatever is wrong, says it.
"""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from brainjar.errors import UsageError

S = TypeVar("S", bound=msgspec.Struct)

_SHOWN: Final = 60
"""Characters of a found value that an error shows."""


class Key(NamedTuple):
    """What a field wants, in words; how it is read; whether this version acts on it."""

    wants: str
    parse: Callable[[Any], object] | None = None
    """Turns what the file holds into what the field's type checks; raises `ValueError`."""


def read_text(path: Path, limit: int, what: str) -> str:
    """The text of a file of at most `limit` bytes, a BOM dropped. Raise `UsageError`, naming it as `what`, if there is none."""
    name = plain(str(path))
    if path.is_fifo() and not str(path).startswith(("/dev/fd/", "/proc/self/fd/")):
        raise UsageError(f"{name}: {what} unreadable: found a pipe that nobody may ever write to, wanted a file")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise UsageError(f"{name}: {what} not found: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{name}: {what} unreadable: found a directory, wanted a file") from None
    except PermissionError:
        raise UsageError(f"{name}: {what} unreadable: permission denied; make it readable for this user") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {what} unreadable: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > limit:
        raise UsageError(f"{name}: {what} too large: found more than {limit} bytes, wanted at most {limit}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: {what} is not UTF-8: found byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8") from None


def parse(text: str, name: str) -> dict[str, Any]:
    """Raise `UsageError` with the line if `text` is not TOML."""
    try:
        return tomllib.loads(text + "\n")  # without a last line break an error there has no line number
    except (ValueError, RecursionError) as error:  # RecursionError: 1000 brackets; plain ValueError: an integer of 5000 digits
        raise UsageError(f"{plain(name)}: not TOML: {plain(str(error))}") from None


def show(value: object) -> str:
    """A value as an error shows it: on one line, of bounded length, nothing in it that a terminal would act on."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return "a list of tables"
    if isinstance(value, list | tuple):
        return plain("[" + ", ".join(show(item) for item in value[:_SHOWN]) + "]")
    return f'"{plain(value)}"' if isinstance(value, str) else plain(str(value) if not _huge(value) else "a number of too many digits")


def plain(text: str) -> str:
    """`text` as one bounded line without control characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: 4 * _SHOWN])
    return text if len(text) <= 4 * _SHOWN else text[: 4 * _SHOWN] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """ "did you mean …? (known: …)", as far as either can be said."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:_SHOWN], names, n=1, cutoff=0.5)
    known_names = f"known: {', '.join(names)}" if names else "none is known"
    return f'did you mean "{close[0]}"? ({known_names})' if close else known_names


class Source:
    """One TOML document, told apart from what the command line put over it."""

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        self.name = plain(name)
        self.table = table
        self._said: dict[str, tuple[str, str]] = {}  # key -> the option that set it, and its text

    def at(self, key: str) -> str:
        """Where `key` comes from, as errors begin: "matrix.toml: jar.name" or "--set jar.name"."""
        option = self.option(key)
        return f"{option} {plain(key)}" if option == "--set" else option or f"{self.name}: {plain(key)}"

    def option(self, key: str) -> str | None:
        """The option of the command line that set `key` or a table around it; None if the file did."""
        while key:
            if key in self._said:
                return self._said[key][0]
            key = key.rpartition(".")[0]
        return None

    def wrong(self, key: str, found: object, wanted: str) -> UsageError:
        return UsageError(f"{self.at(key)}: found {show(found)}, wanted {wanted}")

    def set(self, assignment: str) -> None:
        """Put `KEY=VALUE` over the document. VALUE is TOML if it can be read as that, else the text itself."""
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not all(key.split(".")):
            raise UsageError(f"--set {plain(assignment)}: wanted KEY=VALUE, such as persona.subject.memory=8GiB")
        try:
            table = tomllib.loads(f"v = {text}")
        except (ValueError, RecursionError):
            table = {}
        # A line break in VALUE must not smuggle in keys of its own.
        self.put(key, table["v"] if table.keys() == {"v"} else text, "--set", text)

    def put(self, key: str, value: object, option: str, text: str) -> None:
        """Set `key`. A table in a list of tables is found by its `name`, tables that are missing are made."""
        *tables, last = key.split(".")
        node: object = self.table
        path = ""
        for part in tables:
            parent, path = path, f"{path}.{part}".lstrip(".")
            if isinstance(node, dict):
                if part not in node:
                    node[part] = {}
                    self._said[path] = (option, text)
                node = node[part]
            else:
                node = self._named(node, part, parent, option, key)
        if isinstance(node, list) and all(isinstance(item, dict) for item in node):
            raise UsageError(f"{option} {plain(key)}: wanted a key of {plain(path)}, such as {plain(key)}.memory=8GiB")
        if not isinstance(node, dict):
            raise self.wrong(path, node, "a table")
        if last == "name" and "name" in node and tables[:-1] and isinstance(self._at(tables[:-1]), list):
            raise UsageError(f"{option} {plain(key)}: a name is what --set finds its table by; change it in {self.name}")
        node[last] = value
        self._said[key] = (option, text)

    def drop(self, key: str) -> None:
        """Take `key` out, if it is there."""
        *tables, last = key.split(".")
        table = self._at(tables)
        if isinstance(table, dict):
            table.pop(last, None)

    def _at(self, parts: list[str]) -> object:
        node: object = self.table
        for part in parts:
            if isinstance(node, list):
                node = next((item for item in node if isinstance(item, dict) and item.get("name") == part), None)
            else:
                node = node.get(part) if isinstance(node, dict) else None
        return node

    def _named(self, node: object, name: str, path: str, option: str, key: str) -> object:
        if not isinstance(node, list):
            raise self.wrong(path, node, "a table")
        named = {item["name"]: item for item in node if isinstance(item, dict) and isinstance(item.get("name"), str)}
        if name not in named:
            raise UsageError(f'{option} {plain(key)}: no {plain(path)} is named "{plain(name)}"; {nearest(name, named)}')
        return named[name]

    def read(self, cls: type[S], table: object, key: str = "") -> S:
        """The struct that `table`, found at `key`, describes. Raise `UsageError` for the first thing that is wrong."""
        if not isinstance(table, dict):
            raise self.wrong(key, table, "a table")
        fields = typing.get_type_hints(cls, include_extras=True)
        values: dict[str, object] = {}
        for name, found in table.items():
            path = f"{key}.{name}".lstrip(".")
            if name not in fields:
                raise UsageError(f"{self.at(path)}: unknown key; {nearest(name, fields)}")
            values[name] = self._field(fields[name], found, path)
        for field in msgspec.structs.fields(cls):
            hint = fields[field.name]
            if field.required and field.name not in values:
                raise UsageError(f"{self.name}: {plain(key)}: no {field.name}; wanted {_key(hint).wants}")
        return cls(**values)

    def _field(self, hint: Any, found: object, key: str) -> object:
        hint = _present(hint)
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return self.read(inner, found, key)
        item = typing.get_args(inner)[0] if typing.get_origin(inner) is tuple else None
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise self.wrong(key, found, f"[[{key}]] tables")
            return tuple(self.read(item, one, f"{key}.{_label(one, n)}") for n, one in enumerate(found, 1))
        return self._value(hint, found, key)

    def _value(self, hint: Any, found: object, key: str) -> object:
        # `--set persona.x.cpus=2` reads as a number where a text is wanted: both readings may be tried, the file's only one.
        said = self._said.get(key)
        wanted = _key(hint)
        for value in (found, said[1]) if said else (found,):
            try:
                value = wanted.parse(value) if wanted.parse else value
                return msgspec.convert(value, hint)
            except (ValueError, msgspec.ValidationError):
                continue
        raise self.wrong(key, found, wanted.wants)


def _present(hint: Any) -> Any:
    """`X` of `X | None`: TOML has no None, a field that may be None is one that may be left out."""
    arms = [arm for arm in typing.get_args(hint) if arm is not NoneType]
    return arms[0] if NoneType in typing.get_args(hint) else hint


def _key(hint: Any) -> Key:
    return next((extra for extra in getattr(_present(hint), "__metadata__", ()) if isinstance(extra, Key)), Key("a value"))


def _label(table: Mapping[str, object], number: int) -> str:
    name = table.get("name")
    return name if isinstance(name, str) and name and len(name) <= _SHOWN and "." not in name else f"#{number}"


def _huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 4096
