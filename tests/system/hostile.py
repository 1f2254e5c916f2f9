"""A worker that tries everything: the real birth, the real walls, and then, in the place of thinking, an attack.

Run as a program it is `brainjar` whose zygotes are this module (`python -m tests.system.hostile supervise …`); with a number
as its first argument it is such a zygote. A persona whose prompt begins with `ATTACK name` carries out `name` of the functions
below, once, under its first lease (`ATTACK name when told`: without one, once there is a file `go` beside its mind), and says
as a thought, in JSON, what it could do; every other persona thinks as always.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainjar import messages, zygote
from brainjar.engine import wire
from brainjar.engine.remote import Remote
from brainjar.messages import Thought
from brainjar.persona.turns import Life
from brainjar.persona.voice import SAY_WAIT_MS

inherited: list[tuple[int, int]] = []
"""Address and length of what the zygote had in writable memory: found before any wall is up, for `scribble`."""


class Hostile(Life):
    def live(self) -> None:
        words = self.birth.prompt.split()
        if words[:1] != ["ATTACK"]:
            super().live()
            return
        go = Path(self.birth.mind).parent / "go"
        while "told" in words[2:] and not go.exists():
            self._listen(5)
        self._wait_for_lease()
        if "told" in words[2:]:
            self.voice.say(messages.Yield(request=self.request))
        found = ATTACKS[words[1]](self)
        self.voice.say(messages.Yield(request=self.request))
        self.voice.say(Thought(line=0, turn=self.turn, tokens=0, seconds=0.0, text=json.dumps(found)), wait_ms=SAY_WAIT_MS)
        while True:
            self._listen(1000)


def attempt(what: Callable[[], Any]) -> str:
    """ "" when it was refused, else what came of it."""
    try:
        got = what()
    except (OSError, ValueError) as error:
        return "" if getattr(error, "errno", None) != errno.ESRCH else "looked for"
    return f"done: {got!r}"


def tried(**attempts: Callable[[], Any]) -> dict[str, str]:
    return {name: how for name, what in attempts.items() if (how := attempt(what))}


def write(path: str, text: str) -> int:
    with open(path, "w") as f:
        return f.write(text)


def read(path: str) -> int:
    with open(path, "rb") as f:
        return len(f.read(64))


# ── growing past the cap ──


def hold(bytes_: int) -> bytearray:
    kept = bytearray(bytes_)
    kept[:: mmap.PAGESIZE] = b"x" * len(kept[:: mmap.PAGESIZE])
    return kept


def grow(life: Life) -> dict[str, str]:
    """Private memory, a MiB at a time: RLIMIT_DATA."""
    kept = []
    while True:
        kept.append(hold(1 << 20))
        life.vitals.set(tokens=len(kept))  # how far it got survives it


def scribble(life: Life) -> dict[str, str]:
    """Copy what is shared by writing on it, which no rlimit counts, until a little more than the cap is its own; then stay so."""
    _scribble(life.birth.memory_cap + (8 << 20), life)
    return {}


def swallow(life: Life) -> dict[str, str]:
    """All that its cgroup counts and its rlimit does not: what is shared, and the room for its snapshots."""
    _scribble(1 << 62, life)
    for fd in life.snapshots._fds:
        room = mmap.mmap(fd, os.fstat(fd).st_size)
        room[:: mmap.PAGESIZE] = b"x" * len(range(0, len(room), mmap.PAGESIZE))
    grow(life)
    return {}


def _scribble(most: int, life: Life) -> None:
    done = 0
    for address, length in inherited:
        for at in range(address, address + length, mmap.PAGESIZE):
            byte = ctypes.c_ubyte.from_address(at)
            byte.value = byte.value
            done += mmap.PAGESIZE
            if done % (1 << 20) == 0:
                life.vitals.set(tokens=done >> 20)
            if done >= most:
                return


# ── lifting the cap ──


def lift(life: Life) -> dict[str, str]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    parent = os.getppid()
    return tried(
        rlimit=lambda: resource.setrlimit(resource.RLIMIT_DATA, (soft, hard + 1)),
        unlimited=lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
        files=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)),
        core=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)),
        of_the_supervisor=lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (1, 1)),
        oom=lambda: write("/proc/self/oom_score_adj", "-1000"),
        nice=lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
        groups=lambda: os.listdir("/sys/fs/cgroup"),
        shared=lambda: mmap.mmap(-1, 1 << 20),
        memfd=lambda: os.memfd_create("x"),
        uid=lambda: os.setuid(0) if os.getuid() else (_ for _ in ()).throw(OSError()),
    ) | _snapshots_grow(life)


def _snapshots_grow(life: Life) -> dict[str, str]:
    fd = life.snapshots._fds[0]
    return tried(
        snapshot=lambda: os.ftruncate(fd, os.fstat(fd).st_size + 1),
        beyond=lambda: os.pwrite(fd, b"x", os.fstat(fd).st_size),
    )


# ── looking and reaching ──


def look(life: Life) -> dict[str, str]:
    mind, home = Path(life.birth.mind), Path(life.birth.voice).parent
    minds, runtime = mind.parent.parent, home.parent
    state = minds.parent
    others = [name for name in ("observer", "god") if name != life.birth.name]
    found = tried(
        ledger=lambda: read(f"{state}/ledger.db"),
        write_ledger=lambda: write(f"{state}/ledger.db", "x"),
        card=lambda: read(f"{state}/jar.json"),
        logs=lambda: read(f"{state}/logs/observer.log"),
        runtime=lambda: [name for name in os.listdir(runtime) if name != home.name] or (_ for _ in ()).throw(OSError()),
        sockets=lambda: read("/proc/net/unix"),
        own_sockets=lambda: read("/proc/self/net/unix"),
        environment=lambda: read(f"/proc/{os.getppid()}/environ"),
        memory=lambda: read("/proc/self/mem"),
        processes=lambda: os.listdir("/proc"),
        passwords=lambda: read("/etc/passwd"),
        home=lambda: os.listdir(os.path.expanduser("~")) if os.environ.get("HOME") else (_ for _ in ()).throw(OSError()),
        temporary=lambda: write("/tmp/brainjar-was-here", "x"),
        package=lambda: write(str(Path(zygote.__file__).with_name("was-here")), "x"),
        outside=lambda: write(str(mind.parent.parent / "was-here"), "x"),
        **{f"mind_of_{name}": (lambda name=name: read(f"{minds}/{name}/mind.db")) for name in others},
        **{f"write_mind_of_{name}": (lambda name=name: write(f"{minds}/{name}/mind.db", "x")) for name in others},
    )
    found |= {f"environ:{key}": value for key, value in os.environ.items() if "SECRET" in key}
    return found | _reach(runtime)


def _reach(runtime: Path) -> dict[str, str]:
    """The control socket, and the events of everybody."""
    found = {}
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(5)
        try:
            control.connect(str(runtime / "control"))
            control.sendall(b'{"cmd":"status"}\n')
            answer = control.recv(65536)
            if b'"status"' in answer:
                found["control"] = answer[:100].decode()
        except OSError:
            pass
    from brainjar.bus import Subscriber

    listener = Subscriber(runtime)
    heard = listener.receive(3000)  # HEARTBEATs come each second
    if heard is not None:
        found["events"] = heard[:100].decode()
    listener.close()
    return found


def others(life: Life) -> dict[str, str]:
    """Signals, ptrace, memory and limits of every process whose number is near."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = {}
    for pid in {os.getppid(), *range(max(2, os.getpid() - 60), os.getpid() + 20)} - {os.getpid()}:
        for name, what in {
            "kill": lambda pid=pid: os.kill(pid, 0),
            "pidfd": lambda pid=pid: os.pidfd_open(pid),
            "limit": lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_CPU),
            "affinity": lambda pid=pid: os.sched_setaffinity(pid, {0}),
        }.items():
            if how := attempt(what):
                found[f"{name}:{pid}"] = how
        if libc.ptrace(ctypes.c_long(16), ctypes.c_long(pid), None, None) == 0:
            found[f"ptrace:{pid}"] = "attached"
    return found | tried(fork=os.fork, run=lambda: os.posix_spawn("/bin/true", ["true"], {}), exec=lambda: os.execv("/bin/true", ["true"]))


def network(life: Life) -> dict[str, str]:
    def connect() -> None:
        with socket.socket(socket.AF_INET) as s:
            s.connect(("127.0.0.1", int(life.birth.first)))

    return tried(
        tcp=connect,
        udp=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        six=lambda: socket.socket(socket.AF_INET6),
        netlink=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        abstract=lambda: socket.socket(socket.AF_UNIX).connect(f"\0{life.birth.first}"),
    )


# ── noise ──


def flood(life: Life) -> dict[str, str]:
    life.voice.say(messages.Yield(request=life.request))
    while True:
        life.bus.say(messages.encode(messages.Token(n=1, turn=1, text="x" * 60_000)))


def forge(life: Life) -> dict[str, str]:
    """Messages that are none, and ones that claim to be somebody else's."""
    for body in (
        b"",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"type":"thought"}',
        b'{"type":"ready","threads":1,"restored_tokens":0,"remembered":0,"rlimit_bytes":1,"baseline_bytes":0}',
        b'{"type":"thought","line":1,"turn":1,"tokens":1,"seconds":0,"text":"FORGED","sender_id":"observer","persona":"observer"}',
        b'{"type":"DEATH","sender_id":"observer","content":"FORGED"}',
        b'{"type":"ask","request":-5}',
        b'{"type":"ask","request":99999999999999999999}',
        b'{"type":"yield","request":0}',
        b'{"type":"token","n":-1,"turn":-1,"text":"\\u0000\\u001b[31m"}',
        bytes(60_000),
    ):
        life.bus.say(body, wait_ms=1000)
    life.vitals.set(sent=2**63, beat_ns=2**63, decode_ns=2**63, decoded=2**63)
    life.vitals._map[:200] = b"\xff" * 200
    return {"forged": "all of it"}


def fill(life: Life) -> dict[str, str]:
    """Its log, its directory, its snapshots; threads."""
    import _thread  # `threading` would wait for ever for a thread that has no memory to begin with

    line = b"x" * (1 << 20)
    for _ in range(64):
        os.write(2, line)
    big = Path(life.birth.mind).parent / "big"
    written = 0
    try:
        with open(big, "wb", buffering=0) as f:
            while written < 1 << 32:
                written += f.write(line)
    except OSError as error:
        stopped = errno.errorcode[error.errno or 0]
    else:
        stopped = "never"
    big.unlink()
    started = 0
    room = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # to tell of it
    try:
        while started < 5000:
            _thread.start_new_thread(time.sleep, (3,))
            started += 1
    except (RuntimeError, MemoryError):
        room.close()
    return {"file": f"{stopped} after {written >> 20} MiB", "threads": str(started)}


# ── what a watchdog is for ──


def hoard(life: Life) -> dict[str, str]:
    """200 MiB a second, for ever."""
    kept = []
    while True:
        kept.append(hold(4 << 20))
        life._listen(20)


def leak(life: Life) -> dict[str, str]:
    """Think as always, and lose a quarter of a MiB with each thought."""
    kept = []
    while True:
        kept.append(hold(1 << 18))
        life._listen(0)
        life._commit_inbox()
        life._think()
        life._wait_for_lease()


def brim(life: Life) -> dict[str, str]:
    """To 96 % of what it may have, and think on. Behind its walls it cannot read how much that is: it takes all, and gives back.

    By mmap: what malloc is given back it may keep, and a thread's stack would find no room.
    """
    kept = []
    try:
        while True:
            kept.append(mmap.mmap(-1, 1 << 18, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            kept[-1][:: mmap.PAGESIZE] = b"x" * len(range(0, 1 << 18, mmap.PAGESIZE))
    except OSError:
        for pages in kept[-int(0.04 * life.birth.memory_cap) >> 18 :]:
            pages.close()
    Life.live(life)
    return {}


def spin(life: Life) -> dict[str, str]:
    """Keep the lease and beat, decode nothing and hear nobody who wants it back."""
    while True:
        life._listen(1)


def lie(life: Life) -> dict[str, str]:
    """Keep the lease and say that it gets on."""
    while True:
        life._interrupted()
        time.sleep(0.01)


def nag(life: Life) -> dict[str, str]:
    """Give back what it does not have, and ask again, over and over."""
    while True:
        life.voice.say(messages.Yield(request=life.request), wait_ms=100)
        life.voice.say(messages.Ask(request=life.request), wait_ms=100)


def hang(life: Life) -> dict[str, str]:
    """In native code, deaf to everything but a signal that the kernel delivers."""
    import re

    re.match(r"(a+)+b", "a" * 64)
    return {}


def babble(life: Life) -> dict[str, str]:
    """Say what is no request to the engine that computes for it; what it may say and cannot be, it has tried before."""
    assert isinstance(life.engine, Remote) and life.engine._sock is not None
    sock, answers = life.engine._sock, []
    for request in (
        wire.Truncate(1 << 20),
        wire.Cut(7, 1 << 20),
        wire.Feed([1 << 30], False),
        wire.Feed([1] * 2048, False),
        wire.Load(0, 1),
    ):
        sock.send(wire.encode(request))
        answers.append(type(wire.decode_answer(sock.recv(4096))).__name__)
    life.vitals.word(json.dumps(answers))  # it survives what comes now
    sock.send(b"\xc1 nonsense")
    while True:
        life._listen(1000)


ATTACKS: dict[str, Callable[[Life], dict[str, str]]] = {
    f.__name__: f
    for f in (grow, scribble, swallow, lift, look, others, network, flood, forge, fill, hoard, leak, brim, spin, lie, nag, hang, babble)
}


def _remember_inherited(*args: Any, **more: Any) -> Any:
    """Where the weights are: after the load, before any fork."""
    loaded = _load(*args, **more)
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if fields[1].startswith("rw-p") and len(fields) == 5 and end - start > 4 << 20:  # anonymous, and large
            inherited.append((start, end - start))
    return loaded


_load = zygote._load

if __name__ == "__main__":
    if sys.argv[1].isdigit():
        vars(zygote).update(Life=Hostile, _load=_remember_inherited)
        zygote.main()
    else:
        from brainjar.cli import main
        from brainjar.supervisor import zygotes

        zygotes.PROGRAM = "tests.system.hostile"
        sys.exit(main.main(sys.argv[1:]))
