"""Who may look, and who may act: the token and where it is kept, sessions, and how often somebody may be wrong. Pure but for the file.

The token is a random secret in a file of its owner alone. It is exchanged for a session: a random name in a cookie that no script sees and
no other site can make a browser send. Nothing of either is ever logged. What is compared, is compared in constant time.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from brainjar.errors import BrainjarError

FILE: Final = "web-token"
TOKEN_BYTES: Final = 32
SESSION_S: Final = 12 * 3600.0
"""How long a session lasts that is not used."""
SESSIONS: Final = 64
"""Most at a time; the one that was not used for longest goes."""
ATTEMPTS, WINDOW_S = 10, 60.0
"""So many wrong tokens from one peer in so long, and then none of its tokens is looked at until that is over."""
PEERS: Final = 4096
"""Of whom wrong attempts are remembered; the oldest are forgotten, and while that many are wrong at once everybody waits."""


class TokenError(BrainjarError):
    """The token cannot be had, or its file is not safe."""


def token(state_dir: Path) -> str:
    """The jar's; made where there is none. Raise `TokenError` for a file that others could have read or written."""
    path = state_dir / FILE
    try:
        return _read(path)
    except FileNotFoundError:
        return rotate(state_dir, only_new=True)


def rotate(state_dir: Path, *, only_new: bool = False) -> str:
    """Another one, in the place of that before. `only_new`: where somebody else has just made one, that one."""
    path = state_dir / FILE
    made = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        fd, name = tempfile.mkstemp(prefix=f".{FILE}-", dir=state_dir)  # 0600
        try:
            with os.fdopen(fd, "w") as file:
                file.write(made + "\n")
                file.flush()
                os.fsync(file.fileno())
            if only_new:
                os.link(name, path)
                os.unlink(name)
            else:
                os.replace(name, path)
        except FileExistsError:
            os.unlink(name)
            return _read(path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise TokenError(f"{path}: the token cannot be written: {error.strerror}") from None
    return made


def _read(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TokenError(f"{path}: the token cannot be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise TokenError(f"{path}: others may read or write the token: make another with brainjar web token --rotate")
        found = file.read(1024).decode(errors="replace").strip()
    if len(found) < TOKEN_BYTES:
        raise TokenError(f"{path}: is no token: make another with brainjar web token --rotate")
    return found


def same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


class Sessions:
    """Those who have shown the token: names that nobody can guess, each with when it was used last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: OrderedDict[str, float] = OrderedDict()

    def begin(self) -> str:
        name = secrets.token_urlsafe(TOKEN_BYTES)
        self._used[name] = self._clock()
        while len(self._used) > SESSIONS:
            self._used.popitem(last=False)
        return name

    def lives(self, name: str) -> bool:
        """Whether it is one; from now on it was used just now."""
        used, now = self._used.get(name), self._clock()
        if used is None:
            return False
        if now - used > SESSION_S:
            del self._used[name]
            return False
        self._used[name] = now
        self._used.move_to_end(name)
        return True

    def end(self, name: str) -> None:
        self._used.pop(name, None)

    def end_all(self) -> None:
        """The token is another one."""
        self._used.clear()


class Attempts:
    """How often each peer was wrong lately."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, peer: str) -> float:
        """How long nothing that this peer says is looked at; 0: it may try."""
        now = self._clock()
        self._forget(now)
        if peer not in self._wrong and len(self._wrong) >= PEERS:
            return WINDOW_S
        times = self._wrong.get(peer, [])
        return max(0.0, times[-ATTEMPTS] + WINDOW_S - now) if len(times) >= ATTEMPTS else 0.0

    def wrong(self, peer: str) -> None:
        times = self._wrong.setdefault(peer, [])
        times.append(self._clock())
        del times[:-ATTEMPTS]
        self._wrong.move_to_end(peer)

    def right(self, peer: str) -> None:
        self._wrong.pop(peer, None)

    def _forget(self, now: float) -> None:
        """Those whose last wrong attempt is long ago; they stand at the beginning."""
        while self._wrong:
            peer, times = next(iter(self._wrong.items()))
            if now - times[-1] <= WINDOW_S:
                return
            del self._wrong[peer]


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Whether a `Host` header names this dashboard, whatever its port: a page elsewhere whose name now leads here does not."""
    name = host.rsplit(":", 1)[0] if (not host.endswith("]") and host.count(":") <= 1) or (host.startswith("[") and "]:" in host) else host
    return name.strip("[]").casefold().rstrip(".") in allowed


def origin_allowed(origin: str | None, host: str) -> bool:
    """Whether a request that acts may come from a page of `origin`: from this one, or from a program, which names none."""
    if origin is None:
        return True
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.casefold() == host.casefold()
