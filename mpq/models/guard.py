"""Refuses a torch.export archive that could run code of its own while it is loaded.

`torch.export.load` unpickles some payloads, loads compiled libraries, evaluates symbolic expressions, and writes names into
generated Python. An ordinary archive uses none of the first two, and only plain names in the rest; anything else is refused
before torch sees it. The archive is read with torch's own reader, so both see the same records.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader

from mpq.errors import ModelError

_NAME = re.compile(r"[\w.\-]*")
_NAME_KEYS = ("name", "as_name", "fqn", "forward_arg_names", "field_names")
_OPERATOR = re.compile(r"torch\.ops\.(?!__)\w+\.\w+\.(?!__)\w+|torch\.ops\.higher_order\.(?!__)\w+")
_FUNCTION = re.compile(
    r"torch\.sym_\w+|math\.(ceil|floor|trunc)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift)"
)
_TREE = re.compile(r"[\w\s\[\]{}\":,.\-\\]*")
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_FORBIDDEN_IN_EXPRESSION = re.compile(r"__|\.\s*[A-Za-z_]|[^\w\s'(),.+\-*/%=<>&|~]")
_WORDS = """
    Symbol Integer Float Rational Add Mul Pow Max Min Abs Not And Or Eq Ne Lt Le Gt Ge Mod floor ceiling sqrt oo nan
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Piecewise ExprCondPair true false True False
    BooleanTrue BooleanFalse Half One Zero NegativeOne Infinity NegativeInfinity precision positive integer nonnegative real
    nonzero negative zero evaluate FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift
    RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt
    RoundDecimal ToFloat Identity
"""


def check_archive(file: IO[bytes], source: str) -> None:
    """Refuse an archive with anything in it that loading would run; the file is rewound.

    Raises:
        ModelError: naming what was found and `--trust`.
    """
    with PT2ArchiveReader(file) as reader:  # type: ignore[arg-type, unused-ignore]
        for record in reader.get_file_names():
            found = _check_record(record, reader)
            if found:
                raise ModelError(f"{source} holds {found}, which may run code when loaded: if you trust the file, add --trust")
    file.seek(0)


def _check_record(record: str, reader: PT2ArchiveReader) -> str | None:
    if record.startswith("data/aotinductor/"):
        return "a compiled library"
    if record.startswith("models/"):
        return next(_suspects(json.loads(reader.read_string(record))), None)
    if record.startswith("data/sample_inputs/"):
        return _check_inputs(reader.read_bytes(record))
    if record.startswith(("data/weights/", "data/constants/")) and record.endswith(".json"):
        return _check_payloads(json.loads(reader.read_string(record)))
    if record.startswith(("data/weights/", "data/constants/")) and record.endswith(".pt"):
        return "pickled tensors"
    return None


def _check_inputs(content: bytes) -> str | None:
    if not content:
        return None
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:  # whatever the reason, torch.export.load would go on to unpickle it
        return "example inputs that are Python objects"
    return None


def _check_payloads(payloads: dict[str, Any]) -> str | None:
    for name, payload in payloads["config"].items():
        if payload["use_pickle"] or not payload["path_name"].startswith(("weight_", "tensor_")):
            return f"the pickled object '{name[:80]}'"
        if not _NAME.fullmatch(name):
            return f"the unusual name {name[:80]!r}"
    return None


def _suspects(node: Any, key: str = "") -> Iterator[str]:
    """Everything in the program's JSON that is not of the expected form."""
    if isinstance(node, dict):
        for inner_key, value in node.items():
            yield from _suspects(value, inner_key)
    elif isinstance(node, list):
        for value in node:
            yield from _suspects(value, key)
    elif isinstance(node, str) and not _is_plain(key, node):
        yield f"the unusual {key} {node[:80]!r}"


def _is_plain(key: str, text: str) -> bool:
    if key in _NAME_KEYS or key.endswith("_name"):
        return bool(_NAME.fullmatch(text))
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text) or _FUNCTION.fullmatch(text))
    if key == "expr_str":
        return not _FORBIDDEN_IN_EXPRESSION.search(text) and all(_is_known(word) for word in _WORD.findall(text))
    if key in ("in_spec", "out_spec"):
        return bool(_TREE.fullmatch(text)) and not any(word in text for word in ("\\u", "__enum__", "default_factory"))
    return True


def _is_known(word: str) -> bool:
    return word in _WORDS.split() or bool(_SYMBOL.fullmatch(word))
