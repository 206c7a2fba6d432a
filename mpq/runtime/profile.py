"""The time of each layer under each scheme, on this machine, inside the model: what `mpq profile` writes.

All layers are packed under one scheme after another, as `mpq.load(packed=True)` has them, and the model is called. A function mode
takes the time of every torch function that gets a layer's weight. What a call takes besides, with ordinary weights, is the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from mpq.data.dataset import Batch
from mpq.formats.scheme import Scheme
from mpq.models.memory.replaced_tensors import replace_tensor
from mpq.models.running.forward import call
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.runtime.packed_weight import packed_weight
from mpq.runtime.speed import fastest
from mpq.tensors.matrix import to_matrix
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named

_LEAST, _MOST = 5, 200  # rounds


@dataclass(frozen=True)
class Profile:
    """Seconds of one call.

    Args:
        layers: by layer and scheme.
        rest: outside of the layers.
        whole: of the unquantized model.
        uniform: by the place of a candidate, predicted and measured, with every layer under its candidate at that place.
    """

    layers: Mapping[tuple[str, Scheme], float]
    rest: float
    whole: float
    uniform: tuple[tuple[float, float], ...]


def profile(
    module: nn.Module, layers: Sequence[Layer], candidates: Mapping[str, Sequence[Scheme]], batch: Batch, *, seconds: float = 2.0
) -> Profile:
    """Measure a model; it has its own weights again afterwards.

    Args:
        module: the unquantized model.
        layers: whose weights are packed.
        candidates: the schemes of each layer.
        batch: what it is called with.
        seconds: to spend on each candidate.

    Raises:
        ModelError: if the model is TorchScript, which holds plain tensors only.
        DataError: if the model does not accept the batch.
    """
    whole, own = _timed(module, {layer.name: tensor_of(module, layer.parameters[0]) for layer in layers}, batch, seconds)
    rest = max(0.0, whole - sum(own.values()))
    found, measured = dict[tuple[str, Scheme], float](), list[tuple[float, float]]()
    for place in range(max(map(len, candidates.values()))):
        schemes = {layer.name: candidates[layer.name][min(place, len(candidates[layer.name]) - 1)] for layer in layers}
        with _packed(module, layers, schemes) as weights:
            call_seconds, times = _timed(module, weights, batch, seconds)
        for name, spent in times.items():
            found.setdefault((name, schemes[name]), spent)
        measured.append((rest + sum(times.values()), call_seconds))
    return Profile(found, rest, whole, tuple(measured))


def _timed(module: nn.Module, weights: Mapping[str, Tensor], batch: Batch, seconds: float) -> tuple[float, dict[str, float]]:
    """The shortest call, and the shortest time of each layer within one."""
    (whole,) = fastest([lambda: call(module, batch)], seconds=seconds / 2)
    best = dict.fromkeys(weights, float("inf"))
    rounds, began = 0, time.perf_counter()
    while rounds < _LEAST or (rounds < _MOST and time.perf_counter() - began < seconds / 2):
        with _Clock(weights) as clock:
            call(module, batch)
        best = {name: min(known, clock.seconds[name]) for name, known in best.items()}
        rounds += 1
    return whole, best


class _Clock(TorchFunctionMode):
    """The time of functions that get a weight, or a view of one, by layer.

    Args:
        weights: by layer name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(weights, 0.0)
        self._owners = {id(weight): name for name, weight in weights.items()}
        self._kept: list[Any] = list(weights.values())  # or an id could be given again

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        name = next((self._owners[id(leaf)] for leaf in leaves if id(leaf) in self._owners), None)
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if name is not None:
            self.seconds[name] += time.perf_counter() - began
            if isinstance(result, PackedTensor) or (isinstance(result, Tensor) and result._is_view()):
                self._owners[id(result)] = name
                self._kept.append(result)
        return result


@contextmanager
def _packed(module: nn.Module, layers: Sequence[Layer], schemes: Mapping[str, Scheme]) -> Iterator[dict[str, Tensor]]:
    """Every layer under its scheme inside the `with`, by name; which codes it has makes no difference to the time."""
    quantizer, own, found = quantizer_named("rtn"), dict[str, Tensor](), dict[str, Tensor]()
    try:
        for layer in layers:
            weight, scheme = tensor_of(module, layer.parameters[0]), schemes[layer.name]
            parts = quantizer.quantize(to_matrix(weight.detach(), layer.axes, layer.groups), scheme).pack()
            made = nn.Parameter(packed_weight(parts, replace(layer, alike=0), scheme, weight.dtype), requires_grad=False)
            found[layer.name] = made
            for name in layer.parameters:
                own[name] = tensor_of(module, name)
                replace_tensor(module, name, made)
        yield found
    finally:
        for name, tensor in own.items():
            replace_tensor(module, name, tensor)


def profiled_batch(sample: Batch, size: int) -> Batch:
    """`size` copies of the first sample; a batch that is one sample stays as it is."""
    return sample if sample.whole else sample.select([0] * size)


def threads() -> int:
    """Of torch."""
    return torch.get_num_threads()
