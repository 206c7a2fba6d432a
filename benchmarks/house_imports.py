"""Which file of a package imports which, and the circles among them, read from the source alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

Graph = dict[str, set[str]]


def import_graph(package: str, trees: Mapping[str, ast.Module], for_types: bool = False) -> Graph:
    """Files that each file imports, also inside functions.

    An import in an `if TYPE_CHECKING:` block never runs, so it counts only with `for_types`.

    Args:
        package: Name of the package, such as `mpq`.
        trees: Parsed files by path relative to the package.
        for_types: Whether to count imports for types, too.
    """
    files = {_module(package, name): name for name in trees}
    return {
        name: {files[each] for each in _imported(tree, _module(package, name), name, files, for_types)} - {name}
        for name, tree in trees.items()
    }


def _module(package: str, name: str) -> str:
    return ".".join([package, *name.removesuffix(".py").split("/")]).removesuffix(".__init__")


def _imported(tree: ast.Module, module: str, name: str, files: Mapping[str, str], for_types: bool) -> Iterator[str]:
    for node in _running(tree, for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, name.endswith("__init__.py"))
            for alias in node.names:
                named = f"{base}.{alias.name}"
                yield from (each for each in ([named] if named in files else [base]) if each in files)


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module that a `from` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *filter(None, [node.module])])


def _running(node: ast.AST, for_types: bool) -> Iterator[ast.AST]:
    """All nodes below, without those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and _type_checking(child.test) and not for_types:
            for other in child.orelse:
                yield other
                yield from _running(other, for_types)
        else:
            yield from _running(child, for_types)


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """The groups of two or more files that import each other, directly or by way of others; each group sorted."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in ahead if name in reached[other])) for name, ahead in reached.items() if name in ahead}
    return sorted(groups)


def _reached(graph: Graph, start: str) -> set[str]:
    """Every file that `start` imports, directly or by way of others."""
    found: set[str] = set()
    left = [start]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found
