"""Damaged and hostile variants of files: of bytes, of lines, and of the tree of values that a document stands for.

Seeded: the same seed gives the same variants. `benchmarks` may draw many, the tests draw a few.
"""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

_RAW = "@@raw@@"
LONG = "x" * 100_000
CONTROL = "a\x1b[31m\n::error file=x::bad\r\u202e\u0000[red]##[error]%0A"
RAW_NUMBERS = ("1e309", "-1e309", "NaN", ".nan", ".inf", "Infinity", "9" * 5000, "-0.0", "1e-320", "0x" + "f" * 5000, "1:" * 200 + "1")
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63 - 1,
    2**64,
    10**40,
    -(10**40),
    0.5,
    1e300,
    -1e300,
    5e-324,
    "",
    LONG,
    CONTROL,
    "int4",
    "4.5bits",
    "9" * 40 + "bits",
    "0.0000001bits",
    "int4-g" + "9" * 60,
    "10x10",
    "0x0",
    f"{10**15}x{10**15}",
    "re:(",
    "../../etc/passwd",
    "**/**/**/**/x",
    "a\0b",
    [],
    {},
    [[]],
    [None],
    [1, "a", None],
    {"a": {"b": [1]}},
    {"": None},
    {CONTROL: CONTROL},
    [0.1] * 1000,
    *(f"{_RAW}{text}" for text in RAW_NUMBERS),
)


def byte_mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Variants of bytes: flipped, cut, repeated, inserted and replaced ones."""
    draw = random.Random(seed)
    tokens = (
        b"[",
        b"{",
        b"]",
        b"}",
        b":",
        b",",
        b'"',
        b"'",
        b"\n",
        b"\t",
        b"\0",
        b"\xff",
        b"- ",
        b"&a ",
        b"*a",
        b"!!x ",
        b"\xe2\x80\xae",
        b"99999",
    )
    for _ in range(count):
        made = bytearray(content)
        for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
            at = draw.randrange(len(made) + 1)
            until = min(len(made), at + draw.choice((1, 1, 4, 30, 400)))
            action = draw.randrange(6)
            if action == 0 and at < len(made):
                made[at] ^= 1 << draw.randrange(8)
            elif action == 1:
                del made[at:until]
            elif action == 2:
                made[at:at] = made[at:until] * draw.choice((1, 2, 50))
            elif action == 3:
                made[at:at] = draw.choice(tokens) * draw.choice((1, 1, 3, 200))
            elif action == 4:
                made[at:until] = bytes(draw.randrange(256) for _ in range(until - at))
            else:
                del made[at:]
        yield bytes(made)


def mutations(value: Any, seed: int, count: int) -> Iterator[Any]:
    """Variants of a tree of dicts, lists and scalars: a node is replaced, removed, given twice, moved, or gets a strange neighbor."""
    draw = random.Random(seed)
    for _ in range(count):
        made = copy.deepcopy(value)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            made = _mutated(made, draw)
        yield made


def as_json(value: Any) -> bytes:
    """A tree as JSON, with raw numbers as they are."""
    return _unquoted(json.dumps(value)).encode()


def as_yaml(value: Any) -> bytes:
    """A tree as YAML, with raw numbers as they are."""
    return _unquoted(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6)).encode()


def document_mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Variants of a document in JSON or YAML: half of its bytes, half of its tree."""
    try:
        tree, written = json.loads(content), as_json
    except ValueError:
        tree, written = yaml.safe_load(content), as_yaml
    yield from byte_mutations(content, seed, count // 2)
    yield from (written(made) for made in mutations(tree, seed, count - count // 2))


def line_mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Variants of a file of JSON lines: of its bytes, of one line's tree, or of the order and number of its lines."""
    draw = random.Random(seed)
    for number in range(count):
        lines = content.splitlines(keepends=True)
        at = draw.randrange(len(lines)) if draw.random() < 0.7 else 0
        if number % 4 == 0:
            yield next(byte_mutations(content, draw.randrange(2**32), 1))
            continue
        if number % 4 == 1:
            lines[at : at + 1] = draw.choice(([lines[at]] * 2, [], [lines[at], lines[0]], [lines[-1], lines[at]], [lines[at][:-9]]))
        else:
            lines[at] = as_json(next(mutations(json.loads(lines[at]), draw.randrange(2**32), 1))) + b"\n"
        yield b"".join(lines)


def _mutated(value: Any, draw: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return draw.choice(VALUES)
    parent, key = draw.choice(places)
    action = draw.randrange(10)
    if action < 6:
        parent[key] = copy.deepcopy(draw.choice(VALUES))
    elif action == 6:
        del parent[key]
    elif action == 7:
        other, there = draw.choice(places)
        parent[key] = copy.deepcopy(other[there])
    elif action == 8 and isinstance(parent, dict):
        parent[draw.choice(("stranger", "", CONTROL, LONG[:5000], "1", "null"))] = parent[key]
    elif isinstance(parent, dict):
        parent[draw.choice((CONTROL, LONG[:5000], str(key) + "x", "[red]x[/red]"))] = parent.pop(key)
    else:
        parent.extend([parent[key]] * draw.choice((1, 3, 1000)))
    if draw.random() < 0.02:
        return _nested(value, draw.choice((10, 40)))
    return value


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth > 50:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from _places(child, depth + 1)


def _unquoted(text: str) -> str:
    for number in RAW_NUMBERS:
        for quoted in (f'"{_RAW}{number}"', f"'{_RAW}{number}'"):
            text = text.replace(quoted, number)
    return text
