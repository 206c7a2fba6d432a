"""Malicious model and data files, each made by a function that writes it into a folder; a marker file tells whether anything ran.

Every builder takes the folder and the marker, and gives the path of what it wrote. `PROGRAMS`, `SCRIPTS`, `PICKLES`, `DIRECTORIES` and
`BOMBS` name them by the loader that they attack. No file does more than create the marker, or claim memory.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Builder = Callable[[Path, Path], Path]
Records = dict[str, bytes]


class Touch:
    """Unpickling this creates the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


class Small(nn.Module):
    """Exports, scripts and traces."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x)) * torch.tensor([2.0])


def saved(content: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def records_of(content: bytes) -> Records:
    """The records of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(records: Mapping[str, bytes], *more: tuple[str, bytes]) -> bytes:
    """A stored zip archive; `more` may repeat names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that are there twice, which is what is wanted
        for name, content in [*records.items(), *more]:
            archive.writestr(name, content)
    return buffer.getvalue()


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


def script(forward: str, *, methods: str = "", attributes: str = "", data: Callable[[bytes], bytes] = lambda raw: raw) -> Builder:
    """TorchScript with a body for its forward, and more methods; the text MARKER stands for the marker."""

    def build(folder: Path, marker: Path) -> Path:
        buffer = io.BytesIO()
        module = Small().eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(module, torch.randn(2, 4)), buffer)
        records = records_of(buffer.getvalue())
        name = next(name for name in records if name.endswith(".py") and b"class Small" in records[name])
        code = records[name].decode()
        head, body = code[: code.index("  def forward")], code[code.index("  def forward") :]
        signature = body[: body.index("-> Tensor:") + len("-> Tensor:")]
        text = f"{head}{attributes}{signature}\n{forward}{methods}".replace("MARKER", str(marker))
        records[name] = text.encode()
        pickled = next(name for name in records if name.endswith("/data.pkl"))
        records[pickled] = data(records[pickled])
        return write(folder / "model.pt", zipped(records))

    return build


_PLAIN = "    return x\n"
_SETSTATE = """  def __getstate__(self) -> Dict[str, Tensor]:
    return {{}}
  def __setstate__(self, state: Dict[str, Tensor]) -> NoneType:
    {body}
    return None
"""


def extra_record(name: str, content: Callable[[Path], bytes]) -> Builder:
    """TorchScript with one more record."""

    def build(folder: Path, marker: Path) -> Path:
        path = script(_PLAIN)(folder, marker)
        records = records_of(path.read_bytes())
        top = next(iter(records)).partition("/")[0]
        return write(path, zipped(records, (f"{top}/{name}", content(marker))))

    return build


def code_twice(folder: Path, marker: Path) -> Path:
    """TorchScript whose code is there a second time, in another case."""
    path = script(_PLAIN)(folder, marker)
    records = records_of(path.read_bytes())
    name = next(name for name in records if name.endswith(".py"))
    return write(path, zipped(records, (name.replace("__torch__", "__Torch__"), b"")))


def pickled(make: Callable[[Path], bytes]) -> Builder:
    """A file of torch.save, or a bare pickle."""
    return lambda folder, marker: write(folder / "model.pt", make(marker))


def directory(
    *, name: str = "config.json", change: Callable[[dict[str, Any]], Any] = dict, files: Callable[[Path], Records] | None = None
) -> Builder:
    """A Hugging Face directory of a small BERT-like configuration, with one JSON changed and files added."""

    def build(folder: Path, marker: Path) -> Path:
        place = folder / "hf"
        place.mkdir()
        config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 1, "intermediate_size": 8}
        (place / "config.json").write_text(json.dumps(config))
        write(place / "model.safetensors", safetensors({"embeddings.word_embeddings.weight": ("F32", [8, 4], bytes(128))}))
        before = config if name == "config.json" else {}
        changed = change(before)
        (place / name).write_text(changed if isinstance(changed, str) else json.dumps(changed))
        for extra, content in (files(marker) if files else {}).items():
            write(place / extra, content)
        return place

    return build


def safetensors(tensors: Mapping[str, tuple[str, list[int], bytes]], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write(path: Path, content: bytes) -> Path:
    """Write a file; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _module_source(marker: Path) -> Records:
    return {"evil.py": f"open({str(marker)!r}, 'w').close()\n".encode()}


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

_SAVE = '    _0 = torch.save([x], "MARKER")\n    return x\n'
_MAPPED = '    return torch.fill_(torch.from_file("MARKER", True, 4), 1.)\n'
SCRIPTS: dict[str, Builder] = {
    "save": script(_SAVE),
    "from_file": script(_MAPPED),
    "from_file.out": script('    return torch.from_file("MARKER", True, 4, out=x)\n'),
    "a space before the name": script('    _0 = torch. save([x], "MARKER")\n    return x\n'),
    "a line before the name": script('    _0 = (torch.\n      save([x], "MARKER"))\n    return x\n'),
    "a backslash before the name": script('    _0 = torch.\\\nsave([x], "MARKER")\n    return x\n'),
    "a comment before the name": script('    _0 = (torch.  # x\n      save([x], "MARKER"))\n    return x\n'),
    "a method": script('    _0 = ([x]).save("MARKER")\n    return x\n'),
    "a method of a text": script('    return ("MARKER").from_file(True, 4)\n'),
    "getattr": script('    _0 = getattr([x], "save")("MARKER")\n    return x\n'),
    "getattr of a text in pieces": script('    _0 = getattr([x], "sa" "ve")("MARKER")\n    return x\n'),
    "getattr of an escaped text": script('    _0 = getattr([x], "sa\\166e")("MARKER")\n    return x\n'),
    "getattr in getattr": script('    _0 = getattr(getattr(self, "linear"), "save")("MARKER")\n    return x\n'),
    "ops.aten": script('    _0 = ops.aten.save([x], "MARKER")\n    return x\n'),
    "ops by another name": script('    _0 = ops\n    _1 = _0.aten.save([x], "MARKER")\n    return x\n'),
    "ops of another namespace": script('    _0 = ops.image.write_file("MARKER", x)\n    return x\n'),
    "print": script('    _0 = ops.prim.Print("MARKER")\n    return x\n'),
    "a default value": script(
        _PLAIN, methods='  def other(self, x: Tensor, y: NoneType=torch.save([1], "MARKER")) -> Tensor:\n    return x\n'
    ),
    "setstate that saves": script(_PLAIN, methods=_SETSTATE.format(body='_0 = torch.save([1], "MARKER")')),
    "setstate that computes": script(_PLAIN, methods=_SETSTATE.format(body="_0 = torch.len(state)")),
    "an object of C++": script(_PLAIN, attributes="  packed : __torch__.torch.classes.quantized.LinearPackedParamsBase\n"),
    "a pickled object of C++": script(
        _PLAIN, data=lambda raw: raw.replace(b"c__torch__\n", b"c__torch__.torch.classes.quantized\n").replace(b"\nSmall\n", b"\nX\n")
    ),
    "a pickled global": script(_PLAIN, data=lambda raw: raw.replace(b"ccollections\nOrderedDict\n", b"cposix\nsystem\n")),
    "code elsewhere": extra_record("code/__torch__/other.PY", lambda marker: _SAVE.replace("MARKER", str(marker)).encode()),
    "code twice": code_twice,
    "a graph of an older torch": extra_record("model.json", lambda marker: b"{}"),
    "bytecode": extra_record("bytecode.pkl", lambda marker: pickle.dumps(Touch(marker))),
}
"""TorchScript; all are refused."""


def _state(marker: Path) -> dict[str, Any]:
    return {"weight": torch.randn(2, 2), "extra": Touch(marker)}


PICKLES: dict[str, Builder] = {
    "an object in a state dict": pickled(lambda marker: saved(_state(marker))),
    "an object, saved as torch 1.5 did": pickled(lambda marker: _legacy(_state(marker))),
    **{f"a bare pickle of protocol {number}": pickled(lambda marker, n=number: pickle.dumps(Touch(marker), n)) for number in (2, 3, 4, 5)},
    "an object of the operating system": pickled(lambda marker: _replaced(f"cposix\nsystem\n(Vtouch {marker}\ntR.".encode())),
    "an object through getattr": pickled(lambda marker: _replaced(b"c__builtin__\ngetattr\n(c__builtin__\nopen\nV__call__\ntR.")),
    "a pickle twice": pickled(
        lambda marker: zipped(records_of(saved({"w": torch.ones(1)})), ("archive/data.pkl", pickle.dumps(Touch(marker))))
    ),
    "a pickle in another case": pickled(
        lambda marker: zipped(records_of(saved({"w": torch.ones(1)})), ("archive/DATA.pkl", pickle.dumps(Touch(marker))))
    ),
    "a pickle that is called TorchScript": pickled(
        lambda marker: zipped(records_of(saved(_state(marker))), ("archive/constants.pkl", b"\x80\x02)."))
    ),
}
"""Files of torch.save; all are refused, and none is called damaged where it holds code."""


def _legacy(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _replaced(pickle_bytes: bytes) -> bytes:
    records = records_of(saved({"w": torch.ones(1)}))
    name = next(name for name in records if name.endswith("data.pkl"))
    return zipped({**records, name: b"\x80\x02" + pickle_bytes})


DIRECTORIES: dict[str, Builder] = {
    "auto_map": directory(change=lambda config: {**config, "auto_map": {"AutoModel": "evil.Model"}}, files=_module_source),
    "a nested auto_map": directory(
        change=lambda config: {**config, "text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, files=_module_source
    ),
    "a kernel to download": directory(change=lambda config: {**config, "_attn_implementation": "someone/kernel"}),
    "a kernel to download, by part": directory(change=lambda config: {**config, "attn_implementation": {"text": "someone/kernel:f"}}),
    "an architecture that is no model": directory(change=lambda config: {**config, "architectures": ["pipeline"], "model_type": "x"}),
    "an index that leads elsewhere": directory(
        name="model.safetensors.index.json", change=lambda _: {"weight_map": {"a": "../../../../dev/zero"}}
    ),
    "a nested configuration": directory(change=lambda _: "[" * 100_000),
    "architectures of another type": directory(change=lambda config: {**config, "architectures": {"a": 1}}),
    "a model type of another type": directory(change=lambda config: {**config, "model_type": ["bert"]}),
}
"""Hugging Face directories, without --trust."""


def pickled_weights(folder: Path, marker: Path) -> Path:
    """A directory whose weights are a pickle that creates the marker."""
    place = directory()(folder, marker)
    (place / "model.safetensors").unlink()
    write(place / "pytorch_model.bin", saved({"w": Touch(marker)}))
    return place


DIRECTORIES["pickled weights"] = pickled_weights


def _header(claim: int) -> bytes:
    return struct.pack("<Q", claim) + b'{"a":' + b" " * 100


def _npy(shape: str, content: bytes = b"") -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


def _deflated(name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(_npy(f"({size // 4},)"))
        for _ in range(size >> 24):
            file.write(bytes(1 << 24))
    return buffer.getvalue()


def _claimed_storage() -> bytes:
    records = records_of(saved({"w": torch.arange(4.0)}))
    name = next(name for name in records if name.endswith("data.pkl"))
    return zipped({**records, name: records[name].replace(b"K\x04", b"J\xff\xff\xff\x7f")})


BOMBS: dict[str, Builder] = {
    "a fat header": lambda folder, _: write(folder / "a.safetensors", _header(900_000_000)),
    "a header as large as the sparse file": lambda folder, _: _sparse(folder / "a.safetensors", _header(900_000_000), 950_000_000),
    "a nested header": lambda folder, _: write(folder / "a.safetensors", struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 200_000),
    "a tensor of 10^12 elements": lambda folder, _: write(folder / "a.safetensors", safetensors({"w": ("F32", [10**6, 10**6], bytes(16))})),
    "an array of 10^12 elements": lambda folder, _: write(folder / "a.npy", _npy("(1000000, 1000000)", bytes(16))),
    "an array of negative shape": lambda folder, _: write(folder / "a.npy", _npy("(-1, -4)", bytes(16))),
    "an archive of an array of 10^12 elements": lambda folder, _: write(folder / "a.npz", zipped({"a.npy": _npy("(10**6, 10**6)")})),
    "a zip bomb of arrays": lambda folder, _: write(folder / "a.npz", _deflated("a.npy", 1 << 30)),
    "a storage of 8 GB": lambda folder, _: write(folder / "a.pt", _claimed_storage()),
}
"""Files that claim more than they hold; `BOMBS` are read as models and as data."""


def _sparse(path: Path, start: bytes, size: int) -> Path:
    with write(path, start).open("r+b") as file:
        file.truncate(size)
    return path


def numbers(folder: Path) -> Path:
    """Ordinary calibration data for `Small`."""
    np.save(folder / "numbers.npy", np.zeros((4, 4), dtype=np.float32))
    return folder / "numbers.npy"


LIVE = (
    *(PROGRAMS[name] for name in ("sample inputs, another case", "sample inputs twice, the other first", "a pickled constant")),
    *(PROGRAMS[name] for name in ("weights of an older torch", "from_file", "an expression")),
    *(SCRIPTS[name] for name in ("save", "from_file", "a comment before the name", "ops by another name", "setstate that saves")),
    *(PICKLES[name] for name in ("an object in a state dict", "a bare pickle of protocol 4", "a pickle in another case")),
    DIRECTORIES["auto_map"],
)
"""Files that create the marker where the user trusts them: proof that the builders attack what they say."""
