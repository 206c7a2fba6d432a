"""Verdicts for CI systems: GitHub annotations and step summary, JUnit XML. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mpq.check.run import Check
from mpq.check.verdicts import Verdict
from mpq.errors import FormatError
from mpq.files import OutputError
from mpq.reading.documents import read_text
from mpq.reading.yaml_events import yaml_line
from mpq.shown import markdown, markdown_code, printable


def annotate(verdicts: Sequence[Verdict]) -> list[str]:
    """One workflow command of GitHub Actions per failed check; in a plan it points at the layer's line."""
    lines = []
    for verdict in verdicts:
        for check in verdict.checks:
            if check.passed:
                continue
            line = _line_of(Path(verdict.file), check.layer)
            place = f"file={_property(verdict.file)}" + (f",line={line}" if line else "")
            text = "\n".join(map(printable, [check.message, *check.details]))
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
            text = "<br>".join(markdown(each) for each in (check.message, *check.details))
            lines.append(f"| {'✅' if check.passed else '❌'} | {markdown_code(verdict.file)} | {markdown(check.name)} | {text} |")
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
        raise OutputError(f"cannot write {path}: {error.strerror or error}; unset GITHUB_STEP_SUMMARY to skip the summary") from error


def junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: one suite per rule and file, one case per check."""
    root = ElementTree.Element("testsuites", name="mpq check")
    for verdict in verdicts:
        failures = str(sum(not check.passed for check in verdict.checks))
        name = printable(f"{verdict.rule}: {verdict.file}")
        suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(len(verdict.checks)), failures=failures, errors="0")
        for check in verdict.checks:
            _case(suite, verdict.file, check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, file: str, check: Check) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=printable(file), name=printable(check.name), time="0")
    message = printable(check.message)
    if check.passed:
        ElementTree.SubElement(case, "system-out").text = message
    else:
        ElementTree.SubElement(case, "failure", message=message).text = "\n".join([message, *map(printable, check.details)])


def _line_of(path: Path, layer: str | None) -> int | None:
    """The line of a layer in a plan."""
    if layer is None or path.suffix not in (".yaml", ".yml"):
        return None
    try:
        text = read_text(path, error=FormatError, absent="name a plan")
    except FormatError:  # it existed when it was checked
        return None
    return yaml_line(text, ("layers", layer))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")
