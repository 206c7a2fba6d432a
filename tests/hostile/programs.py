"""Malicious torch.export archives."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.making import Builder, Records, Small, Touch, records_of, saved, write, zipped


def export_records() -> Records:
    """The records of an ordinary exported program, below the folder "archive"."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Small().eval(), (torch.randn(2, 4),)), buffer)
    return {f"archive/{name.partition('/')[2]}": content for name, content in records_of(buffer.getvalue()).items()}


def with_record(name: str, *, replace: bool = False, first: bool = False) -> Builder:
    """An exported program with a pickle that creates the marker as the record `name`, beside or in the place of its own."""

    def build(folder: Path, marker: Path) -> Path:
        records, evil = export_records(), saved((Touch(marker),))
        if replace:
            records = {key: content for key, content in records.items() if key.lower() != name.lower()}
        return write(folder / "model.pt2", zipped({name: evil}, *records.items()) if first else zipped(records, (name, evil)))

    return build


def with_payload(change: Callable[[dict[str, Any], Records, Path], None]) -> Builder:
    """An exported program whose list of constants, and records, are changed."""

    def build(folder: Path, marker: Path) -> Path:
        records = export_records()
        name = "archive/data/constants/model_constants_config.json"
        payloads = json.loads(records[name])
        change(payloads["config"], records, marker)
        records[name] = json.dumps(payloads).encode()
        return write(folder / "model.pt2", zipped(records))

    return build


def with_program(change: Callable[[dict[str, Any], Path], None]) -> Builder:
    """An exported program whose JSON is changed."""

    def build(folder: Path, marker: Path) -> Path:
        records = export_records()
        program = json.loads(records["archive/models/model.json"])
        change(program, marker)
        records["archive/models/model.json"] = json.dumps(program).encode()
        return write(folder / "model.pt2", zipped(records))

    return build


def calling(target: str, *arguments: tuple[str, dict[str, Any]]) -> Builder:
    """An exported program whose first node calls `target`; the text MARKER stands for the marker."""

    def change(program: dict[str, Any], marker: Path) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = target
        text = json.dumps([{"name": name, "arg": value, "kind": 1} for name, value in arguments])
        node["inputs"] = json.loads(text.replace("MARKER", str(marker)))

    return with_program(change)


def _use_pickle(config: dict[str, Any], records: Records, marker: Path) -> None:
    name, payload = next(iter(config.items()))
    config[name] = {**payload, "use_pickle": True}
    records[f"archive/data/constants/{payload['path_name']}"] = saved(Touch(marker))


def _renamed(path: str) -> Callable[[dict[str, Any], Records, Path], None]:
    def change(config: dict[str, Any], records: Records, marker: Path) -> None:
        name, payload = next(iter(config.items()))
        config[name] = {**payload, "path_name": path}
        records[f"archive/data/constants/{path}"] = pickle.dumps(Touch(marker))

    return change


def _set(*keys: str | int, value: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(program: dict[str, Any], marker: Path) -> None:
        node: Any = program
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = json.loads(json.dumps(value).replace("MARKER", str(marker)))

    return change


def _expression(program: dict[str, Any], marker: Path) -> None:
    sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
    sizes[0] = {"as_expr": {"expr_str": f"__import__('pathlib').Path({str(marker)!r}).touch()", "hint": None}}


_FILE = (("filename", {"as_string": "MARKER"}), ("shared", {"as_bool": True}), ("size", {"as_int": 4}))


_ENUM = json.dumps({"__enum__": True, "fqn": "evil:E.a", "name": "x"})


_TREE = json.dumps([1, {"type": "builtins.dict", "context": _ENUM, "children_spec": []}])


_FACTORY = {"default_factory_module": "evil", "default_factory_name": "x", "dict_context": []}


PROGRAMS: dict[str, Builder] = {
    "sample inputs": with_record("archive/data/sample_inputs/model.pt", replace=True),
    "sample inputs, another case": with_record("archive/data/Sample_inputs/model.pt", replace=True),
    "sample inputs, another case first": with_record("archive/Data/sample_inputs/model.pt", first=True),
    "sample inputs twice": with_record("archive/data/sample_inputs/model.pt"),
    "sample inputs twice, the other first": with_record("archive/data/sample_inputs/model.pt", first=True),
    "sample inputs, another ending": with_record("archive/data/sample_inputs/MODEL.PT"),
    "sample inputs, two separators": with_record("archive//data/sample_inputs/model.pt"),
    "sample inputs, backslashes": with_record("archive\\data\\sample_inputs\\model.pt"),
    "sample inputs, a dot": with_record("archive/./data/sample_inputs/model.pt"),
    "sample inputs, two dots": with_record("archive/x/../data/sample_inputs/model.pt"),
    "sample inputs, a zero byte": with_record("archive/data/sample_inputs/model.pt\0x"),
    "sample inputs, a long s": with_record("archive/data/\u017fample_inputs/model.pt"),
    "sample inputs, a trailing space": with_record("archive/data/sample_inputs/model.pt "),
    "another folder": with_record("other/data/sample_inputs/model.pt"),
    "weights of an older torch": with_record("archive/data/weights/model.pt"),
    "weights of an older torch, another case": with_record("archive/data/Weights/model.PT"),
    "constants of an older torch": with_record("archive/data/constants/model.pt"),
    "a compiled library": with_record("archive/data/aotinductor/model/model.so"),
    "a compiled library, another case": with_record("archive/data/AOTInductor/model/model.so"),
    "a pickled constant": with_payload(_use_pickle),
    "an opaque constant": with_payload(_renamed("opaque_obj_0")),
    "a custom constant": with_payload(_renamed("custom_obj_0")),
    "a constant elsewhere": with_payload(_renamed("tensor_0/../../sample_inputs/model.pt")),
    "from_file": calling("torch.ops.aten.from_file.default", *_FILE),
    "from_file.out": calling("torch.ops.aten.from_file.out", *_FILE),
    "an operator of another namespace": calling("torch.ops.image.write_file.default", *_FILE),
    "a library": calling("torch.ops.load_library", *_FILE),
    "a function of torch": calling("torch.save", *_FILE),
    "a function of os": calling("torch.os.system", *_FILE),
    "an operator in an argument": calling(
        "torch.ops.higher_order.auto_functionalized_v2", ("op", {"as_operator": "torch.ops.aten.from_file.default"})
    ),
    "a delegate": calling("torch.ops.higher_order.aoti_call_delegate", *_FILE),
    "a flat function": calling("torch.ops.higher_order.flat_apply", *_FILE),
    "a guard": with_program(_set("guards_code", value=["__import__('pathlib').Path('MARKER').touch() or True"])),
    "an enum in the inputs": with_program(_set("graph_module", "module_call_graph", 0, "signature", "in_spec", value=_TREE)),
    "a default factory": with_program(
        _set(
            "graph_module",
            "module_call_graph",
            0,
            "signature",
            "in_spec",
            value=json.dumps([1, {"type": "collections.defaultdict", "context": _FACTORY, "children_spec": []}]),
        )
    ),
    "an expression": with_program(_expression),
}
"""Exported programs. "a guard" is harmless once it is left out, and loads; all others are refused."""


HARMLESS = ("a guard",)
