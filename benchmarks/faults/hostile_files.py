"""Files that want code to run, or files to be written, when they are read. Each maker writes into the current folder.

The payload is always the same: it makes the file `marker`. Makers run in a child of their own, before the attack.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rewrite = Callable[[dict[str, bytes]], list[tuple[str, bytes]]]
_INPUTS = "data/sample_inputs/model.pt"


class Evil:
    """Pickled, it makes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self._marker)!r}, 'w').close()",)


def pickled(marker: Path) -> bytes:
    """What torch.save makes of the payload."""
    import torch

    made = io.BytesIO()
    torch.save({"weight": torch.ones(2, 2), "more": Evil(marker)}, made)
    return made.getvalue()


def legacy_pickled(marker: Path) -> bytes:
    """The same as torch wrote it before it wrote archives."""
    import torch

    made = io.BytesIO()
    torch.save({"weight": torch.ones(2, 2), "more": Evil(marker)}, made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def rewritten(content: bytes, rewrite: Rewrite) -> bytes:
    """An archive with other records: `rewrite` is given them without the folder that all share, and gives those of the new one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    top = next(iter(records)).partition("/")[0]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in rewrite({name.partition("/")[2]: data for name, data in records.items()}):
            archive.writestr(zipfile.ZipInfo(f"{top}/{name}"), data)
    return made.getvalue()


def with_record(content: bytes, name: str, data: bytes, *, without: str | None = _INPUTS, first: bool = False) -> bytes:
    """An archive with one record more, before or after the others, and without another."""

    def rewrite(records: dict[str, bytes]) -> list[tuple[str, bytes]]:
        kept = [(each, value) for each, value in records.items() if each != without]
        return [(name, data), *kept] if first else [*kept, (name, data)]

    return rewritten(content, rewrite)


def with_payload(content: bytes, marker: Path, kind: str) -> bytes:
    """An exported program whose weights or constants are said to be a pickle."""
    folder = f"data/{kind}/"

    def rewrite(records: dict[str, bytes]) -> list[tuple[str, bytes]]:
        listed = next(name for name in records if name.startswith(folder) and name.endswith(".json"))
        config = json.loads(records[listed])
        known = config["config"]
        entry = dict(next(iter(known.values()), {"tensor_meta": None, "is_param": False}))
        known["stray"] = {**entry, "path_name": "opaque_0", "use_pickle": True}
        return [
            *((n, v) for n, v in records.items() if n != listed),
            (listed, json.dumps(config).encode()),
            (folder + "opaque_0", pickled(marker)),
        ]

    return rewritten(content, rewrite)


def with_operator(content: bytes, marker: Path) -> bytes:
    """An exported program whose graph maps the marker into memory and fills it."""
    import torch

    program = torch.export.load(io.BytesIO(content))
    graph = program.graph_module.graph
    place = next(node for node in graph.nodes if node.op == "call_function")
    example = place.meta["val"]
    with graph.inserting_before(place):
        mapped = graph.call_function(torch.ops.aten.from_file.default, (str(marker), True, 16))
        filled = graph.call_function(torch.ops.aten.fill_.Scalar, (mapped, 1.0))
        total = graph.call_function(torch.ops.aten.sum.default, (filled,))
    with graph.inserting_after(place):
        added = graph.call_function(torch.ops.aten.add.Tensor, (place, total))
    place.replace_all_uses_with(added, delete_user_cb=lambda node: node is not added)
    mode = example.fake_mode
    with mode:
        mapped.meta["val"] = filled.meta["val"] = torch.empty(16)
        total.meta["val"] = torch.empty(())
    added.meta.update(place.meta)
    made = io.BytesIO()
    torch.export.save(program, made)
    return made.getvalue()


def artifact_with_program(artifact: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An artifact whose program is changed; its header says the new length."""
    length = int.from_bytes(artifact[:8], "little")
    header, data = json.loads(artifact[8 : 8 + length]), artifact[8 + length :]
    start, end = header["mpq.program"]["data_offsets"]
    packed = data[start:end]
    program = lzma.decompress(packed) if packed.startswith(b"\xfd7zXZ") else __import__("zlib").decompress(packed)
    new = lzma.compress(change(program), check=lzma.CHECK_CRC32)
    header["mpq.program"] |= {"shape": [len(new)], "data_offsets": [start, start + len(new)]}
    for name, entry in header.items():
        if name not in ("mpq.program", "__metadata__") and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [offset - (end - start) + len(new) for offset in entry["data_offsets"]]
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + data[:start] + new + data[end:]


def scripted(marker: Path, where: str) -> bytes:
    """TorchScript that writes the marker: in `forward`, or in `__setstate__` while it is loaded; by saving or by mapping a file."""
    import torch

    from benchmarks.faults import hostile_modules

    made = io.BytesIO()
    torch.jit.save(torch.jit.script(getattr(hostile_modules, where)(str(marker))), made)
    return made.getvalue()


def hugging_face(folder: Path, marker: Path, how: str) -> None:
    """A directory that brings code: `how` is where it is named."""
    code = f"open({str(marker)!r}, 'w').close()\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
    (folder / "evil.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    if how == "auto_map":
        config |= {"auto_map": {"AutoConfig": "evil.LlamaConfig", "AutoModelForCausalLM": "evil.LlamaForCausalLM"}, "model_type": "evil"}
    elif how == "trust_remote_code":
        config |= {"auto_map": {"AutoModelForCausalLM": "evil.LlamaForCausalLM"}, "trust_remote_code": True}
    elif how == "tokenizer":
        told = json.loads((folder / "tokenizer_config.json").read_text())
        told |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Evil", "trust_remote_code": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
    elif how == "weights":
        for weights in folder.glob("model*safetensors*"):
            weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickled(marker))
    elif how == "nested":
        config["text_config"] = {"auto_map": {"AutoConfig": "evil.LlamaConfig"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config))


def object_array(path: Path, marker: Path) -> None:
    """NumPy arrays of objects, which are pickled."""
    import numpy as np

    array = np.array([Evil(marker)], dtype=object)
    if path.suffix == ".npz":
        np.savez(path, array)
    else:
        np.save(path, array, allow_pickle=True)


def evil_module(marker: Path) -> None:
    """A module in the current folder that makes the marker when it is imported or called."""
    Path("evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "import torch\nfrom benchmarks.faults.world import mlp as make\n"
        "def data():\n    return torch.load('calibration.pt')\n"
    )
