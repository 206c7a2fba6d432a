"""Small files that grow, and large ones that claim to be small: each must be refused, in 5 s and 1 GB."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.faults import zip_bombs
from benchmarks.faults.context import Context, faults_of
from benchmarks.faults.forks import SECONDS, Ended, run_one
from benchmarks.faults.readers import READERS
from benchmarks.faults.report import Fault, Row
from benchmarks.faults.watched import Watched, watched

PART = "bombs"
_LEVELS = 100_000
_SHORT = (
    "yaml alias in plan",
    "yaml nested in config",
    "json list in index",
    "json closed in sensitivity",
    "zip bomb in npz",
    "xz bomb in an artifact's program",
    "a header of 900,000,000 bytes in artifact",
    "3 GB of sensitivity",
    "npy of (1099511627776,)",
    "a model of 10^12 weights",
    "a pattern that never ends",
    "a pipe as plan",
)


@dataclass(frozen=True)
class Bomb:
    """A file, and the reader that is given it; `at` is where it goes."""

    name: str
    reader: str
    at: str
    make: Callable[[Path], object]


def run(context: Context) -> Row:
    """All bombs, each in a child of its own."""
    row = Row(PART)
    bombs = [bomb for bomb in _bombs() if context.wanted(bomb.name) and (not context.short or bomb.name in _SHORT)]
    progress = context.progress(PART, len(bombs))
    for bomb in bombs:
        folder = context.fresh(bomb.name, None)
        made = run_one(partial(bomb.make, Path(bomb.at)), folder, seconds=120.0)
        if made.failure is not None or made.signal:
            row.skipped.append(f"{bomb.name}: cannot be made here: {made.failure.text if made.failure else made.signal}")
            continue
        ended = run_one(partial(_read, bomb), folder, seconds=4 * SECONDS)
        row.add(_faults(context, bomb, ended), seconds=ended.seconds, held=ended.bytes)
        _remove(folder / bomb.at)
        progress.step(text=bomb.name)
    return row


def _read(bomb: Bomb) -> Watched:
    return watched(lambda: READERS[bomb.reader].read(Path(bomb.at)))


def _faults(context: Context, bomb: Bomb, ended: Ended) -> list[Fault]:
    repeat = context.repeat(PART, bomb.name)
    found: Watched | None = ended.value
    if found is None:
        return faults_of(ended, bomb.name, repeat)
    if found.failure is None:
        return []
    return [Fault(found.failure.type, f"{bomb.name}, {found.failure.where}", found.failure.text, repeat)]


def _remove(path: Path) -> None:
    if path.is_file() or path.is_symlink() or path.is_fifo():
        path.unlink()


def _bombs() -> Iterator[Bomb]:
    yield from _texts()
    yield from _archives()
    yield from _headers()
    yield from _sizes()


def _texts() -> Iterator[Bomb]:
    yaml_readers = (
        ("config", "config.yaml"),
        ("budgets", "budgets.yaml"),
        ("plan", "evil.yaml"),
        ("from", "plan.yaml"),
        ("assignment", "a.yaml"),
    )
    for reader, at in yaml_readers:
        yield Bomb(f"yaml alias in {reader}", reader, at, partial(_alias, reader))
        for kind, content in (("merge", _merges), ("nested", _open_lists), ("deep", _deep_yaml)):
            first = {"budgets": "mpq_budgets: 1\n", "plan": "mpq_plan: 1\n", "from": "mpq_plan: 1\n"}.get(reader, "")
            yield Bomb(f"yaml {kind} in {reader}", reader, at, partial(_put, first, content))
    index = "shards/model.mpq.safetensors.index.json"
    readers = [
        ("index", index),
        ("assignment", "a.json"),
        ("sensitivity", "s.jsonl"),
        ("journal", "model.study.journal"),
        ("hf", "tiny/config.json"),
    ]
    for reader, at in [*readers, ("hf index", "tiny/model.safetensors.index.json"), ("jsonl", "t.jsonl")]:
        for kind, text in (
            ("list", "[" * _LEVELS),
            ("object", '{"a":' * _LEVELS),
            ("closed", '{"a":' + "[" * _LEVELS + "]" * _LEVELS + "}"),
        ):
            yield Bomb(f"json {kind} in {reader}", reader, at, partial(_put, text, _line_end))
    number = '{"mpq_sensitivity": ' + "9" * 100_000 + "}\n"
    yield Bomb("a number of 100,000 digits", "sensitivity", "s.jsonl", lambda path: path.write_text(number))
    yield Bomb(
        "a pattern that never ends", "assignment", "a.json", lambda path: path.write_text(json.dumps({"(a|a|.)*(.*.*)*x$": {"bits": 4}}))
    )


def _put(first: str, rest: Callable[[], str], path: Path) -> None:
    path.write_text(first + rest())


def _line_end() -> str:
    return "\n"


def _open_lists() -> str:
    return "a: " + "[" * _LEVELS


def _aliased() -> str:
    """Nine levels of nine: 387 million items, written in some hundred bytes."""
    text = "&a0 [x, x, x, x, x, x, x, x, x]"
    for level in range(1, 9):
        text = f"&a{level} [{', '.join([text, *[f'*a{level - 1}'] * 8])}]"
    return text


def _alias(reader: str, path: Path) -> None:
    """The aliases where a text or a list is expected, in a file that is sound otherwise."""
    value = _aliased()
    texts = {
        "config": f"search: {{pins: {{'0': {value}}}}}\n",
        "budgets": f"mpq_budgets: 1\nbudgets:\n  - {{files: {value}, max_bits: 4}}\n",
        "assignment": f"'0': {value}\n",
    }
    plan = Path("plan.yaml").read_text()
    path.write_text(texts.get(reader) or plan.replace("quantizer: mse", f"quantizer: {value}", 1))


def _merges() -> str:
    lines = ["m0: &m0 {" + ", ".join(f"k{n}: {n}" for n in range(40)) + "}"]
    lines += [f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 9)}], l{level}: 1}}" for level in range(1, 9)]
    return "\n".join(lines) + "\nlayers: *m8\n"


def _deep_yaml() -> str:
    return "".join(" " * level + "a:\n" for level in range(2000))


def _archives() -> Iterator[Bomb]:
    yield Bomb("zip bomb in npz", "data npz", "b.npz", zip_bombs.npz)
    yield Bomb("zip bomb in pt2", "pt2", "b.pt2", lambda path: path.write_bytes(zip_bombs.inflated("model.pt2", "models/model.json")))
    yield Bomb("zip bomb in pt", "pt", "b.pt", lambda path: path.write_bytes(zip_bombs.inflated("state.pt", "data.pkl")))
    yield Bomb(
        "zip bomb in torchscript",
        "torchscript",
        "b.pt",
        lambda path: path.write_bytes(zip_bombs.inflated("model.torchscript", "constants.pkl")),
    )
    for name, bomb in (("xz", zip_bombs.xz), ("zlib", zip_bombs.zlib_stream)):
        yield Bomb(f"{name} bomb in an artifact's program", "artifact", "b.mpq.safetensors", partial(zip_bombs.program, bomb))
    yield Bomb("an archive of 200,000 records", "pt", "b.pt", zip_bombs.many)


def _headers() -> Iterator[Bomb]:
    for reader, at in (("artifact", "b.mpq.safetensors"), ("safetensors", "b.safetensors"), ("data safetensors", "b.safetensors")):
        for claim in (90_000_000, 900_000_000, 1 << 40):
            yield Bomb(f"a header of {claim:,} bytes in {reader}", reader, at, partial(_fat, claim))
    told = json.dumps({"mpq": "[" * _LEVELS})
    yield Bomb("nested header in artifact", "artifact", "b.mpq.safetensors", lambda path: _header(path, '{"__metadata__":' + told + "}"))
    for reader, at in (("artifact", "b.mpq.safetensors"), ("safetensors", "b.safetensors"), ("data safetensors", "b.safetensors")):
        yield Bomb(f"nested header of {reader}", reader, at, lambda path: _header(path, '{"a":' * _LEVELS))


def _fat(claim: int, path: Path) -> None:
    """A header that is said to be huge, in a sparse file that is as long."""
    with path.open("wb") as file:
        file.write(claim.to_bytes(8, "little") + b'{"a":"')
        file.truncate(8 + min(claim, 1 << 31))


def _header(path: Path, text: str) -> None:
    raw = text.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)


def _sizes() -> Iterator[Bomb]:
    for reader, at, first in (
        ("sensitivity", "s.jsonl", "model.sensitivity.jsonl"),
        ("plan", "p.yaml", "plan.yaml"),
        ("journal", "model.study.journal", ""),
    ):
        yield Bomb(f"3 GB of {reader}", reader, at, partial(_long, first))
    yield Bomb("3 GB of text", "text", "t.txt", partial(_long, "text.txt"))
    yield Bomb("3 GB of costs", "costs", "c.csv", partial(_long, "latency.csv"))
    for shape in ((1 << 40,), (1 << 31, 1 << 31), (-1, 8), (0, 1 << 62)):
        yield Bomb(f"npy of {shape}", "data npy", "h.npy", partial(_npy, shape))
        yield Bomb(f"safetensors of {shape}", "data safetensors", "h.safetensors", partial(_claimed, shape))
    yield Bomb("a view of 10^12 elements as data", "data pt", "h.pt", _view)
    yield Bomb("a model of 10^12 weights", "hf", "tiny/config.json", _huge_config)
    for reader, at in (
        *(("sensitivity", "s.jsonl"), ("plan", "p.yaml"), ("artifact", "b.mpq.safetensors"), ("config", "c.yaml"), ("budgets", "b.yaml")),
        *(("assignment", "a.json"), ("costs", "c.csv"), ("pt2", "b.pt2"), ("pt", "b.pt"), ("data npy", "d.npy"), ("text", "t.txt")),
    ):
        yield Bomb(f"endless zeros as {reader}", reader, at, lambda path: path.symlink_to("/dev/zero"))
        yield Bomb(f"a pipe as {reader}", reader, at, lambda path: os.mkfifo(path))


def _long(first: str, path: Path) -> None:
    content = Path(first).read_bytes() if first else path.read_bytes()
    with path.open("wb") as file:
        file.write(content)
        file.truncate(zip_bombs.SIZE)


def _npy(shape: tuple[int, ...], path: Path) -> None:
    header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(118) + b"\n"
    path.write_bytes(zip_bombs.NPY + struct.pack("<H", len(header)) + header + bytes(64))


def _claimed(shape: tuple[int, ...], path: Path) -> None:
    _header(path, json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}))


def _view(path: Path) -> None:
    import torch

    torch.save(torch.zeros(1).expand(125_000_000_000, 8), path)


def _huge_config(path: Path) -> None:
    config = json.loads(path.read_text()) | {"hidden_size": 1_000_000, "intermediate_size": 1_000_000, "vocab_size": 1_000_000}
    path.write_text(json.dumps(config))
