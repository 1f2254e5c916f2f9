"""What has happened, gathered from ledger and minds, and told as a page that needs nothing else."""

from __future__ import annotations

import json
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import pytest

from brainjar.chronicle.gather import differences, gather
from brainjar.chronicle.page import html
from brainjar.cli.main import main
from brainjar.ledger import Ledger, RunRecord, Sample, read_samples
from brainjar.messages import Death
from brainjar.persona.mind import Mind

MIB = 1 << 20


def die(ledger: Ledger, name: str, life: int, at: float, cause: str, peak: int) -> None:
    ledger.died(Death(persona=name, life=life, birth=life, at=at, cause=cause, peak_private_bytes=peak, cap_bytes=100 * MIB, tokens=50))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two lives of one persona and a third that goes on; one that was stopped; one start that failed."""
    root = tmp_path / "jar"
    root.mkdir()
    ledger = Ledger(root / "ledger.db")
    for life, start in enumerate((1000.0, 1100.0, 1300.0), 1):
        ledger.begin("subject", life, life, start)
        ledger.ready("subject", life, start + 1)
        if life < 3:
            die(ledger, "subject", life, start + 61, "cap-rlimit" if life == 1 else "killed-by-operator", life * 40 * MIB)
    ledger.begin("<b>god</b>", 1, 1, 1000.0)
    ledger.failed_start("<b>god</b>", 1, 1001.0, "no")
    ledger.begin("<b>god</b>", 2, 1, 1002.0)
    ledger.ready("<b>god</b>", 2, 1003.0)
    ledger.stopped("<b>god</b>", 2, 1203.0)
    ledger.close()
    mind = Mind(root / "minds" / "subject" / "mind.db")
    mind.add(1, [("thought", "subject", "one two three"), ("told", "jar", "not a thought")])
    mind.add(2, [("thought", "subject", "four five"), ("thought", "subject", "six")])
    mind.close()
    return root


def test_lives_are_told_from_ready_to_their_end_with_what_was_thought(state: Path) -> None:
    run = gather(state, 1400.0)
    god, subject = sorted(run.personas, key=lambda one: one.name)
    assert [(life.life, life.ready, life.ended, life.cause) for life in subject.lives] == [
        (1, 1001.0, 1061.0, "cap-rlimit"),
        (2, 1101.0, 1161.0, "killed-by-operator"),
        (3, 1301.0, None, ""),
    ]
    assert (subject.words, subject.thoughts) == ({1: 3, 2: 3}, {1: 1, 2: 2})
    assert [life.cause for life in god.lives] == [""] and god.failed_starts == 1
    assert (run.begin, run.until) == (1001.0, 1400.0)
    facts = run.facts()
    assert facts["deaths"] == "2" and facts["median life"] == "60.0 s" and facts["words"] == "6"
    assert facts["deaths an hour"] == f"{2 / (399 / 3600):.1f}"


class Page(HTMLParser):
    VOID = ("meta", "rect", "line", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_the_page_is_whole_needs_nothing_and_tells_each_life(state: Path) -> None:
    text = html(gather(state, 1400.0))
    page = Page()
    page.feed(text)
    assert page.open == []
    assert "script" not in page.seen and "link" not in page.seen and not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "<b>god</b>" not in text and "<b>god</b>" in " ".join(page.said), "a name is text, whatever stands in it"
    for words in (
        "subject, life 1: 60.0 s, cap-rlimit",
        "subject, life 3: 99.0 s, lives",
        "life 2: 80 MiB, killed-by-operator",
        "cap 100 MiB",
    ):
        assert words in page.said
    assert text.count('class="end"') == 2


def test_bars_stand_as_high_as_what_they_tell(state: Path) -> None:
    text = html(gather(state, 1400.0))
    heights = {words: float(height) for height, words in re.findall(r'height="([\d.]+)"><title>(life \d: [\d.]+ MiB)', text)}
    assert heights["life 2: 80 MiB"] == pytest.approx(2 * heights["life 1: 40 MiB"], abs=0.1)
    bars = re.findall(r'<rect class="bar" x="([\d.]+)" y="\d+" width="([\d.]+)" height="18"><title>subject, life (\d)', text)
    (x1, w1, _), (x2, _, _), (x3, w3, _) = bars
    assert float(x3) + float(w3) == pytest.approx(950, abs=0.2) and float(x1) == 120
    assert (float(x2) - float(x1)) / float(w1) == pytest.approx(100 / 60, rel=0.01)


def test_two_runs_are_told_beside_each_other_and_nothing_is_written_over(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "empty"
    other.mkdir()
    Ledger(other / "ledger.db").close()
    page = tmp_path / "r.html"
    argv = ["report", "--state-dir", str(state), "--against", str(other), "--output", str(page)]
    assert main(argv) == 0
    text = page.read_text()
    assert "<th>jar</th><th>empty</th>" in text and "<tr><th>deaths</th><td>2</td><td>0</td></tr>" in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert main(argv) == 1
    assert "is there already" in capsys.readouterr().err


def test_a_ledger_that_is_none_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ledger.db").write_text("no database at all, and long enough not to be taken for one")
    assert main(["report", "--state-dir", str(tmp_path), "--output", str(tmp_path / "r.html")]) == 1
    assert "the ledger cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def sampled(state: Path, *, config: str = "{}", cap: int = 100 * MIB) -> None:
    ledger = Ledger(state / "ledger.db")
    ledger.run(1000.0, RunRecord(version="0.1.0", python="3.12.1", host="x86_64, Linux 6.1", config=config))
    for n in range(40):
        life = 1 if n < 6 else 2
        if 1061 < (at := 1002.0 + 10 * n) < 1100:
            continue  # nobody lived
        mood = "calm" if n < 20 else "<glad>"
        one = Sample(at=at, persona="subject", life=life, used_bytes=n * MIB, cap_bytes=cap, tokens_per_s=n / 2, mood=mood)
        ledger.sample([one], lasting=n % 30 == 0)
    ledger.close()


def test_curves_are_drawn_in_time_and_broken_where_nobody_lived(state: Path) -> None:
    sampled(state)
    run = gather(state, 1400.0)
    subject = next(one for one in run.personas if one.name == "subject")
    assert len(subject.samples) == 36 and run.facts()["tokens/s, median"] == "11.0" and run.facts()["brainjar"] == "0.1.0"
    text = html(run)
    parts = [text.split(f"<h2>{title}</h2>")[1].split("<h2>")[0] for title in TITLES]
    memory, rate = (re.findall(r'<polyline class="curve" points="([^"]+)"', part) for part in parts)
    assert len(memory) == len(rate) == 2, "one for each life"
    points = [tuple(map(float, pair.split(","))) for pair in " ".join(memory).split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points) and len(points) == 36
    span = run.until - run.begin
    (x1, y1), (x2, y2) = points[0], points[-1]
    assert x1 == pytest.approx(120 + 1 / span * 830, abs=0.1) and x2 == pytest.approx(120 + 391 / span * 830, abs=0.1)
    assert (y1 - y2) == pytest.approx(39 / 100 * 90, abs=0.2), "39 MiB of a cap of 100"
    page = Page()
    page.feed(text)
    assert page.open == [] and "<glad>" not in text and "calm" in page.said and "<glad>" in page.said
    assert "died in life 1: cap-rlimit" in page.said


TITLES = ("Private memory, against the cap", "Tokens a second")


def test_what_two_configs_differ_in_is_told_by_key(state: Path, tmp_path: Path) -> None:
    config = {"watchdog": {"interval": 5.0}, "personas": [{"name": "god", "memory": 1}, {"name": "subject", "memory": 2}]}
    sampled(state, config=json.dumps(config))
    other = tmp_path / "other"
    other.mkdir()
    config["personas"][1]["memory"] = 3  # type: ignore[index]
    config["personas"].append({"name": "<i>eve</i>", "memory": 9})  # type: ignore[attr-defined]
    sampled(other, config=json.dumps(config))
    runs = gather(state, 1400.0), gather(other, 1400.0)
    assert differences(*runs) == [("personas.subject.memory", "2", "3"), ("personas.<i>eve</i>.memory", "-", "9")]
    page = Page()
    text = html(*runs)
    page.feed(text)
    assert page.open == [] and "personas.<i>eve</i>.memory" in page.said and "<i>eve</i>" not in text
    assert "In nothing." in html(runs[0], runs[0])


def test_a_ledger_of_before_has_no_curves_and_is_told_all_the_same(state: Path) -> None:
    db = sqlite3.connect(state / "ledger.db")
    db.executescript("DROP TABLE samples; DROP TABLE runs")
    db.close()
    run = gather(state, 1400.0)
    assert run.ran == () and not any(one.samples for one in run.personas)
    assert "polyline" not in html(run) and 'class="bar"' in html(run)


def test_samples_are_dense_for_a_while_and_then_few(state: Path) -> None:
    sampled(state)
    ledger = Ledger(state / "ledger.db")
    ledger.thin(1302.0)
    assert ledger.commit()
    ledger.close()
    left = [sample.at for sample in read_samples(state / "ledger.db")]
    assert left == [1002.0, *(1302.0 + 10 * n for n in range(10))]


@pytest.mark.parametrize(
    ("lives", "times", "curves"),
    [
        ([1, 1, 2, 2], [0, 10, 20, 30], 2),  # another life at once
        ([1, 1, 1, 1, 1], [0, 10, 20, 100, 110], 2),  # the same, and nobody looked for a while
        ([1, 1, 1, 1, 1], [0, 10, 20, 35, 45], 1),  # a sample that came late
    ],
)
def test_a_curve_is_broken_where_a_life_ends_or_nobody_looked(state: Path, lives: list[int], times: list[int], curves: int) -> None:
    ledger = Ledger(state / "ledger.db")
    for life, at in zip(lives, times, strict=True):
        one = Sample(at=1002.0 + at, persona="subject", life=life, used_bytes=MIB, cap_bytes=2 * MIB, tokens_per_s=0.0)
        ledger.sample([one], lasting=True)
    ledger.close()
    assert html(gather(state, 1400.0)).count('<polyline class="curve"') == curves
