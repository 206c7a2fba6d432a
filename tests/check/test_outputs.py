import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mpq.check.outputs import annotate, append_summary, junit, summary
from mpq.check.run import Check
from mpq.check.verdicts import Verdict
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
    with pytest.raises(OutputError, match="unset GITHUB_STEP_SUMMARY to skip the summary"):
        append_summary(VERDICTS, tmp_path / "no" / "summary.md")


def test_junit_has_a_case_per_check() -> None:
    root = ElementTree.fromstring(junit(VERDICTS).encode())
    (suite,) = root
    assert (suite.attrib["name"], suite.attrib["tests"], suite.attrib["failures"]) == ("rule 1: plan.yaml", "2", "1")
    assert [(case.attrib["name"], case[0].tag) for case in suite] == [("size", "system-out"), ("forbidden schemes", "failure")]
    assert suite[1][0].text == "1 of 2 layers, 50%\na.b: int2 is forbidden"


HOSTILE = "a\x1b[31m\x00\n::error::b\r\u202e##[error]%0A\ufffe[red] [x](http://y) `|<img>"


def hostile() -> list[Verdict]:
    return [
        Verdict(f"{HOSTILE}.yaml", HOSTILE, (Check(HOSTILE, False, HOSTILE, (HOSTILE, "second"), HOSTILE), Check(HOSTILE, True, HOSTILE)))
    ]


def test_names_cannot_forge_annotations() -> None:
    (line,) = annotate(hostile())
    assert line.startswith("::error file=")
    assert not [each for each in line if unicodedata.category(each) in ("Cc", "Cf")]
    assert "##[" not in line
    message = line.split("::", 2)[2]
    assert message.replace("%25", "").count("%") == 2  # the two line breaks between message and details
    assert "%0Asecond" in message


def test_names_cannot_forge_rows_links_or_commands_of_the_summary() -> None:
    lines = summary(hostile()).splitlines()
    assert len(lines) == 6
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines[4:])
    outside = lines[4].rpartition(".yaml` |")[2]  # of the code span with the file
    assert r"\[red\] \[x\](http" in outside
    assert "<img" not in outside


def test_junit_with_control_characters_parses_and_says_what_they_were() -> None:
    root = ElementTree.fromstring(junit(hostile()).encode())
    ((failed, passed),) = root
    assert "\\x1b[31m\\x00\\n" in str(failed[0].text)
    assert str(failed[0].text).endswith("\nsecond")
    assert "\\ufffe" in failed.attrib["name"]
    assert passed[0].tag == "system-out"


@pytest.mark.parametrize("name", ["'a.b'", '"a.b"', "a.b "])
def test_the_line_of_a_layer_is_found_as_yaml_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(f"x:\n  a.b: 1\nlayers:\n  a: int4\n  {name}: int2\n")
    assert "line=5" in annotate(VERDICTS)[0]
