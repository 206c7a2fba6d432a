"""How well the source is kept: file and function sizes, annotations, import circles, room sizes, and tests next to the source.

    python -m benchmarks.house [--list] [--json] [--source mpq] [--tests tests]

Prints one line per measure with its bar and exits with 1 if a bar is missed; `--list` names the offenders of each measure.
Files are only parsed, never imported, so nothing has to be installed.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.house_imports import circles, import_graph

Function = ast.FunctionDef | ast.AsyncFunctionDef
FILE_LINES, FUNCTION_LINES = 300, 20


@dataclass(frozen=True)
class Measure:
    """One row of the table: a value, its bar (None where there is none), and what keeps it from being better."""

    name: str
    value: float
    bar: str | None
    met: bool
    offenders: tuple[str, ...]
    unit: str = ""

    @property
    def text(self) -> str:
        """The value as it is printed."""
        share = math.floor(self.value * 1000) / 10  # rounded down, so that 100% means all
        return f"{share:.1f}%" if self.unit == "%" else f"{self.value:g}" if self.value == int(self.value) else f"{self.value:.2f}"


@dataclass(frozen=True)
class Source:
    """The parsed files of a package by path relative to its folder, such as `search/run.py`."""

    package: str
    trees: Mapping[str, ast.Module]
    lines: Mapping[str, int]

    @property
    def total(self) -> int:
        """Lines of all files together."""
        return sum(self.lines.values())


def read(folder: Path) -> Source:
    """Parse every Python file below `folder`."""
    texts = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    trees = {name: ast.parse(text, filename=name) for name, text in texts.items()}
    return Source(folder.name, trees, {name: len(text.splitlines()) for name, text in texts.items()})


def measures(source: Source, tests: Source) -> list[Measure]:
    """All measures of a source tree and its tests."""
    return [
        *_files(source),
        _functions(source),
        _annotated(source),
        *_circles(source),
        _rooms(source),
        _untested(source, tests),
        _ratio(source, tests),
    ]


def _files(source: Source) -> Iterator[Measure]:
    lengths = source.lines.values()
    yield Measure("files", len(lengths), None, True, ())
    yield Measure("median file, lines", statistics.median(lengths), None, True, ())
    long = tuple(f"{name}: {count} lines" for name, count in _largest(source.lines) if count > FILE_LINES)
    yield Measure("longest file, lines", max(lengths), f"at most {FILE_LINES}", not long, long)


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: -each[1])


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function and method, nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end of the body, signature and docstring included, decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _functions(source: Source) -> Measure:
    lengths = {f"{name}:{each.lineno} {each.name}": length(each) for name, tree in source.trees.items() for each in functions(tree)}
    long = tuple(f"{name}: {count} lines" for name, count in _largest(lengths) if count > FUNCTION_LINES)
    share = 1 - len(long) / max(len(lengths), 1)
    return Measure(f"functions of {FUNCTION_LINES} lines or fewer", share, "at least 92%", share >= 0.92, long, "%")


def slots(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Line, name and whether it is annotated, of every argument but `self` and `cls`, and of every return value."""
    methods = {id(node) for each in ast.walk(tree) if isinstance(each, ast.ClassDef) for node in each.body}
    for function in functions(tree):
        given = function.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list)
        bound = id(function) in methods and (not static or function.name == "__new__")
        for argument in arguments[1 if bound else 0 :]:
            yield argument.lineno, f"{function.name}({argument.arg})", argument.annotation is not None
        yield function.lineno, f"{function.name} -> ?", function.returns is not None


def _annotated(source: Source) -> Measure:
    found = [(name, *slot) for name, tree in source.trees.items() for slot in slots(tree)]
    bare = tuple(f"{name}:{line} {text}" for name, line, text, annotated in found if not annotated)
    return Measure("annotated arguments and returns", 1 - len(bare) / max(len(found), 1), "100%", not bare, bare, "%")


def _circles(source: Source) -> Iterator[Measure]:
    found = circles(import_graph(source.package, source.trees))
    yield Measure("circles of files", len(found), "0", not found, tuple(" <-> ".join(each) for each in found))
    for_types = [each for each in circles(import_graph(source.package, source.trees, for_types=True)) if each not in found]
    yield Measure("circles with imports for types only", len(for_types), None, True, tuple(" <-> ".join(each) for each in for_types))


def _rooms(source: Source) -> Measure:
    """A room is a folder; a sub-room such as models/sources is a room of its own, and the files at the top are one."""
    rooms: Counter[str] = Counter()
    for name, count in source.lines.items():
        rooms[Path(name).parent.as_posix()] += count
    shares = [(room, count / source.total) for room, count in rooms.most_common()]
    large = tuple(f"{room}: {share:.1%}" for room, share in shares if share > 0.15)
    return Measure(f"largest room ({shares[0][0]})", shares[0][1], "at most 15%", not large, large, "%")


def behaves(tree: ast.Module) -> bool:
    """Whether a file has public behaviour: a public function, or a public class with a method that does something."""
    public = [node for node in tree.body if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")]
    return any(_acts(each) for node in public for each in (node.body if isinstance(node, ast.ClassDef) else [node]))


def _acts(node: ast.stmt) -> bool:
    """Whether this is a function with more in it than a docstring, `...` or `pass`."""
    return isinstance(node, Function) and any(
        not isinstance(each, ast.Pass) and not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)) for each in node.body
    )


def mirror(name: str) -> str:
    """The test file of a source file: `search/run.py` -> `search/test_run.py`, `demo/__init__.py` -> `demo/test_demo.py`."""
    path = Path(name)
    stem = path.parent.name if path.stem == "__init__" else path.stem
    return (path.parent / f"test_{stem.removeprefix('_')}.py").as_posix()


def _untested(source: Source, tests: Source) -> Measure:
    tested = {name for name, tree in tests.trees.items() if any(each.name.startswith("test_") for each in functions(tree))}
    acting = [name for name, tree in source.trees.items() if name not in ("__init__.py", "__main__.py") and behaves(tree)]
    missing = tuple(f"{name}: no tests/{mirror(name)}" for name in acting if mirror(name) not in tested)
    return Measure("source files without a test file", len(missing), "0", not missing, missing)


def _ratio(source: Source, tests: Source) -> Measure:
    ratio = tests.total / max(source.total, 1)
    return Measure("test lines per source line", ratio, "at least 0.9", ratio >= 0.9, ())


def table(found: list[Measure], offenders: bool) -> str:
    """One line per measure; with `offenders` the names below each."""
    lines = []
    for each in found:
        verdict = "" if each.bar is None else "  ok" if each.met else "  MISSED"
        lines.append(f"{each.name:<40}{each.text:>8}  {each.bar or '':<14}{verdict}".rstrip())
        lines += [f"    {one}" for one in each.offenders] if offenders else []
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("mpq"))
    parser.add_argument("--tests", type=Path, default=Path("tests"))
    parser.add_argument("--list", action="store_true", help="name the offenders of each measure")
    parser.add_argument("--json", action="store_true", help="print JSON, offenders included")
    options = parser.parse_args(arguments)
    for folder in (options.source, options.tests):
        if not any(folder.rglob("*.py")):
            parser.error(f"{folder} holds no Python files; run this in the repository or pass --source and --tests")
    found = measures(read(options.source), read(options.tests))
    print(json.dumps([asdict(each) for each in found], indent=2) if options.json else table(found, options.list))
    return int(not all(each.met for each in found))


if __name__ == "__main__":
    sys.exit(main())
