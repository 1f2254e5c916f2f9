"""What a drill says: passed only where something was claimed and all of it held; slopes that are those of the points."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.drill.curves import POINTS, Curve, slope, svg
from brainjar.drill.report import Report


def test_nothing_claimed_is_nothing_proven() -> None:
    assert not Report("memory", quiet=True).outcome.passed


@pytest.mark.parametrize(("first", "second", "passed"), [(True, True, True), (True, False, False), (False, True, False)])
def test_one_failed_claim_fails_the_drill(first: bool, second: bool, passed: bool) -> None:
    report = Report("memory", quiet=True)
    report.claim("a", first, "1", "2")
    report.claim("b", second, "3")
    assert report.outcome.passed is passed
    assert ("FAILED" in report.text()) is not passed
    assert f"{'pass' if second else 'FAIL'}  b: 3" in report.text()
    read = msgspec.json.decode(msgspec.json.encode(report.outcome))
    assert [claim["passed"] for claim in read["claims"]] == [first, second]


def test_progress_goes_where_no_program_reads(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("soak")
    report.progress("half way")
    out, err = capsys.readouterr()
    assert out == ""
    assert "half way" in err


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.lists(st.integers(0, 1000), min_size=2, max_size=50, unique=True))
def test_the_slope_of_a_line_is_its_own(a: float, b: float, xs: list[int]) -> None:
    assert slope([(x / 10, a * x / 10 + b) for x in xs]) == pytest.approx(a, abs=1e-5)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 5.0)]])
def test_what_has_no_slope_has_none(points: list[tuple[float, float]]) -> None:
    assert slope(points) == 0.0


def test_the_picture_is_one_whatever_is_in_it() -> None:
    curves = [
        Curve(name="a & <b>", unit="MiB", points=tuple((n / 100, float(n % 7)) for n in range(5 * POINTS))),
        Curve(name="flat", unit="", points=((0.0, 1.0), (1.0, 1.0))),
        Curve(name="empty", unit="ms", points=()),
    ]
    root = ET.fromstring(svg(curves, "a <title>"))
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == 2
    assert len(lines[0].attrib["points"].split()) <= 2 * POINTS
    assert any(one.text == "a & <b>" for one in root.iter())
