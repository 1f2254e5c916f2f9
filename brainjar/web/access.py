"""Who may look, and who may act: the token, the password and where they are kept, sessions, and how often somebody may be wrong. Pure
but for the files.

The token is a random secret in a file of its owner alone. It, or the password where somebody has set one, is exchanged for a session: a
signed name in a cookie that no script sees and no other site can make a browser send. Nothing of either is ever logged. What is compared,
is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from brainjar.errors import BrainjarError, UsageError

By = Literal["token", "password"]
TOKEN, PASSWORD = "web-token", "web-password"
"""Files in the state directory."""
TOKEN_BYTES: Final = 32
SHORTEST: Final = 12
"""Characters of a password."""
SESSION_S: Final = 12 * 3600.0
"""How long a session lasts that is not used: then it has to be given anew."""
RENEWED_S: Final = 3600.0
"""One that is older, and used, is given anew."""
NAME_BYTES: Final = 16
ENDED: Final = 4096
"""Sessions that were ended before their time; of those before it is forgotten that they were."""
ATTEMPTS, WINDOW_S = 10, 60.0
"""So many wrong tokens from one peer in so long, and then none of its tokens is looked at until that is over."""
PEERS: Final = 4096
"""Of whom wrong attempts are remembered; the oldest are forgotten, and while that many are wrong at once everybody waits."""


class TokenError(BrainjarError):
    """The token cannot be had, or its file is not safe."""


def token(state_dir: Path) -> str:
    """The jar's; made where there is none. Raise `TokenError` for a file that others could have read or written."""
    path = state_dir / TOKEN
    try:
        return _read_token(path)
    except FileNotFoundError:
        return rotate(state_dir, only_new=True)


def rotate(state_dir: Path, *, only_new: bool = False) -> str:
    """Another one, in the place of that before. `only_new`: where somebody else has just made one, that one."""
    made = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        _write(state_dir / TOKEN, made, only_new=only_new)
    except FileExistsError:
        return _read_token(state_dir / TOKEN)
    return made


def set_password(state_dir: Path, password: str | None) -> None:
    """None: there is none from now on. Raise `TokenError`, and `UsageError` for one that is too short."""
    from argon2 import PasswordHasher

    path = state_dir / PASSWORD
    if password is None:
        path.unlink(missing_ok=True)
    elif len(password) < SHORTEST:
        raise UsageError(f"a password of {len(password)} characters: wanted at least {SHORTEST}")
    else:
        _write(path, PasswordHasher().hash(password))


def password_hash(state_dir: Path) -> str:
    """ "" where no password is set. Raise `TokenError` for a file that others could have read or written."""
    try:
        return _read(state_dir / PASSWORD, "brainjar web password")
    except FileNotFoundError:
        return ""


def is_password(given: str, hash: str) -> bool:
    """Takes a tenth of a second and 64 MiB, on purpose: argon2id."""
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return bool(hash) and PasswordHasher().verify(hash, given)
    except (VerificationError, InvalidHashError):
        return False


def _write(path: Path, text: str, *, only_new: bool = False) -> None:
    """Whole or not at all, for its owner alone. Raise FileExistsError where it may only be new and is not."""
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            if only_new:
                os.link(name, path)
                os.unlink(name)
            else:
                os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except FileExistsError:
        raise
    except OSError as error:
        raise TokenError(f"{path}: it cannot be written: {error.strerror}") from None


def _read_token(path: Path) -> str:
    found = _read(path, "brainjar web token --rotate")
    if len(found) < TOKEN_BYTES:
        raise TokenError(f"{path}: is no token: make another with brainjar web token --rotate")
    return found


def _read(path: Path, remedy: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TokenError(f"{path}: it cannot be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise TokenError(f"{path}: others may read or write it: make another with {remedy}")
        return file.read(1024).decode(errors="replace").strip()


def same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


class Secret:
    """What stands in a file of the state directory, as it is now: `read` is called again when that file is another one."""

    def __init__(self, path: Path, read: Callable[[], str]) -> None:
        self._path, self._read = path, read
        self._seen: tuple[int, int, int] | None = None
        self._known = ""

    def __call__(self) -> str:
        try:
            status = self._path.stat(follow_symlinks=False)
        except OSError:
            seen = None
        else:
            seen = status.st_ino, status.st_mtime_ns, status.st_mode
        if seen is None or seen != self._seen:
            self._known, self._seen = self._read(), seen
        return self._known


class Session(NamedTuple):
    by: By
    age_s: float
    """Since it was given."""


class Sessions:
    """Those who have shown the token, or the password. A session is by which, when it was given, and a random name, signed with a key that
    comes of what was shown: it outlives a restart of the dashboard, and ends with that token or password."""

    def __init__(self, keys: Mapping[By, Callable[[], str]], clock: Callable[[], float]) -> None:
        """`keys`: "" where nobody can have shown it. `clock`: Unix seconds."""
        self._keys, self._clock = keys, clock
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, by: By) -> str:
        said = f"{by}.{int(self._clock())}.{secrets.token_urlsafe(NAME_BYTES)}"
        return f"{said}.{self._signed(by, said)}"

    def known(self, session: str) -> Session | None:
        """None: it is none, or none any more."""
        said, _, signature = session.rpartition(".")
        by: By = "password" if said.startswith("password.") else "token"
        if not self._keys[by]() or not same(signature, self._signed(by, said)):
            return None
        _, given, name = said.split(".")
        age = self._clock() - int(given)
        return Session(by, max(0.0, age)) if -60.0 <= age <= SESSION_S and name not in self._ended else None

    def end(self, session: str) -> None:
        if self.known(session) is not None:
            self._ended[session.split(".")[2]] = None
            while len(self._ended) > ENDED:
                self._ended.popitem(last=False)

    def _signed(self, by: By, said: str) -> str:
        return hmac.new(b"brainjar session " + self._keys[by]().encode(), said.encode(errors="replace"), hashlib.sha256).hexdigest()


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
