"""Files that claim more than they hold."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import torch

from tests.hostile.making import Builder, records_of, safetensors, saved, write, zipped


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


def _sparse(path: Path, start: bytes, size: int) -> Path:
    with write(path, start).open("r+b") as file:
        file.truncate(size)
    return path


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
