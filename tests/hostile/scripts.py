"""Malicious TorchScript."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.hostile.making import Builder, Small, Touch, records_of, write, zipped

_PLAIN = "    return x\n"


_SETSTATE = """  def __getstate__(self) -> Dict[str, Tensor]:
    return {{}}
  def __setstate__(self, state: Dict[str, Tensor]) -> NoneType:
    {body}
    return None
"""


_trace: Callable[..., nn.Module] = torch.jit.trace


def script(forward: str, *, methods: str = "", attributes: str = "", data: Callable[[bytes], bytes] = lambda raw: raw) -> Builder:
    """TorchScript with a body for its forward, and more methods; the text MARKER stands for the marker."""

    def build(folder: Path, marker: Path) -> Path:
        buffer = io.BytesIO()
        module = Small().eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(_trace(module, torch.randn(2, 4)), buffer)
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
