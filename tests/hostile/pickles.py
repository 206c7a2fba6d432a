"""Malicious files of torch.save, and bare pickles."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.making import Builder, Touch, records_of, saved, write, zipped


def pickled(make: Callable[[Path], bytes]) -> Builder:
    """A file of torch.save, or a bare pickle."""
    return lambda folder, marker: write(folder / "model.pt", make(marker))


def _state(marker: Path) -> dict[str, Any]:
    return {"weight": torch.randn(2, 2), "extra": Touch(marker)}


def legacy(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _replaced(pickle_bytes: bytes) -> bytes:
    records = records_of(saved({"w": torch.ones(1)}))
    name = next(name for name in records if name.endswith("data.pkl"))
    return zipped({**records, name: b"\x80\x02" + pickle_bytes})


def _bare(protocol: int) -> Builder:
    return pickled(lambda marker: pickle.dumps(Touch(marker), protocol))


PICKLES: dict[str, Builder] = {
    "an object in a state dict": pickled(lambda marker: saved(_state(marker))),
    "an object, saved as torch 1.5 did": pickled(lambda marker: legacy(_state(marker))),
    **{f"a bare pickle of protocol {number}": _bare(number) for number in (2, 3, 4, 5)},
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
