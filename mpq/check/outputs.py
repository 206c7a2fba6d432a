"""Verdicts for machines that run checks: GitHub annotations and step summary, JUnit XML. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mpq.check.judge import Verdict
from mpq.check.run import Check
from mpq.files import OutputError


def annotate(verdicts: Sequence[Verdict]) -> list[str]:
    """One workflow command of GitHub Actions per failed check; in a plan it points at the layer's line."""
    lines = []
    for verdict in verdicts:
        for check in verdict.checks:
            if check.passed:
                continue
            line = _line_of(Path(verdict.file), check.layer)
            place = f"file={_property(verdict.file)}" + (f",line={line}" if line else "")
            text = "\n".join([check.message, *check.details])
            lines.append(f"::error {place},title={_property(f'mpq check: {check.name}')}::{_data(text)}")
    return lines


def summary(verdicts: Sequence[Verdict]) -> str:
    """A Markdown table of all checks, for a step summary or a comment."""
    failed = sum(not check.passed for verdict in verdicts for check in verdict.checks)
    whole = sum(len(verdict.checks) for verdict in verdicts)
    head = f"{failed} of {whole} checks failed" if failed else f"all {whole} checks passed"
    lines = [f"### mpq check: {head}", "", "| | file | check | result |", "|---|---|---|---|"]
    for verdict in verdicts:
        for check in verdict.checks:
            text = "<br>".join(_cell(each) for each in (check.message, *check.details))
            lines.append(f"| {'✅' if check.passed else '❌'} | `{_cell(verdict.file)}` | {_cell(check.name)} | {text} |")
    return "\n".join([*lines, ""])


def append_summary(verdicts: Sequence[Verdict], path: Path) -> None:
    """Append the summary to the file that GitHub shows on the page of a run.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(summary(verdicts))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; unset GITHUB_STEP_SUMMARY to go without") from error


def junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: one suite per rule and file, one case per check."""
    root = ElementTree.Element("testsuites", name="mpq check")
    for verdict in verdicts:
        failures = str(sum(not check.passed for check in verdict.checks))
        name = f"{verdict.rule}: {verdict.file}"
        suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(len(verdict.checks)), failures=failures, errors="0")
        for check in verdict.checks:
            _case(suite, verdict.file, check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, file: str, check: Check) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=file, name=check.name, time="0")
    if check.passed:
        ElementTree.SubElement(case, "system-out").text = check.message
    else:
        ElementTree.SubElement(case, "failure", message=check.message).text = "\n".join([check.message, *check.details])


def _line_of(path: Path, layer: str | None) -> int | None:
    """The line of a layer in a plan."""
    if layer is None or path.suffix not in (".yaml", ".yml"):
        return None
    inside = False
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if inside and line.strip().startswith((f"{layer}:", f"'{layer}':", f'"{layer}":')):
            return number
        inside = line.startswith("layers:") or (inside and line.startswith((" ", "#")))
    return None


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
