import numpy as np
import pytest
from msgspec import structs

from mpq.evidence.drift import compared_in
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import Fallback, Line, MeanFacts
from mpq.records.sketch import Sketch, SketchFacts
from mpq.report.watched import render_log

NONE = MeanFacts(1.0, 0, 0.0, 0.0)


def sketched(scale: float, samples: int = 100) -> Sketch:
    found = Sketch()
    found.add((scale * np.random.default_rng(0).normal(size=4000)).astype(np.float32), samples=samples)
    return found


def line(scale: float, *, samples: int = 100, agreement: MeanFacts = NONE) -> Line:
    facts = sketched(scale, samples).to_dict()
    return Line(1, 86_400.0, 1000, samples, {"<x>": SketchFacts(**facts)}, NONE, agreement)


BASELINE = Baseline({"<x>": sketched(1.0)}, {"<x>": 0.5})


def test_a_line_is_compared_with_the_baseline() -> None:
    (same,), (other,), (few,) = (compared_in(each, BASELINE) for each in (line(1.0), line(4.0), line(4.0, samples=49)))
    assert (same.index, same.ratio, same.beyond) == (0.0, 0.0, 0.0)
    assert same.limit == pytest.approx(0.1 + 5 * 0.5 * 0.02)
    assert other.ratio is not None
    assert other.ratio > 5
    assert few.ratio is None


def test_the_page_says_what_has_drifted_since_when() -> None:
    page = render_log("log.jsonl", [line(1.1), line(4.0, agreement=MeanFacts(1.0, 200, 190.0, 9.0))], BASELINE)
    assert "2 alarms in the last line; the first alarm was at 1970-01-02 00:00:00 UTC." in page
    assert "drift in &#39;&lt;x&gt;&#39;: stability index" in page
    assert 'id="drift"' in page
    assert "0.95" in page
    assert "<x>" not in page


def test_too_few_samples_are_not_called_nothing_has_drifted() -> None:
    few = "The last line has too few samples to judge drift: 49, at least 50 are needed."
    page = render_log("log.jsonl", [line(1.0), line(4.0, samples=49)], BASELINE)
    assert f'<p class="verdict">{few}</p>' in page
    assert "Nothing has drifted." not in page
    page = render_log("log.jsonl", [line(4.0), line(4.0, samples=49)], BASELINE)
    assert f'<p class="verdict">{few} There were alarms from 1970-01-02 00:00:00 UTC.</p>' in page


def test_kernels_are_listed_with_those_that_were_expected() -> None:
    seen = structs.replace(
        line(1.0),
        kernels={"fc": {"bags4": 3, "dequantize": 1200}, "head": {"bags8": 1203}},
        fallbacks=[Fallback("fc", "dequantize", "bags4", 1200)],
    )
    page = render_log("log.jsonl", [seen], BASELINE)
    assert '<th scope="row">fc</th><td>bags4 3, dequantize 1,200</td><td>bags4</td>' in page
    assert '<th scope="row">head</th><td>bags8 1,203</td><td>' in page
    assert "kernel in &#39;fc&#39;: dequantize ran instead of bags4, 1,200 times" in page
    assert "Which kernels ran is not known" in render_log("log.jsonl", [line(1.0)], BASELINE)


def test_a_short_log_without_drift_has_no_plot() -> None:
    page = render_log("log.jsonl", [line(1.0)], BASELINE)
    assert "Nothing has drifted." in page
    assert 'id="drift"' not in page
    assert "no call was shadowed" in page
