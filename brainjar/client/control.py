"""Asking a running jar, over its control socket: one JSON object a line, there and back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from brainjar.bus import CONTROL
from brainjar.client.find import Jar, raise_for
from brainjar.errors import BrainjarError, NoJar
from brainjar.messages import Envelope, Status, encode

ANSWER_S: Final = 5.0
"""For what the supervisor answers from its head: status, events."""
EFFECT_S: Final = 900.0
"""For what it answers when the effect has come: kill, restart, stop. A restart may have to load a large model first."""
_CHUNK: Final = 256 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an answer: an event, or the last."""

    event: Envelope | None = None
    done: bool = False
    exit: int = 0
    say: str = ""
    status: Status | None = None
    more: tuple[int, int] | None = None
    """The answer goes on after this (epoch, number): ask again."""


_decoder = msgspec.json.Decoder(Answer)


class Request:
    """One request under way. `fileno` may be polled; `read` never waits."""

    def __init__(self, jar: Jar, cmd: str, **more: Any) -> None:
        """Raise `NoJar` if nobody listens, `BrainjarError` if nobody takes the request."""
        self.jar = jar
        self._in = b""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ANSWER_S)
        try:
            self._sock.connect(str(jar.runtime_dir / CONTROL))
            self._sock.sendall(encode({"cmd": cmd, **more}) + b"\n")
        except (TimeoutError, BlockingIOError):
            self._sock.close()
            raise self._silent(ANSWER_S) from None
        except BrokenPipeError:
            pass  # refused before it was read: why is in the answer
        except (FileNotFoundError, ConnectionError):
            self._sock.close()
            raise NoJar(f"jar {jar.jar} does not run any more: nobody listens on {jar.runtime_dir / CONTROL}") from None
        except OSError as error:
            self._sock.close()
            raise BrainjarError(f"jar {jar.jar}: {jar.runtime_dir / CONTROL} cannot be reached: {error.strerror}") from None

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self) -> list[Answer]:
        """What has come. Raise `BrainjarError` when the jar ends before its last word, or talks nonsense."""
        self._sock.setblocking(False)
        return self._receive()

    def wait(self, seconds: float) -> Iterator[Answer]:
        """Every line of the answer, the last included; `seconds` is for each."""
        self._sock.settimeout(seconds)
        try:
            while True:
                try:
                    answers = self._receive()
                except TimeoutError:
                    raise self._silent(seconds) from None
                for answer in answers:
                    yield answer
                    if answer.done:
                        return
        finally:
            self.close()

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> list[Answer]:
        try:
            chunk = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return []
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise BrainjarError(f"jar {self.jar.jar} ended before it answered")
        *lines, self._in = (self._in + chunk).split(b"\n")
        try:
            return [_decoder.decode(line) for line in lines if line]
        except msgspec.DecodeError as error:
            raise BrainjarError(f"jar {self.jar.jar} (pid {self.jar.pid}) gave an answer that is none: {error}") from None

    def _silent(self, seconds: float) -> BrainjarError:
        return BrainjarError(f"jar {self.jar.jar} (pid {self.jar.pid}) has not answered within {seconds:g} s; is its supervisor stopped?")


def ask(jar: Jar, cmd: str, **more: Any) -> str:
    """Have the jar do something, wait for its effect, and return what it says about it. Raise what its exit status stands for."""
    say = ""
    for answer in Request(jar, cmd, **more).wait(EFFECT_S):
        if answer.done:
            raise_for(answer.exit, answer.say)
            say = answer.say
    return say


def status(jar: Jar) -> Status:
    for answer in Request(jar, "status").wait(ANSWER_S):
        raise_for(answer.exit, answer.say)
        if answer.status is not None:
            return answer.status
    raise BrainjarError(f"jar {jar.jar} (pid {jar.pid}) answered without its status; is it of another version ({jar.version})?")


def events(jar: Jar, epoch: int | None, since: int, wait_s: float = ANSWER_S) -> Iterator[Envelope]:
    """The events after `since` that anybody still holds, oldest first; a GAP where nobody does. `epoch` None: the running one."""
    page: tuple[int | None, int] | None = (epoch, since)
    while page is not None:
        asked, page = page, None
        for answer in Request(jar, "events", epoch=asked[0], since=asked[1]).wait(wait_s):
            if answer.done:
                raise_for(answer.exit, answer.say)
                page = answer.more
            elif answer.event is not None:
                yield answer.event
