"""Detects the kind of a model file by its first bytes and its table of contents, never by its extension."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from pathlib import Path

from mpq.errors import ModelError
from mpq.files import PREFIX, first_bytes, open_file
from mpq.limits import SAFETENSORS_HEADER_BYTES

LOADABLE = "a torch.export archive, TorchScript, a state dict (.pt, .safetensors) or a Hugging Face directory"
_SHARD = re.compile(r"-\d+-of-(\d+)\.(?:safetensors|bin|pt|pth)$")
_DAMAGED = "is a truncated or damaged archive: save or download the model again"


def sniff(path: Path) -> str:
    """One of "export", "torchscript", "torch" (saved by torch.save), "safetensors" or "hf".

    Raises:
        ModelError: if `path` does not exist, or is none of these.
    """
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is a directory without config.json: give a model file or a Hugging Face directory")
        return "hf"
    start = first_bytes(path, error=ModelError, remedy="check the path of the model")
    if start[:2] == b"PK":
        return _sniff_zip(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch"
    if _is_safetensors(start, path):
        return "safetensors"
    if path.name.endswith(".index.json"):
        raise ModelError(f"{path} lists the files of a checkpoint: {_whole_checkpoint(path)}")
    raise ModelError(f"{path} is {_foreign(start)}: mpq loads {LOADABLE}")


def shard_remedy(path: Path) -> str | None:
    """What to give instead of one file of a checkpoint in several, such as model-00001-of-00002.safetensors; None for other names."""
    count = _SHARD.search(path.name)
    return f"it is one of {int(count[1])} files of a checkpoint: {_whole_checkpoint(path)}" if count and int(count[1]) > 1 else None


def _whole_checkpoint(path: Path) -> str:
    folder = path.parent
    if (folder / "config.json").is_file():
        return f"give their folder, {folder.resolve() if folder == Path() else folder}"
    return "their folder has no config.json, so merge them into one .safetensors file"


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names, entries = archive.namelist(), archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise ModelError(f"{path} {_DAMAGED}") from error
    if entries and entries[0].header_offset:  # the table of contents belongs to an archive inside a truncated one
        raise ModelError(f"{path} {_DAMAGED}")
    inner = {name.partition("/")[2] for name in names}
    if "models/model.json" in inner:
        return "export"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "data.pkl" in inner:
        return "torch"
    if "serialized_exported_program.json" in names:
        raise ModelError(f"{path} was exported by an older torch: export the model again with torch 2.9 or newer")
    if names and all(name.endswith(".npy") for name in names):
        raise ModelError(f"{path} holds NumPy arrays, not a model: give it as data, with --calib or --data")
    raise ModelError(f"{path} is a zip archive without a model: mpq loads {LOADABLE}")


def _is_safetensors(start: bytes, path: Path) -> bool:
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or length > SAFETENSORS_HEADER_BYTES:
        return False
    if 8 + length > path.stat().st_size:
        raise ModelError(f"{path} is a truncated .safetensors file: save or download the model again")
    with open_file(path) as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError):
            return False


def _foreign(start: bytes) -> str:
    if start[:4] == b"GGUF":
        return "a GGUF file, which mpq cannot load"
    if start[:4] == b"\x89HDF":
        return "an HDF5 file, which mpq cannot load"
    if start[:6] == b"\x93NUMPY":
        return "a NumPy array and not a model"
    if start[:1] == b"\x08" and 0 < start[1] < 32 and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "an ONNX file, which mpq cannot load"  # protobuf: ir_version, then a producer, domain or graph
    return "a text file and not a model" if _is_text(start) else "not a model file"


def _is_text(start: bytes) -> bool:
    try:
        text = start[: PREFIX - 4].decode() if len(start) == PREFIX else start.decode()
    except UnicodeDecodeError as error:
        if error.end < len(start) - 8:
            return False
        text = start[: error.start].decode()
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
