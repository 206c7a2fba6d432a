"""Mutations of bytes, of trees (JSON and YAML), and of archives: each a function of a random generator, so that a seed repeats it."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import yaml

Mutate = Callable[[bytes, random.Random], bytes]
"""Other bytes made from these."""
_TOKENS = (
    b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"99999999999999999999999", b"null", b"true", b"[]", b"{}", b'""', b"\x00", b"\xff\xfe",
    b"\xed\xa0\x80", b"\r", b"\n\n", b"\x1b[31m", b"::error::x", b"../../x", b"!!python/name:os.system", b"&a [*a]", b"*a", b"---\n", b"\t",
    b": ", b"[" * 2000, b"{a: " * 500, b"%", b"$(x)", b"int4", b"int99-g0", b"0x0", b"-3x-4", b"9" * 400,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**40, 0.0, -0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), "",
    "x", "0", "-1", "nan", "1e999", "int4", "int2-g1", "fp16", "int4-g0", "8x8", "0x0", "-1x3", "9999999999x9999999999", "auto", "\x00",
    "\x1b[2J", "\n::error::x", "x" * 5000, "\ud800", "é" * 40, "../../etc/passwd", "os:system", "re:(", "re:(a+)+$", "*", "[", "4.5bits",
    "-3%", "1e400MB", [], {}, [None], [[]], [0] * 50, [{}], {"": None}, {"a": {"b": {"c": []}}}, ["x", 1, None], {"path": 3}, {"0": "int4"},
)  # fmt: skip
_STRAYS = ("", "unknown", "mpq_plan", "version", "layers", "0", "__class__", "model", "x" * 300)
_LEVELS = 400
Tree = Any


def mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """One to four changes of bytes: flipped, replaced, cut, doubled, moved, or a token put in."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        data = generator.choice(_CHANGES)(data, generator)
    return bytes(data)


def _flip(data: bytearray, generator: random.Random) -> bytearray:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return data


def _replace(data: bytearray, generator: random.Random) -> bytearray:
    if data:
        data[generator.randrange(len(data))] = generator.choice((0, 255, 32, 10, generator.randrange(256)))
    return data


def _cut(data: bytearray, generator: random.Random) -> bytearray:
    start, end = _span(data, generator)
    del data[start:end]
    return data


def _truncate(data: bytearray, generator: random.Random) -> bytearray:
    return data[: generator.randrange(len(data) + 1)]


def _double(data: bytearray, generator: random.Random) -> bytearray:
    start, end = _span(data, generator)
    return data[:end] + data[start:end] + data[end:]


def _move(data: bytearray, generator: random.Random) -> bytearray:
    start, end = _span(data, generator)
    piece, rest = data[start:end], data[:start] + data[end:]
    place = generator.randrange(len(rest) + 1)
    return rest[:place] + piece + rest[place:]


def _token(data: bytearray, generator: random.Random) -> bytearray:
    place, token = generator.randrange(len(data) + 1), generator.choice(_TOKENS)
    end = place + generator.choice((0, 0, 1, len(token)))
    return data[:place] + token + data[end:]


def _number(data: bytearray, generator: random.Random) -> bytearray:
    """Eight bytes become a number that lengths and offsets are made of."""
    place = generator.randrange(max(1, len(data) - 8))
    size = generator.choice((1, 2, 4, 8))
    value = generator.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1, len(data), generator.randrange(2**16)))
    data[place : place + size] = (value % 256**size).to_bytes(size, "little")
    return data


_CHANGES: Sequence[Callable[[bytearray, random.Random], bytearray]] = (_flip, _replace, _cut, _truncate, _double, _move, _token, _number)


def _span(data: bytearray, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(data) + 1)
    return start, min(len(data), start + generator.choice((1, 2, 8, 64, 500)))


def mutate_tree(tree: Tree, generator: random.Random) -> Tree:
    """A copy with one to three nodes replaced, removed, renamed, nested or doubled; the given tree is unchanged."""
    changed = {"root": copy.deepcopy(tree)}
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        places = list(_places(changed))
        parent, key = generator.choice(places)
        _change(parent, key, [p[key_] for p, key_ in places], generator)
    return changed["root"]


def _places(node: Tree) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found += [(node, key), *_places(node[key])]
    return found


def _change(parent: Any, key: Any, others: Sequence[Any], generator: random.Random) -> None:
    kind = generator.randrange(10)
    if kind < 5:
        parent[key] = copy.deepcopy(generator.choice(_VALUES))  # else a later change would change the list of values, for all cases
    elif kind == 5 and key != "root":
        del parent[key]
    elif kind == 6 and isinstance(parent, dict) and key != "root":
        parent[generator.choice(_STRAYS)] = parent.pop(key)
    elif kind == 7 and isinstance(parent[key], dict):
        parent[key][generator.choice(_STRAYS)] = copy.deepcopy(generator.choice(others))
    elif kind == 8:
        parent[key] = copy.deepcopy(generator.choice(others))
    else:
        parent[key] = _near(parent[key], generator)


def _near(value: Any, generator: random.Random) -> Any:
    """A value of the same kind, or the same value in another kind."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return generator.choice((-value, value + 1, value * 10**6, str(value), [value], float(value), 0))
    if isinstance(value, str):
        return generator.choice((value + "x", value.upper(), value[:-1], [value], {value: value}, value * 40, f"\x1b{value}\n"))
    if isinstance(value, list):
        return generator.choice((value * 2, value[:-1], [value], dict(enumerate(value)), value[:1] * 300))
    return [list(pair) for pair in value.items()] if generator.random() < 0.5 else [value]


def nested(levels: int, tree: Tree) -> Tree:
    """`tree` inside so many lists."""
    for _ in range(levels):
        tree = [tree]
    return tree


def dump_json(tree: Tree) -> bytes:
    """JSON, with NaN and lone surrogates where they are."""
    return json.dumps(tree, default=str).encode()


def dump_yaml(tree: Tree) -> bytes:
    """YAML; JSON, which YAML reads too, where the tree cannot be dumped otherwise."""
    try:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
    except (yaml.YAMLError, UnicodeError):
        return dump_json(tree)


def mutate_json(content: bytes, generator: random.Random) -> bytes:
    """JSON with a mutated tree, now and then nested deeply."""
    tree = mutate_tree(json.loads(content), generator)
    return dump_json(nested(_LEVELS, tree) if generator.random() < 0.01 else tree)


def mutate_yaml(content: bytes, generator: random.Random) -> bytes:
    """YAML with a mutated tree."""
    return dump_yaml(mutate_tree(yaml.safe_load(content), generator))


def mutate_lines(content: bytes, generator: random.Random) -> bytes:
    """Lines of JSON: one with a mutated tree, or lines removed, doubled or swapped."""
    lines = content.splitlines(keepends=True)
    number, kind = generator.randrange(len(lines)), generator.randrange(6)
    if kind < 3:
        lines[number] = mutate_json(lines[number], generator) + b"\n"
    elif kind == 3:
        del lines[number]
    elif kind == 4:
        lines.insert(generator.randrange(len(lines) + 1), lines[number])
    else:
        lines[number] = lines[number].rstrip(b"\n")
    return b"".join(lines)


def mutate_safetensors(content: bytes, generator: random.Random) -> bytes:
    """A safetensors file with a mutated header; what mpq says in it is JSON within JSON, mutated as often."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    told = header.get("__metadata__", {}).get("mpq")
    if told is not None and generator.random() < 0.6:
        header["__metadata__"]["mpq"] = mutate_json(told.encode(), generator).decode()
    else:
        header = mutate_tree(header, generator)
    raw = dump_json(header)
    raw += b" " * (-len(raw) % 8)
    stated = len(raw) if generator.random() < 0.95 else generator.choice((0, 1, 2**40, 2**63, len(raw) - 1))
    return stated.to_bytes(8, "little") + raw + content[8 + length :]


def mutate_zip(content: bytes, generator: random.Random) -> bytes:
    """An archive with one record changed, renamed, removed, doubled or put in."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number, kind = generator.randrange(len(records)), generator.randrange(8)
    name, data = records[number]
    if kind < 4:
        records[number] = (name, _mutated_record(name, data, generator))
    elif kind == 4:
        records[number] = (generator.choice((name.upper(), name + "x", name.replace("/", "//"), "../" + name, name[:-1] or "y")), data)
    elif kind == 5:
        del records[number]
    elif kind == 6:
        records.append((name.title(), _mutated_record(name, data, generator)))
    else:
        records[number] = (name, generator.choice(records)[1])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", generator.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, value in records:
            archive.writestr(zipfile.ZipInfo(each), value)
    return made.getvalue()


def _mutated_record(name: str, data: bytes, generator: random.Random) -> bytes:
    if name.endswith(".json") and generator.random() < 0.8:
        return mutate_json(data, generator)
    return mutate_bytes(data, generator)
