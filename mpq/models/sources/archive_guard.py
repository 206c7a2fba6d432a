"""Checks a torch.export archive and rebuilds it without anything that could run its own code.

`torch.export.load` unpickles some records, loads compiled libraries, evaluates symbolic expressions, and writes names into generated
Python; and the graph may call any operator that is registered. An ordinary archive needs neither of the first two, has plain names in the
next two, and uses only operators that compute. Its records are read strictly (`sources/zip_records.py`), everything else is refused, and
torch gets an archive with the checked graph, the weights as plain bytes, and no pickle at all.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from mpq.data.tensors_only import load_tensors
from mpq.data.zip_records import Records
from mpq.errors import ModelError
from mpq.limits import GRAPH_BYTES, SHOWN_TEXT
from mpq.models.sources.allowed_operators import is_allowed
from mpq.models.sources.clean_archive import CleanArchive

MODEL = "model"  # the only program in an archive that is read
_OTHERS = re.compile(r"\.data/(version|serialization_id)|version|byteorder|\.format_version|\.storage_alignment|extra/.+")
_GRAPH = re.compile(r"models/[\w.\-]+\.json")
_PAYLOADS = re.compile(r"data/(weights/[\w.\-]+_weights|constants/[\w.\-]+_constants)_config\.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_INPUTS = re.compile(r"data/sample_inputs/[\w.\-]+\.pt")
_FIXED = {"archive_format": b"pt2", "archive_version": b"0"}
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


@dataclass(frozen=True)
class CheckedArchive:
    """The part of an archive that torch may read.

    Args:
        file: an archive of the checked records.
        example_inputs: positional and keyword inputs, if the archive has any.
    """

    file: CleanArchive
    example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None


def checked_archive(file: IO[bytes], source: str) -> CheckedArchive:
    """The part of an archive that torch may read; `file` stays in use.

    Raises:
        ModelError: naming what in the archive could run code, and `--trust`.
        RecordError: if the archive is damaged or ambiguous.
    """
    records = Records(file)
    for name in records:
        _refuse(_unknown(name, records), source)
    clean = CleanArchive(file)
    for name, content in (*_FIXED.items(), ("byteorder", b"little"), ("version", b"3\n")):
        clean.write_record(name, content)
    _place_graph(f"models/{MODEL}.json", records, clean, source)
    for config in (f"data/weights/{MODEL}_weights_config.json", f"data/constants/{MODEL}_constants_config.json"):
        _place_payloads(config, records, clean, source)
    clean.write_record(f"data/sample_inputs/{MODEL}.pt", b"")
    return CheckedArchive(clean.finish(), _example_inputs(f"data/sample_inputs/{MODEL}.pt", records, source))


def _refuse(found: str | None, source: str) -> None:
    if found:
        raise ModelError(f"{source} holds {found}, which may run code when loaded: if you trust the file, add --trust")


def _unknown(name: str, records: Records) -> str | None:
    if name in _FIXED:
        return None if records.read(name, len(_FIXED[name])) == _FIXED[name] else f"a different {name} than torch writes"
    if name == "byteorder" and records.read(name, 6) != b"little":
        return "numbers in another byte order"
    known = (_OTHERS, _GRAPH, _PAYLOADS, _TENSORS, _INPUTS)
    if any(pattern.fullmatch(name) for pattern in known):
        return None
    lower = name.lower()
    if lower.startswith("data/aotinductor/"):
        return "a compiled library"
    if lower.startswith(("data/weights/", "data/constants/")) and lower.endswith(".pt"):
        return "pickled tensors"
    return f"the unusual record {name[:SHOWN_TEXT]!r}"


def _place_graph(name: str, records: Records, clean: CleanArchive, source: str) -> None:
    program = json.loads(records.read(name, GRAPH_BYTES))
    _refuse(next(_suspects(program), None), source)
    program.pop("guards_code", None)  # Python code that mpq does not use
    clean.write_record(name, json.dumps(program).encode())


def _place_payloads(name: str, records: Records, clean: CleanArchive, source: str) -> None:
    """The list of the weights or constants, and their bytes."""
    payloads = json.loads(records.read(name, GRAPH_BYTES))
    folder = name.rpartition("/")[0]
    places: dict[str, None] = {}
    for key, payload in payloads["config"].items():
        path = payload["path_name"]
        if payload["use_pickle"] is not False or not isinstance(path, str) or not _TENSORS.fullmatch(f"{folder}/{path}"):
            _refuse(f"the pickled object '{key[:SHOWN_TEXT]}'", source)
        if not _NAME.fullmatch(key):
            _refuse(f"the unusual name {key[:SHOWN_TEXT]!r}", source)
        places[f"{folder}/{path}"] = None
    clean.write_record(name, json.dumps(payloads).encode())
    for place in places:
        clean.place(place, records)


def _example_inputs(name: str, records: Records, source: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if name not in records or not records.size(name):
        return None
    content = records.read(name, records.size(name))
    try:
        found = load_tensors(io.BytesIO(content))
    except Exception:  # otherwise torch.export.load would unpickle it
        found = None
    match found:
        case (tuple() as args, dict() as kwargs) if all(isinstance(key, str) for key in kwargs):
            return args, kwargs
    _refuse("example inputs that are Python objects", source)
    return None


def _suspects(node: Any, key: str = "") -> Iterator[str]:
    """Everything in the program's JSON that does not have the expected form."""
    if isinstance(node, dict):
        for inner_key, value in node.items():
            yield from _suspects(value, inner_key)
    elif isinstance(node, list):
        for value in node:
            yield from _suspects(value, key)
    elif isinstance(node, str) and not _is_plain(key, node):
        yield f"the unusual {key} {node[:SHOWN_TEXT]!r}"


def _is_plain(key: str, text: str) -> bool:
    if key in _NAME_KEYS or key.endswith("_name"):
        return bool(_NAME.fullmatch(text))
    if key in ("target", "as_operator"):
        return bool(_FUNCTION.fullmatch(text)) or (bool(_OPERATOR.fullmatch(text)) and is_allowed(text))
    if key == "expr_str":
        return not _FORBIDDEN_IN_EXPRESSION.search(text) and all(_is_known(word) for word in _WORD.findall(text))
    if key in ("in_spec", "out_spec"):
        return bool(_TREE.fullmatch(text)) and not any(word in text for word in ("\\u", "__enum__", "default_factory"))
    return True


def _is_known(word: str) -> bool:
    return word in _WORDS.split() or bool(_SYMBOL.fullmatch(word))
