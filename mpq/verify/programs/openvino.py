"""OpenVINO on the CPU, with the exact arithmetic of its hint ACCURACY. It gives the weights that it computes from codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.distribution import requirement
from mpq.export.stored.openvino import dequantized, opened, read
from mpq.records.fingerprint import Fingerprint
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, floats, imported

_INSTALL = requirement("openvino")
_EXACT = {"EXECUTION_MODE_HINT": "ACCURACY"}


class OpenVino(Program):
    """Loads the output of `mpq export --to openvino`."""

    targets = ("openvino",)
    packages = (("openvino", _INSTALL),)

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Compile the model."""
        return _Compiled(path, fingerprint)


class _Compiled(Loaded):
    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._openvino = imported("openvino", _INSTALL)
        self._model = opened(path)
        self._program = self._compiled(self._model)
        self.held = read(path, places_of(fingerprint))
        self._products = {constant.get_friendly_name(): node for constant, node, _, _ in dequantized(self._model)}

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return floats([torch.from_numpy(each) for each in self._program([tensor.numpy() for tensor in inputs]).values()])

    def used(self, place: str) -> Tensor | None:
        if place not in self._products:
            return None
        weights = self._openvino.Model([self._products[place].output(0)], [], "weights")
        found = torch.from_numpy(next(iter(self._compiled(weights)([]).values())))
        return found.reshape(len(found), -1)

    def _compiled(self, model: Any) -> Any:
        return self._openvino.Core().compile_model(model, "CPU", _EXACT)
