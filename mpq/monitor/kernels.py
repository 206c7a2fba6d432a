"""Counts the kernels that really ran in a packed model, by layer, next to those that should have run.

A packed layer is dequantized whole, which is slow, where its kernels cannot run: under autocast, with gradients, for an input of another
dtype, or in a function that has no kernel. The outputs stay right, so nothing else shows it.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from torch import nn

from mpq.models.layers.state_tensors import state_of
from mpq.records.artifact import ArtifactHeader
from mpq.records.layer import Layer
from mpq.records.monitor_log import Fallback
from mpq.runtime.kernels import kernel_of
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.kernels.watched import DEQUANTIZED, LOOKUP, Watch
from mpq.tensors.packed import PackedTensor

DENSE = "dense"
"""What runs instead of a kernel where a layer is not packed."""


class Kernels:
    """The kernels of a module's sampled calls; `counts` is empty while nothing is packed.

    Args:
        module: the model.
        header: of its artifact, which also names layers that should be packed; None if it is not known.
    """

    def __init__(self, module: nn.Module, header: ArtifactHeader | None) -> None:
        self._module = module
        self._layers = {} if header is None else {layer.parameters[0]: layer for layer in header.layers}
        self._schemes = {} if header is None else dict(header.schemes)
        self._known: dict[int, tuple[str, PackedTensor]] = {}
        self._thread = 0
        self._dense: dict[str, str] = {}
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._find()

    @property
    def known(self) -> bool:
        """Whether any layer is packed, so that its kernels are seen."""
        return bool(self._known)

    def by_layer(self) -> dict[str, dict[str, int]] | None:
        """How often each kernel ran, by layer; None if nothing is packed."""
        found: dict[str, dict[str, int]] = {}
        for (layer, ran, _), count in sorted(self.counts.items()):
            kernels = found.setdefault(layer, {})
            kernels[ran] = kernels.get(ran, 0) + count
        return found if self.known else None

    def fallbacks(self) -> list[Fallback]:
        """What ran in place of the expected kernel."""
        return [Fallback(layer, ran, wanted, count) for (layer, ran, wanted), count in sorted(self.counts.items()) if ran != wanted]

    def restart(self) -> None:
        """Count from 0 again."""
        self.counts = Counter()

    def attach(self) -> Any:
        """Begin to count the kernels of this thread; the caller removes what this returns."""
        self._thread = threading.get_ident()
        for name, wanted in self._dense.items():
            self.counts[name, DENSE, wanted] += 1
        return Watch(self._note)

    def _note(self, name: str, packed: Codes, samples: int) -> None:
        if threading.get_ident() != self._thread:
            return
        if packed.codes.data_ptr() not in self._known:  # moved since
            self._find()
        layer, weight = self._known.get(packed.codes.data_ptr(), ("", None))
        if weight is not None:
            self.counts[layer, name, name if name == LOOKUP else _wanted(weight, samples or 1)] += 1

    def _find(self) -> None:
        state = state_of(self._module)
        packed = {name: tensor for name, tensor in state.items() if isinstance(tensor, PackedTensor)}
        self._known, self._dense = {}, {}
        for name, weight in packed.items():
            self._known.setdefault(weight.packed.codes.data_ptr(), (self._name(name), weight))
        for dtype in {weight.weight_dtype for weight in packed.values()}:  # one, unless the user mixes them
            left = [layer for name, layer in self._layers.items() if name in state and name not in packed]
            wanted = {layer.name: kernel_of(layer, self._schemes[layer.name], 1, dtype).name for layer in left}
            self._dense |= {name: kernel for name, kernel in wanted.items() if kernel != "plain"}

    def _name(self, parameter: str) -> str:
        return self._layers[parameter].name if parameter in self._layers else parameter.removesuffix(".weight")


def _wanted(weight: PackedTensor, samples: int) -> str:
    """The name of the kernel that a weight should use for so many input rows."""
    packed = weight.packed
    if not packed.codes.is_cpu:
        return "rows" if packed.layout == "stored" else DEQUANTIZED
    layer = Layer("", ("",), tuple(weight.shape), weight.axes, "float32", groups=weight.groups)
    return kernel_of(layer, packed.scheme, samples, weight.weight_dtype).name
