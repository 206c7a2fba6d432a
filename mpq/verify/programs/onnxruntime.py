"""ONNX Runtime on the CPU. Its own DequantizeLinear gives the weights, and internal values of the graph give the layers' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.distribution import requirement
from mpq.export.stored.onnx import Graph, columns_first, read
from mpq.models.running.layer_outputs import magnitude
from mpq.records.fingerprint import Fingerprint
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, floats, imported

_INSTALL = requirement("onnx")
_CODES_ONLY = ("Gather", "MatMulInteger")  # they compute no dequantized weight
_MOST = 1 << 30  # largest graph, in bytes, that is loaded again with its internal values as outputs


class OnnxRuntime(Program):
    """Loads the output of `mpq export --to onnx`."""

    targets = ("onnx",)
    packages = (("onnxruntime", _INSTALL), ("onnx", _INSTALL))

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Open a session."""
        return _Session(path, fingerprint)


class _Session(Loaded):
    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._session = session(path)
        self._graph = Graph(path)
        self.held = read(path, places_of(fingerprint))
        nodes = self._graph.dequantized()
        self._values = {place: node.output[0] for place, node in nodes.items()}
        self._turned = {place for place, node in nodes.items() if columns_first(node)}
        self._opened: Any = None

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return floats([torch.from_numpy(each) for each in self._session.run(None, fed(self._session, inputs))])

    def used(self, place: str) -> Tensor | None:
        name = self._values.get(place)
        if name is None or self._graph.makers[name].op_type in _CODES_ONLY or self._graph.model.ByteSize() > _MOST:
            return None
        weights = self._graph.computed(name)
        found = torch.from_numpy(session(weights).run(None, {})[0])
        return found.T if place in self._turned else found.reshape(len(found), -1)

    def layer_outputs(self, inputs: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
        if self._graph.model.ByteSize() > _MOST:
            return {}
        places = {place: self._graph.result_of(name) for place, name in self._values.items()}
        known = {place: name for place, name in places.items() if name is not None}
        tapped = session(self._graph.with_outputs(known.values()))
        found = tapped.run(list(known.values()), fed(tapped, inputs))
        return {place: magnitude(torch.from_numpy(each)) for place, each in zip(known, found, strict=True)}


def session(model: Path | bytes) -> Any:
    """A session that keeps activations in float32."""
    runtime = imported("onnxruntime", _INSTALL)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return runtime.InferenceSession(model, options)


def fed(opened: Any, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """The inputs of a session by name."""
    return {given.name: tensor.numpy() for given, tensor in zip(opened.get_inputs(), inputs, strict=True)}
