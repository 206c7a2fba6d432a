from pathlib import Path
from xml.etree import ElementTree

import pytest

from mpq.check.judge import Verdict
from mpq.check.outputs import annotate, append_summary, junit, summary
from mpq.check.run import Check
from mpq.files import OutputError

GOOD = Check("size", True, "10 bytes under")
BAD = Check("forbidden schemes", False, "1 of 2 layers, 50%", ("a.b: int2 is forbidden",), "a.b")
VERDICTS = [Verdict("plan.yaml", "rule 1", (GOOD, BAD))]


def test_a_failed_check_is_annotated_at_the_line_of_its_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text("mpq_plan: 1\nlayers:\n  a: int4\n  a.b: int2\nshapes:\n  a.b: 1x1\n")
    assert annotate(VERDICTS) == [
        "::error file=plan.yaml,line=4,title=mpq check%3A forbidden schemes::1 of 2 layers, 50%25%0Aa.b: int2 is forbidden"
    ]


def test_what_passed_is_not_annotated() -> None:
    assert annotate([Verdict("plan.yaml", "rule 1", (GOOD,))]) == []


def test_the_summary_counts_and_lists_all_checks() -> None:
    lines = summary(VERDICTS).splitlines()
    assert lines[0] == "### mpq check: 1 of 2 checks failed"
    assert lines[-1].endswith("| forbidden schemes | 1 of 2 layers, 50%<br>a.b: int2 is forbidden |")
    assert summary([Verdict("p", "r", (GOOD,))]).startswith("### mpq check: all 1 checks passed")


def test_a_name_cannot_break_out_of_the_summary() -> None:
    text = summary([Verdict("p", "r", (Check("x", False, "a|b <img>"),))])
    assert "a\\|b &lt;img>" in text


def test_the_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    append_summary(VERDICTS, path)
    assert path.read_text() == "before\n" + summary(VERDICTS)
    with pytest.raises(OutputError, match="unset GITHUB_STEP_SUMMARY to go without"):
        append_summary(VERDICTS, tmp_path / "no" / "summary.md")


def test_junit_has_a_case_per_check() -> None:
    root = ElementTree.fromstring(junit(VERDICTS).encode())
    (suite,) = root
    assert (suite.attrib["name"], suite.attrib["tests"], suite.attrib["failures"]) == ("rule 1: plan.yaml", "2", "1")
    assert [(case.attrib["name"], case[0].tag) for case in suite] == [("size", "system-out"), ("forbidden schemes", "failure")]
    assert suite[1][0].text == "1 of 2 layers, 50%\na.b: int2 is forbidden"
