"""The live view: what it shows at every size, what it does to a terminal, and that it gives it back."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from brainjar.client.model import JarModel
from brainjar.messages import Death, Layer
from brainjar.persona.mood import WORDS
from brainjar.view import keys, plain
from brainjar.view.cells import fit, trim, wrap
from brainjar.view.detail import spark
from brainjar.view.faces import FRAMES, face
from brainjar.view.glyphs import ASCII, UNICODE, for_encoding
from brainjar.view.keys import Keyboard, parse
from brainjar.view.paint import Painter
from brainjar.view.screen import Screen, screen
from brainjar.view.ui import LEAVE, Do, Listed, Ui, press
from brainjar.view.words import clean, countdown, share, size, span
from tests.fakejar import PID, FakeJar, death, event, last_death, persona, snap, status
from tests.patience import PATIENCE_S

NOW = 2000.0
NASTY = "\x1b[2J\x1b]0;owned\x07 \r\n\t\x9b31m日本語テキスト é́ 👩‍👩‍👧 \u202eabc\u2028x\x00" + "w" * 300


def matrix(**more: Any) -> JarModel:
    model = JarModel.of(
        snap(
            status(
                persona(
                    "subject", "thinking", life=4, deaths=3, last_death=last_death("cap-rlimit", NOW - 750), tokens_per_s=31.2, pid=41231
                ),
                persona("observer", "ready", pid=41232),
                persona("god", "dead", pid=None, retry_at=NOW + 2.3, life=2, deaths=1, last_death=last_death("segv", NOW - 1)),
                lease=("subject",),
            ),
            at=NOW - 10,
        )
    )
    model.fold(event("THOUGHT", "observer", "I see it think.", at=NOW - 9, life=1, metadata={"turn": 1}))
    model.fold(event("TOKEN", "subject", "I am here, and I think that", at=NOW - 5, life=4, metadata={"turn": 2}))
    model.fold(death("god", "segv", life=1, at=NOW - 1))
    model.personas["god"].retry_at = NOW + 2.3
    return model


def text(model: JarModel, width: int = 80, height: int = 24, ui: Ui | None = None, silent_s: float = 0.0, glyphs: Any = UNICODE) -> str:
    return screen(model, ui or Ui(attached=True), width, height, NOW, silent_s, glyphs).text()


# ── what is shown ──


def test_everything_that_matters_is_on_80x24() -> None:
    shown = text(matrix())
    lines = shown.splitlines()
    assert len(lines) == 24 and all(cell_len(line) <= 80 for line in lines)
    for fact in ("test", f"pid {PID}", "up 1m10", "rss 24.0M", "lease: subject"):
        assert fact in lines[0]
    subject, observer, god = lines[3:6]
    for fact in ("subject", "● thinking", "41231", " 4 ", " 3 ", "94/256M", "██", "31.2", "cap-rlimit 12m"):
        assert fact in subject, subject
    assert "○ ready" in observer
    for fact in ("† dead", "lives in 2.3s", "segv 1s"):
        assert fact in god, god
    assert "I am here, and I think that▌" in shown and "I see it think." in shown
    assert "DEATH        god died in life 1: segv" in shown
    assert "q leave" in lines[-1]


def test_a_wide_screen_shows_more_of_each() -> None:
    shown = text(matrix(), 200, 60)
    for fact in ("ROLE", "MODEL", "smollm2-135m", "4 deaths", "cap-rlimit 12m30 ago"):
        assert fact in shown


def test_without_unicode_it_is_all_ascii() -> None:
    shown = text(matrix(), glyphs=ASCII)
    assert shown.isascii() and "* thinking" in shown and "+ dead" in shown and "##" in shown
    assert for_encoding("latin-1") is for_encoding("ascii") is for_encoding(None) is ASCII and for_encoding("utf-8") is UNICODE


def test_the_chosen_ones_thoughts_are_shown_alone() -> None:
    shown = text(matrix(), ui=Ui(attached=True, chosen="observer"))
    assert "thoughts of observer" in shown and "▸ observer" in shown and "I see it think." in shown and "I am here" not in shown


@pytest.mark.parametrize("role", [*FRAMES, "poet"])
@pytest.mark.parametrize("mood", [word for row in WORDS for word in row])
def test_each_mood_of_each_role_has_a_face_of_at_most_five_lines_and_one_width(role: str, mood: str) -> None:
    lines = face(role, mood)
    assert 0 < len(lines) <= 5 and len({cell_len(line) for line in lines}) == 1
    assert all(line.isascii() and line.isprintable() for line in lines) and face(role, "") == ()


def test_the_chosen_ones_mood_is_a_word_and_where_there_is_room_a_face() -> None:
    model = matrix()
    model.fold(event("THOUGHT", "observer", "I see it run.", life=1, metadata={"turn": 2, "mood": "afraid"}))
    chosen = Ui(attached=True, chosen="observer")
    shown = text(model, ui=chosen)
    assert "thoughts of observer, afraid" in shown and all(line.rstrip() in shown for line in face("observer", "afraid"))
    assert "I see it run." in shown and all(cell_len(line) <= 80 for line in shown.splitlines())
    small = text(model, 50, 24, ui=chosen)
    assert "thoughts of observer, afraid" in small and face("observer", "afraid")[0] not in small
    assert "afraid" not in text(model), "of everybody's thoughts it would be said for none"


def test_a_silent_jar_and_an_unwritable_ledger_are_told() -> None:
    model = matrix()
    assert "no word for 7s" in text(model, silent_s=7.0)
    model.ledger_error = "disk full"
    assert "ledger: disk full" in text(model)


def test_64_personas_fit_and_the_chosen_one_is_among_those_shown() -> None:
    model = JarModel.of(snap(status(*(persona(f"p{i:02}") for i in range(64)))))
    shown = text(model, ui=Ui(attached=True, chosen="p40"))
    assert len(shown.splitlines()) == 24 and "▸ p40" in shown and "more personas" in shown


def test_a_thought_of_10_kb_leaves_room_for_the_rest() -> None:
    model = matrix()
    model.fold(event("TOKEN", "subject", "word " * 2000 + "the end", life=4, metadata={"turn": 3}))
    shown = text(model)
    assert "the end▌" in shown and "DEATH" in shown


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 230), st.integers(1, 70), st.text(max_size=300), st.integers(0, 9), st.sampled_from(["", "h", "q", "d", "/"]))
@example(80, 24, NASTY, 3, "")
@example(1, 1, NASTY, 3, "h")
@example(7, 70, NASTY, 3, "q")
@example(80, 24, NASTY, 3, "d")
@example(3, 20, NASTY, 3, "d")
@example(80, 24, NASTY, 3, "/")
def test_no_size_and_no_thought_breaks_the_frame(width: int, height: int, thought: str, personas: int, mode: str) -> None:
    model = JarModel.of(snap(status(*(persona(f"p{i}", thought=thought, reason=thought) for i in range(personas)))))
    for i in range(personas):
        model.fold(event("THOUGHT", f"p{i}", thought, life=1, metadata={"turn": 1, "mood": "calm" if i % 2 else thought}))
        model.fold(event("DEATH", f"p{i}", thought, life=1))
    asking = Do("kill", thought) if mode == "q" else None
    chosen = "p1" if personas % 2 else None
    ui = Ui(attached=False, help=mode == "h", asking=asking, chosen=chosen, detail=mode == "d", typing=mode == "/", filter=thought)
    if mode != "/":
        ui = msgspec.structs.replace(ui, filter="")
    shown = screen(model, ui, width, height, NOW, 0.0, UNICODE)
    assert len(shown.lines) == height
    for line in shown.text().split("\n"):
        assert cell_len(line) <= width
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", line)


@given(st.text(max_size=60), st.integers(1, 40))
def test_text_is_cut_and_wrapped_by_cells(words: str, width: int) -> None:
    words = clean(words, newlines=True)
    assert cell_len(fit(words.replace("\n", " "), width)) == width
    assert sum(cell_len(part) for part, _ in trim([(words.replace("\n", " "), "")], width)) <= width
    if width >= 2:
        lines = wrap(words, width)
        assert all(cell_len(line) <= width for line in lines)
        assert "".join("".join(lines).split()) == "".join(words.split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m00"), (3599, "59m59"), (3600, "1h00"), (86399, "23h59"), (86400, "1d00"), (1e7, "115d")],
)
def test_spans_fit_their_column(seconds: float, words: str) -> None:
    assert span(seconds) == words and len(words) <= 5


def test_sizes_read_as_people_write_them() -> None:
    assert (size(24 << 20), size(3 << 30), size(None)) == ("24.0M", "3.0G", "-")
    assert (share(94 << 20, 256 << 20), share(None, 256 << 20), share(3 << 30, 6 << 30)) == ("94/256M", "-/256M", "3.0/6.0G")
    assert (countdown(2.31), countdown(-1), countdown(75)) == ("2.3s", "0.0s", "1m15")


def test_plain_lines_leave_out_what_is_gone_in_a_blink() -> None:
    assert plain.line(event("TOKEN", "subject", "x")) is None
    line = plain.line(event("THOUGHT", "subject", NASTY))
    assert line is not None and "subject" in line and "\x1b" not in line and "\n" not in line


# ── keys ──


def test_keys_are_read_as_what_they_are() -> None:
    assert parse(b"jk") == ["j", "k"]
    assert parse(b"\x1b[A\x1b[B\x1bOA\t\x1b[Z\x1b") == ["up", "down", "up", "tab", "backtab", "esc"]
    assert parse(b"\x1b[15~\x1b[1;5C\xc3\xa4q\x03") == ["q", "ctrl-c"]
    assert parse(b"\x1b[") == []
    assert parse(b"/a\x7f\r\n") == ["/", "a", "backspace", "enter", "enter"]


@pytest.mark.parametrize("pieces", [(b"\x1b", b"[B"), (b"j\x1b[", b"B"), (b"\x1b", b"[", b"1;5", b"Cj"), (b"\x1bO", b"A")])
def test_a_key_that_comes_in_pieces_over_a_slow_line_is_one_key(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REST_S", 20.0)
    whole = parse(b"".join(pieces))
    assert "esc" not in whole
    reads, writes = os.pipe()
    try:
        os.write(writes, pieces[0])

        def goes_on() -> None:
            for piece in pieces[1:]:
                while select.select([reads], (), (), 0)[0]:
                    time.sleep(0.001)  # until the piece before it has been read
                os.write(writes, piece)

        line = threading.Thread(target=goes_on)
        line.start()
        assert Keyboard(reads).read() == whole
        line.join()
        monkeypatch.setattr(keys, "REST_S", 0.01)
        os.write(writes, b"\x1b[" + b"1" * 4000)
        assert Keyboard(reads).read() == [], "what is far too long for a key is not waited for to its end"
        assert select.select([reads], (), (), 0)[0]
        while select.select([reads], (), (), 0)[0]:
            os.read(reads, 65536)
        os.write(writes, b"\x1b")
        assert Keyboard(reads).read() == ["esc"], "which is a key too"
    finally:
        os.close(reads)
        os.close(writes)


@given(st.binary(max_size=40))
def test_no_bytes_break_the_keyboard(raw: bytes) -> None:
    assert all(isinstance(key, str) for key in parse(raw))


A, B = Listed("a", "subject"), Listed("b", "god", paused=True)


def test_leaving_an_attached_view_takes_one_key_and_stops_nothing() -> None:
    for key in ("q", "Q", "esc", "ctrl-c"):
        assert press(Ui(attached=True), key, [A])[1] == LEAVE


def test_nothing_stops_a_foreground_jar_without_a_yes() -> None:
    for key in ("q", "Q", *"abcdefghijklmnopstuvwxyz?0 ", "tab", "esc", "enter"):
        ui, action = press(Ui(attached=False), key, [A])
        assert action is None and (ui.asking == Do("stop")) == (key in "qQ")
    asked = Ui(attached=False, asking=Do("stop"))
    assert "stop the jar test?" in text(matrix(), ui=asked)
    for key in ("n", "q", "esc", "tab", "x", "enter"):
        ui, action = press(asked, key, [A])
        assert action is None and ui.asking is None
    assert press(asked, "y", [A])[1] == Do("stop")


@pytest.mark.parametrize(("key", "cmd"), [("K", "kill"), ("r", "restart"), ("t", "stop")])
def test_what_ends_a_persona_is_asked_first_and_only_of_the_chosen_one(key: str, cmd: Any) -> None:
    ui, action = press(Ui(attached=True), key, [A, B])
    assert action is None and ui.asking is None and "choose a persona first" in text(matrix(), ui=ui)
    ui, action = press(Ui(attached=True, chosen="b"), key, [A, B])
    assert action is None and ui.asking == Do(cmd, "b") and f"{cmd} b?" in text(matrix(), ui=ui)
    assert press(ui, "n", [A, B])[1] is None
    assert press(ui, "y", [A, B]) == (Ui(attached=True, chosen="b"), Do(cmd, "b"))


def test_p_pauses_and_resumes_at_once() -> None:
    assert press(Ui(attached=True, chosen="a"), "p", [A, B])[1] == Do("pause", "a")
    assert press(Ui(attached=True, chosen="b"), "p", [A, B])[1] == Do("resume", "b")
    assert press(Ui(attached=True, chosen="gone"), "p", [A, B])[1] is None


def typed(ui: Ui, *keys: str) -> Ui:
    for key in keys:
        ui, action = press(ui, key, [A, B])
        assert action is None
    return ui


def test_the_selection_goes_down_the_list_and_around() -> None:
    ui, seen = Ui(attached=True), []
    for key in ("j", "down", "j", "k", "up", "k", "tab", "tab", "tab", "backtab", "a"):
        ui = typed(ui, key)
        seen.append(ui.chosen)
    assert seen == ["a", "b", "b", "a", None, None, "a", "b", None, "b", None]


def test_a_filter_is_typed_kept_and_taken_back() -> None:
    ui = typed(Ui(attached=True), "/", "G", "x", "backspace", "o", "q", "backspace")
    assert ui.typing and ui.filter == "Go"
    ui = typed(ui, "enter")
    assert not ui.typing and typed(ui, "j").chosen == "b", "by its role"
    assert typed(ui, "esc").filter == "" and typed(ui, "/", "esc") == Ui(attached=True)
    shown = text(matrix(), ui=Ui(attached=True, filter="OB"))
    assert "observer" in shown and "god  " not in shown.split("thoughts")[0] and "[/ OB]" in shown
    assert 'none of 3 is called "zzz"' in text(matrix(), ui=Ui(attached=True, filter="zzz"))


def test_esc_goes_one_step_back_at_a_time() -> None:
    ui = typed(Ui(attached=True), "/", "g", "o", "enter", "j", "enter", "?")
    assert (ui.filter, ui.chosen, ui.detail, ui.help) == ("go", "b", True, True)
    steps = []
    for _ in range(4):
        ui = typed(ui, "esc")
        steps.append((ui.help, ui.detail, ui.filter, ui.chosen))
    assert steps == [(False, True, "go", "b"), (False, False, "go", "b"), (False, False, "", "b"), (False, False, "", None)]
    assert press(ui, "esc", [A, B])[1] == LEAVE
    assert press(Ui(attached=False), "esc", [A, B])[1] is None


def test_the_page_tells_all_of_why_it_does_not_live_and_how_its_last_words_ended() -> None:
    why = "its prompt and one thought need 307 tokens, more than half of its 512: shorten the prompt, or raise model.context to 614"
    said = " ".join(f"word{n}" for n in range(80))
    model = matrix()
    record = Death(persona="subject", life=1, birth=1, at=NOW - 60, cause="cap-rlimit", age_s=250.0, last_words=said)
    model.remember(event("DEATH", "subject", at=NOW - 60, life=1, metadata=msgspec.to_builtins(record)))
    model.fold(event("STATE", "subject", at=NOW, metadata={"state": "backoff", "reason": why}))
    page = Ui(attached=True, chosen="subject", detail=True)

    def told(width: int, height: int) -> str:
        return " ".join(text(model, width, height, ui=page).split())

    assert why in told(80, 24) and "… word" in told(80, 24) and "word79" in told(80, 24) and "word10 " not in told(80, 24)
    assert why in told(200, 60) and "word0 " not in told(80, 24) and "word79" in told(200, 60)
    assert "its prompt and one thought" in told(80, 11) and " memory " in told(80, 11), "a small screen has its beginning, and the rest"
    for width in range(1, 90):
        for height in range(1, 26):
            lines = text(model, width, height, ui=page).split("\n")
            assert len(lines) <= height and all(cell_len(line) <= width for line in lines), (width, height)


def test_the_page_of_a_persona_tells_its_cap_by_layer_its_last_minutes_and_its_deaths() -> None:
    model = matrix()
    layer = Layer(name="rlimit", limit_bytes=256 << 20, used_bytes=94 << 20, effective=True, counts="its heap")
    model.personas["subject"].layers = (layer, msgspec.structs.replace(layer, name="cgroup", effective=False, why="no memory controller"))
    for n in range(100):
        beat = {"private_bytes": n * 2 << 20, "tokens_per_s": 1.0 + n % 2, "cpu": 0.97, "beat_age_s": 0.4, "paused": []}
        model.fold(event("HEARTBEAT", "subject", at=NOW - 100 + n, life=4, metadata=beat))
    for life, at in ((1, NOW - 600), (2, NOW - 300), (3, NOW - 60)):
        record = Death(persona="subject", life=life, birth=life, at=at, cause="cap-rlimit", age_s=250.0, last_words="I was about to")
        model.remember(event("DEATH", "subject", at=at, life=life, metadata=msgspec.to_builtins(record)))
    ui = typed(Ui(attached=True), "enter")
    assert ui.chosen == "a" and ui.detail
    shown = text(model, ui=Ui(attached=True, chosen="subject", detail=True))
    for fact in (
        "subject, subject",
        "cpu 97%",
        "beat 0.4s",
        "sees nobody",
        "198.0M of 256.0M",
        "2.0 at the most",
        "its heap",
        "not in force",
    ):
        assert fact in shown, shown
    for fact in ("not in force", "no memory controller", "life 3, 4m10: cap-rlimit", "in 10m00", "I was about to", "thoughts of subject"):
        assert fact in shown, shown
    assert re.search("▁▂.*▅▆", shown) and len(re.findall("†─", shown)) == 3
    assert "▁" not in text(model, ui=Ui(attached=True, chosen="subject", detail=True), glyphs=ASCII)


def test_sparks_show_the_newest_and_the_highest() -> None:
    assert spark([], 1.0, 10, UNICODE) == "" and spark([1.0], 1.0, 0, UNICODE) == ""
    assert spark([0, 4, 8], 8.0, 10, UNICODE) == " ▄█"
    assert spark([0, 8, 0, 0, 0, 4], 8.0, 3, UNICODE) == "█ ▄", "no peak is lost"
    assert spark([0.0, 0.0], 0.0, 5, ASCII) == "  "


def test_the_host_is_told_in_one_line_and_a_passed_mark_in_words() -> None:
    model = matrix()
    assert "nothing is sensed yet" in text(model)
    senses = [
        ["host-memory", "host", 41.3, "calm"],
        ["host-memory", "/jar", 70.2, "warn"],
        ["heat", "cpu", 61.4, ""],
        ["pressure", "m", "x", ""],
    ]
    model.fold(event("HEARTBEAT", at=NOW, metadata={"senses": senses, "danger": "memory in use 91 %"}))
    host = text(model).splitlines()[1]
    assert "mem 70%" in host and "heat 61C" in host and "memory in use 91 %" in host and "psi" not in host
    assert "mem 70%" not in text(model, 80, 12), "a small screen has no room for it"


def painted(painter: Painter, out: io.StringIO, *lines: str, width: int = 20) -> str:
    """What a picture of these lines writes."""
    out.seek(0)
    out.truncate()
    painter.paint(Screen([[(line, "")] for line in lines], width))
    return out.getvalue()


def test_only_what_has_changed_is_written() -> None:
    out = io.StringIO()
    painter = Painter(Console(file=out, force_terminal=True, width=20, height=3, color_system=None))
    painter.start()
    first = painted(painter, out, "one", "日本", "three")
    assert "one" + " " * 17 in first and "日本" + " " * 16 in first and "three" in first
    assert painted(painter, out, "one", "日本", "three") == ""
    assert painted(painter, out, "one", "two", "three") == "\x1b[2;1Htwo" + " " * 17
    assert painted(painter, out, "1", "two", "3") == "\x1b[1;1H1" + " " * 19 + "\x1b[3;1H3" + " " * 19
    assert "two" in painted(painter, out, "1", "two", "3", width=21), "another size is drawn anew"
    assert "two" in painted(painter, out, "1", "two", width=21)
    out.seek(0)
    out.truncate()
    painter.stop()
    painter.stop()
    assert out.getvalue() == "\x1b[?25h\x1b[?1049l" and not painter.on
    painter.start()
    assert "two" in painted(painter, out, "1", "two", width=21), "whoever had the terminal meanwhile has drawn on it"


GOLDEN: Final = Path(__file__).with_name("golden")
PAGES: Final = {
    "top-80x24": ((80, 24), Ui(attached=True), UNICODE),
    "top-200x60": ((200, 60), Ui(attached=True), UNICODE),
    "top-ascii": ((80, 24), Ui(attached=True, chosen="observer"), ASCII),
    "page-80x24": ((80, 24), Ui(attached=True, chosen="subject", detail=True), UNICODE),
    "help-80x24": ((80, 24), Ui(attached=False, help=True), UNICODE),
    "question-80x24": ((80, 24), Ui(attached=True, chosen="god", asking=Do("kill", "god")), UNICODE),
}


@pytest.mark.parametrize("page", PAGES)
def test_the_whole_picture_is_as_it_was(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden text: where a change is meant, BRAINJAR_GOLDEN=write writes it anew, and the difference is looked at."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        (width, height), ui, glyphs = PAGES[page]
        shown = text(matrix(), width, height, ui, glyphs=glyphs) + "\n"
    finally:
        monkeypatch.undo()
        time.tzset()
    file = GOLDEN / f"{page}.txt"
    if os.environ.get("BRAINJAR_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(shown)
    assert shown == file.read_text()


# ── in a real terminal ──


class Shown:
    """The view in a terminal of its own, in that terminal's foreground job."""

    def __init__(self, jar: FakeJar, *args: str, term: str = "xterm", command: list[str] | None = None) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        command = command or ["-m", "brainjar.view", "--runtime-dir", str(jar.runtime_dir), *args]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": term, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.slave = slave
        self.output = ""

    def until(self, found: str | Callable[[str], bool], seconds: float = PATIENCE_S) -> str:
        """Read until `found` has come."""
        deadline = time.monotonic() + seconds
        while not (found in self.output if isinstance(found, str) else found(self.output)):
            assert time.monotonic() < deadline, self.output[-3000:]
            if select.select([self.master], (), (), 0.05)[0]:
                self.output += os.read(self.master, 65536).decode(errors="replace")
        return self.output

    def drain(self) -> None:
        while select.select([self.master], (), (), 0.1)[0]:
            self.output += os.read(self.master, 65536).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self, seconds: float = PATIENCE_S) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the view does not end"
            self.drain()
        self.drain()
        return self.process.returncode

    def given_back(self) -> bool:
        last = max(self.output.rfind("\x1b[?1049h"), self.output.rfind("\x1b[?25l"))
        after = self.output[last:]
        return "\x1b[?1049l" in after and "\x1b[?25h" in after and termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def jar(tmp_path: Path) -> Iterator[FakeJar]:
    with FakeJar(tmp_path) as fake:
        yield fake


@pytest.fixture
def opened() -> Iterator[Callable[..., Shown]]:
    views: list[Shown] = []

    def open_view(*args: Any, **more: Any) -> Shown:
        views.append(Shown(*args, **more))
        return views[-1]

    yield open_view
    for view in views:
        view.close()


Open = Callable[..., Shown]


def test_the_view_takes_the_terminal_and_shows_what_happens(jar: FakeJar, opened: Open) -> None:
    view = opened(jar)
    view.until("\x1b[?1049h")
    view.until("observer")
    jar.say("TOKEN", "subject", "Here I am", life=1, metadata={"turn": 1})
    view.until("Here I am")
    mode = termios.tcgetattr(view.slave)
    assert not mode[3] & termios.ICANON and not mode[3] & termios.ECHO and mode[3] & termios.ISIG


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(jar: FakeJar, opened: Open, number: int) -> None:
    view = opened(jar)
    view.until("observer")
    view.process.send_signal(number)
    assert view.ended() == 0 and view.given_back()


def test_the_jars_last_word_ends_it(jar: FakeJar, opened: Open) -> None:
    view = opened(jar)
    view.until("observer")
    jar.say("SHUTDOWN", content="jar test is stopped")
    assert view.ended() == 0 and view.given_back()


def test_a_jar_that_is_killed_ends_it(tmp_path: Path, opened: Open) -> None:
    with FakeJar(tmp_path) as fake:
        view = opened(fake, "--attached")
        view.until("observer")
    assert view.ended() == 0 and view.given_back()
    assert "ended without a word" in view.output


def test_in_a_foreground_run_ctrl_c_is_for_the_supervisor_and_ctrl_z_for_nobody(jar: FakeJar, opened: Open) -> None:
    view = opened(jar)
    view.until("observer")
    view.press(b"\x03\x1a")
    jar.say("TOKEN", "subject", "still shown", life=1, metadata={"turn": 1})
    view.until("still shown")
    assert view.process.poll() is None and not any(request["cmd"] == "stop" for request in jar.requests)


def test_in_a_foreground_run_q_asks_before_it_stops_the_jar(jar: FakeJar, opened: Open) -> None:
    view = opened(jar)
    view.until("observer")
    view.press(b"q")
    view.until("stop the jar test?")
    view.press(b"n")
    time.sleep(0.3)
    assert not any(request["cmd"] == "stop" for request in jar.requests)
    view.press(b"q")
    view.press(b"y")
    view.until("stop is done")
    assert {"cmd": "stop", "name": None} in jar.requests


def test_a_second_key_undoes_the_first_before_the_bus_has_said_anything_of_it(jar: FakeJar, opened: Open) -> None:
    view = opened(jar, "--attached")
    view.until("observer")
    for key in (b"j", b"p", b"p"):
        view.press(key)
    view.until("resume is done")
    asked = [(request["cmd"], request["name"]) for request in jar.requests if "name" in request]
    assert asked == [("pause", "subject"), ("resume", "subject")]


@pytest.mark.parametrize("key", [b"q", b"\x1b", b"\x03"])
def test_leaving_top_stops_nothing(jar: FakeJar, opened: Open, key: bytes) -> None:
    view = opened(jar, command=["-m", "brainjar", "top", "--state-dir", str(jar.state_dir)])
    view.until("q leave")
    view.press(key)
    assert view.ended() == 0 and view.given_back()
    assert {request["cmd"] for request in jar.requests} <= {"events"}


def test_the_end_of_the_supervisor_is_the_end_of_its_view(jar: FakeJar, opened: Open) -> None:
    """The terminal's session lives on: nothing but the tie to its parent can end the view."""
    script = (
        "import os, subprocess, sys, time\n"
        "if os.fork() == 0:\n"
        "    child = subprocess.Popen([sys.executable, '-m', 'brainjar.view', '--runtime-dir', sys.argv[1]])\n"
        "    print('pids', os.getpid(), child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    view = opened(jar, command=["-c", script, str(jar.runtime_dir)])
    view.until("observer")
    found = re.search(r"pids (\d+) (\d+)", view.output)
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while _alive(int(found[2])):
        assert time.monotonic() < deadline
        view.drain()
    view.drain()
    assert view.given_back()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_another_size_of_the_window_is_seen(jar: FakeJar, opened: Open) -> None:
    view = opened(jar)
    view.until("observer")
    fcntl.ioctl(view.slave, termios.TIOCSWINSZ, struct.pack("4H", 50, 180, 0, 0))
    view.until("MODEL")


def test_a_dumb_terminal_and_a_pipe_get_plain_lines(jar: FakeJar, opened: Open) -> None:
    view = opened(jar, "--attached", term="dumb")
    jar.status = status(persona("subject"))
    deadline = time.monotonic() + PATIENCE_S
    while "Here I am" not in view.output and time.monotonic() < deadline:
        jar.say("THOUGHT", "subject", "Here I am", life=1, metadata={"turn": 1})
        view.drain()
    assert "Here I am" in view.output and "\x1b" not in view.output


def test_once_is_one_screen_of_text(jar: FakeJar) -> None:
    jar.say("THOUGHT", "subject", "before you looked", life=1, metadata={"turn": 1})
    time.sleep(0.1)
    command = [sys.executable, "-m", "brainjar", "top", "--once", "--state-dir", str(jar.state_dir)]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": "90"}, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 24 and max(map(len, lines)) <= 90 and "\x1b" not in done.stdout
    assert "observer" in done.stdout and "before you looked" in done.stdout


def test_it_costs_little(jar: FakeJar, opened: Open) -> None:
    """Under 2 % of a CPU and 35 MB while tokens stream; measured over three seconds, with room for a loaded box."""
    view = opened(jar)
    view.until("observer")

    def used() -> float:
        fields = Path(f"/proc/{view.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = used(), time.monotonic()
    while time.monotonic() - began < 3.0:
        jar.say("TOKEN", "subject", "word ", life=1, metadata={"turn": 1})
        time.sleep(0.01)
        if select.select([view.master], (), (), 0)[0]:
            os.read(view.master, 65536)
    share_of_cpu = (used() - before) / (time.monotonic() - began)
    resident = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{view.process.pid}/status").read_text())[1])  # type: ignore[index]
    assert share_of_cpu < 0.05 and resident < 35_000, (share_of_cpu, resident)
