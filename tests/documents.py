"""Documents whose examples are run: `console` blocks as they are typed, `python` blocks in one namespace, all in the document's order."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mpq.cli import load_cost
from mpq.runtime import speed
from mpq.verify import run as verify
from tests.cli import warm
from tests.cli.typed import ROOT, done, typed

_MASKS = (
    (
        r"\b(table optimum|optimum with interactions|starting plan|gradient search|re-weighted table|learned errors|layer swaps"
        r"|least measured error|model)\b",
        "stage",
    ),
    (r"\bint\d(-asym)?(-g\d+)?|\bfp16\b", "scheme"),
    (r"\b(stem\.0|middle\.0|reduce\.0|depthwise\.0|pointwise\.0|head)(?=[: ])", "layer"),
    (r"█+", "█"),
    (r"[+-]?[\d.,±%]+(?:e-\d+)?", "#"),
)


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that it is shown to print."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, *shown in (part.splitlines() for part in parts)]


def plain(line: str) -> str:
    """A line without its figures, layers, schemes and stages, which another machine may give otherwise."""
    for pattern, word in _MASKS:
        line = re.sub(pattern, word, line)
    return " ".join(line.split())


def run(path: Path, only: Sequence[str] = ("console", "python")) -> None:
    """Run the examples of a document in this folder; a command prints, but for figures, what it is shown to print."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_cost, "subprocess", warm)
        patch.setattr(verify, "subprocess", warm)
        patch.setattr(speed, "_MOST", 10)  # rounds, in place of two seconds
        for language, text in blocks(path):
            if language == "console" and language in only:
                for command, shown in commands(text):
                    _run_command(command, shown)
            elif language == "python" and language in only:
                exec(compile(text, path.name, "exec"), names)


def _run_command(command: str, shown: Sequence[str]) -> None:
    if not command.startswith("mpq "):
        subprocess.run(command, shell=True, check=True)
        return
    failing = any(line.startswith("FAIL") for line in shown)
    ran = typed(command.removeprefix("mpq ")) if failing else done(command.removeprefix("mpq "))
    assert ran.code == int(failing), command
    printed = [plain(line) for line in (ran.out + ran.err).splitlines()]
    missing = [line for line in shown if not any(plain(line) in one for one in printed)]
    assert missing == [], (command, ran.out + ran.err)


def dead_links(path: Path) -> list[str]:
    """Targets of links and pictures that are not in the repository."""
    return [target for target in targets(path) if not (path.parent / target).exists()]


def targets(path: Path) -> list[str]:
    """Targets of links and pictures within the repository."""
    found = re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"#]+)", path.read_text())
    return [target for target in found if "://" not in target]


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
