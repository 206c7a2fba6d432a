"""PyTorch: archives of torch.export with packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.export.stored.pt2 import held_by
from mpq.models.sources.load import load_model
from mpq.records.fingerprint import Fingerprint
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, floats


class Torch(Program):
    """Loads the output of `mpq export --to pt2`."""

    targets = ("pt2",)
    packages = (("torch", "torch"),)

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Load the archive without running code from it."""
        return _Archive(path, fingerprint, trust=trust)


class _Archive(Loaded):
    def __init__(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> None:
        self._module = load_model(path, trust=trust).module
        self._names = fingerprint.names
        self.held = held_by(self._module, places_of(fingerprint))

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        named = dict(zip(self._names, inputs[len(inputs) - len(self._names) :], strict=True))
        with torch.no_grad():
            result = self._module(*inputs[: len(inputs) - len(self._names)], **named)
        return floats(pytree.tree_leaves(result))
