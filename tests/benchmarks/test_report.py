"""The pages and pictures of the benchmarks, and what they are made from."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks import __main__ as bench
from benchmarks import pictures, report
from benchmarks.figures import Against, Asked, Bar, Figure, Found, Picture, figure
from benchmarks.machine import Machine
from benchmarks.parts import PARTS
from benchmarks.peers import read_stamps

MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=4.0, kernel="6.18", versions={"brainjar": "0.1 (abc)", "circus": "0.19.0"})
SVG = "{http://www.w3.org/2000/svg}"


def measurement(part: str, value: float = 3.0, **more: str) -> report.Measurement:
    peers = (Against(name="supervisord", values=[900.0, 900.0], ahead=100), Against(name="runit", why="not had: no network"))
    bars = (Bar(label="own", value=value, own=True), Bar(label="peer", value=900))
    found = Found(
        conditions="Two rounds.",
        figures=(
            figure("kill → new process runs", "ms", [value, value], *peers, asked=Asked(at_most=5)),
            Figure(what="lost", unit="", value=None, asked=Asked(at_most=0), why="no such key"),
            figure("not asked for", "ms", [1.0]),
        ),
        pictures=(Picture(name=part, title="a < b", unit="ms", bars=bars),),
    )
    return report.Measurement(
        part=part, title="title", at="2026-01-01 00:00", seconds=1.0, load=(0.1, 0.2), machine=MACHINE, found=found, **more
    )


@pytest.mark.parametrize(
    ("value", "words"), [(1009.2, "1,009"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.0123"), (3.0, "3"), (0.0, "0")]
)
def test_numbers_have_three_significant_digits(value: float, words: str) -> None:
    assert report.number(value) == words


def test_a_row_tells_what_was_asked_what_was_measured_each_peer_and_the_verdict() -> None:
    row = report.row(measurement("birth").found.figures[0])
    assert "| ≤ 5 ms | **3 ms** (3 – 3) | supervisord: **900 ms** (900 – 900)<br>runit: not had: no network |" in row
    assert row.endswith("| **300×** (≥ 300×), asked ≥ 100×<br> | yes |")
    assert report.row(measurement("birth", 9.5).found.figures[0]).endswith("asked ≥ 100×<br> | **no** |")


def test_what_was_not_measured_says_why_and_is_not_called_reached() -> None:
    row = report.row(measurement("birth").found.figures[1])
    assert "| none | not measured: no such key |" in row
    assert row.endswith("| not measured |")


def test_the_page_counts_what_was_asked_and_names_what_is_missing() -> None:
    page = report.page([measurement("birth")], ("birth", "token"))
    assert "1 of 2 figures that were asked for are reached" in page
    assert "not asked for" not in page
    assert "Not measured yet: token." in page
    assert "not asked for" in report.detail(measurement("birth"))


def test_a_part_that_runs_again_replaces_its_own_rows_and_no_others(tmp_path: Path) -> None:
    for one in (measurement("birth", 3.0), measurement("token", 3.0), measurement("birth", 4.0)):
        report.save(tmp_path / "results", one)
    kept = report.load(tmp_path / "results", ("birth", "token", "memory"))
    assert [(one.part, one.found.figures[0].value) for one in kept] == [("birth", 4.0), ("token", 3.0)]
    written = {str(path.relative_to(tmp_path)) for path in report.write(tmp_path, kept, tuple(PARTS))}
    assert written == {"RESULTS.md", "results/birth.md", "results/birth.svg", "results/token.md", "results/token.svg"}


def test_a_failure_is_said_beside_the_figures_of_before(tmp_path: Path) -> None:
    report.save(tmp_path / "results", measurement("birth"))
    bench._note_failure(tmp_path, "birth", "no room")
    (one,) = report.load(tmp_path / "results", ("birth",))
    assert one.found == measurement("birth").found
    assert "a later run failed: no room" in report.page([one], ("birth",))


def test_a_file_that_holds_no_results_is_named(tmp_path: Path) -> None:
    (tmp_path / "birth.json").write_text('{"part": 1}')
    with pytest.raises(report.Unreadable, match=r"birth\.json: .*--only birth"):
        report.load(tmp_path, ("birth",))


def test_measurements_survive_their_file() -> None:
    one = measurement("birth", failure="x")
    assert msgspec.json.decode(msgspec.json.encode(one), type=report.Measurement) == one


# ── pictures ──


def test_a_picture_is_xml_for_both_schemes_with_a_bar_for_each_value_in_proportion() -> None:
    bars = (Bar(label="own", value=10, own=True), Bar(label="a & b", value=100), Bar(label="c", value=1000))
    svg = pictures.draw(Picture(name="x", title='"a" < b', unit="ms", bars=bars))
    root = ElementTree.fromstring(svg)
    assert "prefers-color-scheme: dark" in svg
    rects = root.findall(f"{SVG}rect")
    widths = [float(rect.attrib["width"]) for rect in rects]
    assert widths[1] - widths[0] == pytest.approx(widths[2] - widths[1], abs=0.2), "each power of ten is as wide as the other"
    assert widths[0] > 2, "and the smallest can be seen"
    assert [rect.attrib["class"] for rect in rects] == ["bar own", "bar", "bar"]
    assert [text.text for text in root.findall(f"{SVG}text") if text.attrib.get("text-anchor") == "end"] == ["own", "a & b", "c"]


def test_a_linear_picture_begins_at_nothing() -> None:
    bars = (Bar(label="own", value=50), Bar(label="peer", value=100))
    root = ElementTree.fromstring(pictures.draw(Picture(name="x", title="t", unit="", bars=bars, logarithmic=False)))
    one, two = (float(rect.attrib["width"]) for rect in root.findall(f"{SVG}rect"))
    assert two == pytest.approx(2 * one, abs=0.2)


@pytest.mark.parametrize("bars", [(), (Bar(label="x", value=0.0),)])
def test_what_cannot_be_drawn_is_refused(bars: tuple[Bar, ...]) -> None:
    with pytest.raises(ValueError):
        pictures.draw(Picture(name="x", title="t", unit="ms", bars=bars))


# ── the command ──


def test_list_names_every_part_and_each_of_them_can_be_imported(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    assert bench.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == list(PARTS)
    for part in PARTS:
        assert callable(importlib.import_module(f"benchmarks.{part}").run)


@pytest.mark.parametrize("argv", [["--only", "nothing"], ["--only", ","], ["--model", "/nowhere.gguf"]])
def test_a_wrong_option_is_one_line_and_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(argv)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_line_that_a_child_has_not_finished_writing_is_no_birth(tmp_path: Path) -> None:
    file = tmp_path / "stamps"
    assert read_stamps(file) == []
    file.write_text("100 7\n200 8\n30")
    assert read_stamps(file) == [(100, 7), (200, 8)]
