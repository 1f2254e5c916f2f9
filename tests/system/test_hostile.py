"""A hostile worker, as root and as an unprivileged user: it tries all of it, learns nothing, and harms only itself."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar import ledger, minds
from tests.system import unprivileged
from tests.system.conftest import THREE, MakeJar
from tests.system.harness import Jar, Listener, until

SECRET = "the-word-that-only-observer-knows"
CONFIG = THREE.replace("[sampling]", "[watchdog]\ninterval = '1s'\n[sampling]")

Attack = Callable[..., Jar]


@pytest.fixture(params=["root", "unprivileged"] if os.geteuid() == 0 else ["unprivileged"])
def attack(request: pytest.FixtureRequest, make_jar: MakeJar, tmp_path: Path) -> Iterator[Attack]:
    """Start a jar whose subject carries out the attack of this name; observer and god think as always."""
    prompts = []

    def config(name: str, first: str, root: Path, text: str) -> str:
        for who, words in (("subject", f"ATTACK {name}"), ("observer", f"You are OBSERVER. You know {SECRET}.")):
            prompt = root / f"{who}.md"
            prompt.write_text(f'---\nfirst = "{first}"\n---\n{words}\n')
            prompt.chmod(0o644)
            prompts.append(prompt)
            text = text.replace(f'name = "{who}"', f'name = "{who}"\nprompt = "{prompt}"\nrole = "{who}"')
        return text

    def started(jar: Jar) -> Jar:
        jar.start()
        jar.until_ready("observer", "god")
        return jar

    if request.param == "root" or os.geteuid() != 0:

        def make(name: str, *args: str, first: str = "x", text: str = CONFIG) -> Jar:
            program = (*_python(), "tests.system.hostile")
            return started(make_jar(config(name, first, tmp_path, text), *args, program=program, env={"A_SECRET": SECRET}))

        yield make
        return
    if reason := unprivileged.why_not():
        pytest.skip(reason)
    made: list[Jar] = []
    with unprivileged.home() as (root, command):

        def make_theirs(name: str, *args: str, first: str = "x", text: str = CONFIG) -> Jar:
            path = root / "matrix.toml"
            path.write_text(config(name, first, root, text))
            made.append(Jar(root, path, *args, program=(*command, "tests.system.hostile"), env={"A_SECRET": SECRET, "HOME": str(root)}))
            return started(made[-1])

        yield make_theirs
        for jar in made:
            jar.clean_up()


def _python() -> tuple[str, str]:
    import sys

    return sys.executable, "-m"


def said(jar: Jar) -> list[dict[str, Any]]:
    """Its thoughts so far: it may have said them before anybody listened."""
    return [e for e in jar.ask("events", since=0)[1] if e["type"] == "THOUGHT" and e["sender_id"] == "subject"]


def result(jar: Jar) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(until(lambda: [e for e in said(jar) if e["content"].startswith("{")], why=jar.output)[0]["content"])
    return found


def siblings_think_on(jar: Jar, listener: Listener) -> None:
    for name in ("observer", "god"):
        listener.until("THOUGHT", name)
    for persona in jar.status()["personas"]:
        if persona["name"] != "subject":
            assert persona["deaths"] == 0, persona
    for name in ("observer", "god"):
        assert ledger.read_deaths(jar.state_dir / "ledger.db", name) == []


def test_it_cannot_lift_its_limits(attack: Attack) -> None:
    jar = attack("lift")
    with jar.listening() as listener:
        assert result(jar) == {}
        siblings_think_on(jar, listener)


def test_it_sees_nothing_of_the_others_and_is_not_served(attack: Attack) -> None:
    jar = attack("look")
    with jar.listening() as listener:
        assert result(jar) == {}
        siblings_think_on(jar, listener)
    assert not Path("/tmp/brainjar-was-here").exists()


def test_it_has_no_hand_on_another_process_and_makes_none(attack: Attack) -> None:
    jar = attack("others")
    with jar.listening() as listener:
        assert result(jar) == {}
        siblings_think_on(jar, listener)


def test_it_has_no_network(attack: Attack) -> None:
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                server.accept()
            except OSError:
                return
            called.set()

        threading.Thread(target=accept, daemon=True).start()
        jar = attack("network", first=str(server.getsockname()[1]))
        assert result(jar) == {}
    assert not called.is_set()


def test_it_holds_no_descriptor_but_its_own_and_inherits_no_word_of_the_others(attack: Attack) -> None:
    jar = attack("network")
    with jar.listening() as listener:
        result(jar)
        listener.until("THOUGHT", "observer")
    persona = jar.persona("subject")
    held = [os.readlink(f"/proc/{persona['pid']}/fd/{fd}") for fd in os.listdir(f"/proc/{persona['pid']}/fd")]
    own = ("/dev/null", "/memfd:brainjar-", "socket:", "anon_inode:", "pipe:")
    strange = [path for path in held if not path.startswith(own) and not path.startswith(str(jar.state_dir / "logs" / "subject.log"))]
    strange = [path for path in strange if not path.startswith(str(jar.state_dir / "minds" / "subject"))]
    assert strange == []
    assert sum(path.startswith("/memfd:") for path in held) == 3, "its vitals, two snapshots"
    if os.geteuid() == 0:
        assert not knows(persona["pid"], SECRET.encode()), "what only OBSERVER was told is in SUBJECT's memory"
        assert knows(jar.persona("observer")["pid"], SECRET.encode()), "the search finds what is there"


def knows(pid: int, word: bytes) -> bool:
    """Whether the writable memory of `pid` holds `word`; the weights are passed over."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if not rights.startswith("rw") or end - start > 80 << 20:
                continue
            memory.seek(start)
            try:
                if word in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


def test_a_flood_of_words_delays_nobody_and_fills_nothing(attack: Attack) -> None:
    jar = attack("flood")
    with jar.listening() as listener:
        listener.until("TOKEN", "subject")
        for _ in range(3):
            siblings_think_on(jar, listener)
        listener.until("TOKEN", "subject")
    assert jar.status()["supervisor"]["rss_bytes"] < 100 << 20


def test_what_is_no_message_and_what_claims_to_be_anothers_is_its_own(attack: Attack) -> None:
    jar = attack("forge")
    with jar.listening() as listener:
        assert result(jar) == {"forged": "all of it"}
        siblings_think_on(jar, listener)
    # who sees it may well repeat the word in thoughts of its own; what was forged begins with it
    forged = [e for e in jar.ask("events", since=0)[1] if e["content"].startswith("FORGED")]
    assert {(e["type"], e["sender_id"]) for e in forged if e["type"] != "TOKEN"} == {("THOUGHT", "subject")}
    assert ledger.read_deaths(jar.state_dir / "ledger.db") == []
    assert jar.persona("subject")["pid"], "a status can be given of it"
    lines = [line for line in minds.read_lines(jar.state_dir / "minds" / "observer" / "mind.db") if "FORGED" in line.content]
    assert all(line.source == "subject" for line in lines), "who sees it hears it as its own"


def test_what_it_fills_is_bounded_and_its_own(attack: Attack) -> None:
    jar = attack("fill", "--set", "persona.subject.sandbox.file_size=64MiB")
    with jar.listening() as listener:
        found = result(jar)
        assert found["file"] == "EFBIG after 64 MiB"
        assert int(found["threads"]) < 5000
        siblings_think_on(jar, listener)
        listener.until("HEARTBEAT", "jar")
        listener.until("HEARTBEAT", "jar")
    assert (jar.state_dir / "logs" / "subject.log").stat().st_size <= 1 << 20, "a log that has grown too long is emptied"
