"""Models of a hub, fetched from a stand-in for one on loopback by the real library: whole or not at all, and on from where it was."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from brainjar import fetching, hub, models
from brainjar.cli.main import main
from brainjar.fetching import FetchError
from brainjar.models import Entry, Hub
from tests.patience import PATIENCE_S

CONTENT = bytes(range(256)) * (32 << 12)
"""32 MiB: the library writes, and goes on behind, 10 MB at a time."""
COMMIT = "c" * 40
PATH = "/someone/a-model-GGUF/resolve/{}/model.gguf"


class StandIn(ThreadingHTTPServer):
    """One file of one repository. `cut`: bytes after which connections end, then no more; `refusal`: (status, the hub's word for it)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = self.stated = CONTENT
        self.cut: int | None = None
        self.cuts = 0
        self.refusal: tuple[int, str] | None = None
        self.ranges: list[str] = []
        self.etag: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range", ""))
        begin = int(re.sub(r"\D", "", self.headers.get("Range", "bytes=0-").split("-")[0]))
        body = self.server.content[begin:]
        if self.server.cut is not None and self.server.cuts:
            self.server.cuts -= 1
            self.answer(body, begin, send=self.server.cut)
            self.close_connection = True
            return
        self.answer(body, begin)

    def answer(self, body: bytes, begin: int = 0, send: int | None = None) -> None:
        server = self.server
        known = self.path in (PATH.format("main"), PATH.format(COMMIT))
        status, word = server.refusal or ((200, "") if known else (404, "EntryNotFound"))
        if status != 200:
            self.send_response(status)
            self.send_header("X-Error-Code", word)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{server.etag or hashlib.sha256(server.stated).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        length = len(body) if self.command == "GET" else len(server.stated)
        self.send_header("Content-Length", str(length))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{begin + length - 1}/{begin + length}")
        self.end_headers()
        self.wfile.write(body if send is None else body[:send])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINJAR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "models"


ENTRY = Entry(name="tiny", description="a file", licence="none", file="tiny.gguf", hub=Hub(repo="someone/a-model-GGUF", file="model.gguf"))


def silent(stage: fetching.Stage, done: int, total: int) -> None: ...


def left(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


def test_what_came_is_what_the_hub_says_and_its_word_is_kept(stand_in: StandIn, home: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert fetching.need(ENTRY) == fetching.Need(download_bytes=len(CONTENT), disk_bytes=len(CONTENT))
    assert fetching.fetch(ENTRY, lambda *now: seen.append(now)).read_bytes() == CONTENT
    assert left(home) == ["tiny.gguf", "tiny.gguf.pin.json"]
    assert json.loads((home / "tiny.gguf.pin.json").read_bytes()) == {
        "repo": "someone/a-model-GGUF",
        "revision": COMMIT,
        "size_bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    assert seen[0] == ("downloading", 0, len(CONTENT)) and seen[-1] == ("downloading", len(CONTENT), len(CONTENT))
    assert fetching.verify(ENTRY).state == "ok" and models.is_present(ENTRY)
    requests = len(stand_in.ranges)
    fetching.fetch(ENTRY, silent)
    assert len(stand_in.ranges) == requests, "it is there"


def test_what_was_changed_since_is_damaged_and_fetched_again(stand_in: StandIn, home: Path) -> None:
    fetching.fetch(ENTRY, silent)
    (home / "tiny.gguf").write_bytes(CONTENT[:-1] + b"?")
    assert fetching.verify(ENTRY).state == "damaged" and models.is_present(ENTRY)
    (home / "tiny.gguf").write_bytes(CONTENT[:-1])
    assert not models.is_present(ENTRY)
    assert fetching.ensure(ENTRY, silent).read_bytes() == CONTENT


def test_a_file_that_was_put_there_by_hand_is_used_and_said_to_be_unknown(stand_in: StandIn, home: Path) -> None:
    home.mkdir()
    (home / "tiny.gguf").write_bytes(b"GGUF of mine")
    assert models.is_present(ENTRY) and fetching.verify(ENTRY).state == "unknown"
    assert fetching.fetch(ENTRY, silent).read_bytes() == b"GGUF of mine" and stand_in.ranges == []


def test_a_line_that_breaks_is_no_end(stand_in: StandIn, home: Path) -> None:
    stand_in.cut, stand_in.cuts = 24 << 20, 1
    assert fetching.fetch(ENTRY, silent).read_bytes() == CONTENT
    assert any(stand_in.ranges[1:]), "it went on where it was"


def test_an_interrupted_fetch_leaves_what_it_has_to_the_next(stand_in: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = 24 << 20
    holds = threading.Event()
    write = _Handler.answer

    def slowly(self: _Handler, body: bytes, begin: int = 0, send: int | None = None) -> None:
        if self.command == "GET" and not begin and not holds.is_set():
            write(self, body, begin, half)
            self.wfile.flush()
            holds.wait(30)  # the rest does not come
            self.close_connection = True
        else:
            write(self, body, begin, send)

    monkeypatch.setattr(_Handler, "answer", slowly)
    program = (
        "import sys, msgspec\nfrom brainjar import fetching, models\nfrom brainjar.cli.models import _ending_as_by_ctrl_c\n"
        "with _ending_as_by_ctrl_c(): fetching.fetch(msgspec.json.decode(sys.argv[1], type=models.Entry),"
        " lambda stage, done, total: print(done, flush=True))"
    )
    command = [sys.executable, "-c", program, msgspec.json.encode(ENTRY).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as elsewhere:
        try:
            assert elsewhere.stdout is not None
            for line in elsewhere.stdout:
                if int(line) >= 10 << 20:
                    break
        finally:
            elsewhere.send_signal(signal.SIGTERM)
        assert elsewhere.wait(PATIENCE_S) == 128 + signal.SIGTERM
    holds.set()
    assert [name for name in left(home) if name != ".fetch-lock"] == [".fetch-tiny.hub"]
    kept = hub.bytes_in(home / ".fetch-tiny.hub")
    assert kept >= 10 << 20
    assert fetching.need(ENTRY).download_bytes == len(CONTENT) - kept
    assert fetching.fetch(ENTRY, silent).read_bytes() == CONTENT
    assert any(int(found.split("=")[1].rstrip("-")) >= 10 << 20 for found in stand_in.ranges if found)
    assert left(home) == ["tiny.gguf", "tiny.gguf.pin.json"]


def test_what_is_not_what_the_hub_says_is_not_kept(stand_in: StandIn, home: Path) -> None:
    stand_in.content = CONTENT[:-1] + b"?"
    with pytest.raises(FetchError, match="what came is not what the hub says that it has"):
        fetching.fetch(ENTRY, silent)
    assert [name for name in left(home) if not name.startswith(".fetch-lock")] == []


def test_a_hub_that_has_another_file_than_the_catalog_wants_is_refused(stand_in: StandIn, home: Path) -> None:
    wanted = msgspec.structs.replace(ENTRY, sha256="0" * 64)
    with pytest.raises(FetchError, match=f"the hub has another file, of sha256 {hashlib.sha256(CONTENT).hexdigest()}"):
        fetching.fetch(wanted, silent)
    assert stand_in.ranges == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "EntryNotFound"), "has no model.gguf in that revision"),
        ((404, "RevisionNotFound"), "has no model.gguf in that revision"),
        ((401, "RepoNotFound"), "the hub has no someone/a-model-GGUF, or not for you"),
        ((403, "GatedRepo"), "wants its licence accepted first"),
        ((500, ""), "could not bring model.gguf"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(stand_in: StandIn, home: Path, refusal: tuple[int, str], words: str) -> None:
    stand_in.refusal = refusal
    with pytest.raises(FetchError, match=f"tiny: .*{words}") as raised:
        fetching.fetch(ENTRY, silent)
    assert "\n" not in str(raised.value) and "Traceback" not in str(raised.value)


def test_a_file_whose_hash_the_hub_does_not_state_is_refused(stand_in: StandIn, home: Path) -> None:
    stand_in.etag = "d" * 40
    with pytest.raises(FetchError, match="the hub states no size and sha256"):
        fetching.fetch(ENTRY, silent)


def test_a_file_whose_commit_the_hub_does_not_state_is_refused(stand_in: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = _Handler.send_header
    monkeypatch.setattr(_Handler, "send_header", lambda self, name, value: None if name == "X-Repo-Commit" else send(self, name, value))
    with pytest.raises(FetchError, match="tiny: "):
        fetching.fetch(ENTRY, silent)
    assert not (home / "tiny.gguf").exists() and stand_in.ranges == []


def test_no_hub_and_no_library_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="the hub cannot be reached"):
        fetching.fetch(ENTRY, silent)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FetchError, match=r"pip install 'brainjar\[hub\]'"):
        fetching.need(ENTRY)


def test_a_full_disk_is_told_before_anything_is_brought(stand_in: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(FetchError, match="disk full"):
        fetching.fetch(ENTRY, silent)
    assert stand_in.ranges == []


def test_the_catalog_has_the_three_tiers_and_lists_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    for name in ("mistral-7b", "llama3.1-8b", "gemma3-12b"):
        assert f"{name}  missing  from a hub" in listed and models.lookup(name).hub is not None
