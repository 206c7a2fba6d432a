"""Sample-wise products: what `gradients/projections.py` gives for one sample, for all samples of a batch by one backward pass.

A `TorchFunctionMode` sees each call of an op with a watched weight, and a hook the gradient of its output. With the
inputs x and output gradients g of one sample the gradient of the weight is the sum of outer products of g and x; for a convolution it is
that of a convolution with the samples as groups, and for a lookup it lies in the rows that were picked. So the inner products with any
number of changes follow, and autograd forms no weight's gradient. Samples are taken a few at a time where their gradients would take
much memory.

Known ops: linear, addmm, convolutions that are not transposed, embedding, each with the samples along the leading dim. Whatever else
reads a watched weight raises `NotSamplewiseError`; the caller then goes sample by sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mpq.calibration.operands import DEFAULTS, each
from mpq.data.dataset import Batch
from mpq.errors import ModelError
from mpq.gradients.projections import gradients_of
from mpq.gradients.recomputation import kept_or_remade, recomputed
from mpq.gradients.weight_changes import Piece
from mpq.models.running.forward import Outputs, forward
from mpq.models.running.metrics import Metric, Prepared
from mpq.models.running.reference import sample_of
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix

_GRADIENT_VALUES = 1 << 23  # of the weight gradients of some samples in memory at a time
Pieces = Callable[[], Iterable[Piece]]
"""Gives the changes of one layer's matrix, some rows at a time."""
Gradients = Callable[[int, int, slice], Tensor]
"""Gives some rows of the gradients of some samples, each laid out as the layer's matrix: [samples, some rows, columns]."""
ReceiveRows = Callable[[Layer, Tensor], None]
"""Called once per draw with each layer and, for each of its changes, sample and row of its matrix, the inner product, float32
[changes, samples, rows]."""

_ATEN = torch.ops.aten
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_KNOWN: dict[Any, tuple[str, tuple[str, ...]]] = {
    functional.linear: ("linear", ("input", "weight", "bias")),
    _ATEN.linear.default: ("linear", ("input", "weight", "bias")),
    torch.addmm: ("addmm", ("bias", "input", "weight")),
    _ATEN.addmm.default: ("addmm", ("bias", "input", "weight")),
    functional.embedding: ("embedding", ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")),
    _ATEN.embedding.default: ("embedding", ("weight", "input", "padding_idx", "scale_grad_by_freq")),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), ("conv", _CONV)),
    **dict.fromkeys((_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default), ("conv", _CONV)),
    _ATEN.convolution.default: ("conv", (*_CONV[:-1], "transposed", "output_padding", "groups")),
}


class NotSamplewiseError(ModelError):
    """A watched weight is used in a way whose gradient per sample is not known."""


def project_batch(
    module: nn.Module,
    layers: Sequence[Layer],
    batch: Batch,
    metric: Metric,
    *,
    seeds: Sequence[int],
    draws: int,
    changes: Callable[[Layer], Iterable[Piece]],
    receive: Callable[[int], ReceiveRows],
    blocks: Sequence[nn.Module] = (),
) -> None:
    """What `project` does for each sample of `batch` alone, in one forward and `draws` backward passes over all of them.

    Args:
        module: the unquantized model, whose samples do not influence each other.
        layers: whose products are wanted.
        batch: some samples.
        metric: one that has a projection, such as KL divergence and relative MSE.
        seeds: of the random numbers, one per sample.
        draws: number of backward passes.
        changes: gives the changes of a layer's matrix, some rows at a time.
        receive: gives the callback for a draw, which is called with each layer's products.
        blocks: modules that run again in the backward pass, to save memory.

    Raises:
        NotRepeatableError: if a block gives another output when it runs again; some products may already have been received.
        NotSamplewiseError: if a weight of `layers` is used in an unknown way; some products may already have been received.
        ModelError: if the metric has no quadratic form here.
        NumericsError: if the outputs are not finite.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    seen = _Uses({id(tensor_of(module, layer.parameters[0])): layer for layer in layers}, batch.size, changes)
    with gradients_of(module, ()), torch.enable_grad(), recomputed(blocks, seen.again):
        with seen:
            outputs = forward(module, batch, gradients=True)
        prepared = metric.prepare(outputs.detached(), batch.mask)
        for draw in range(draws):
            directions = _directions(outputs, metric, prepared, generators)
            reached = [
                (output, each) for output, each in zip(outputs, directions, strict=True) if output.requires_grad and each is not None
            ]
            with seen.received(receive(draw)):
                torch.autograd.backward([output for output, _ in reached], [each for _, each in reached], draw + 1 < draws)


def _directions(outputs: Outputs, metric: Metric, prepared: Prepared, generators: Sequence[torch.Generator]) -> list[Tensor | None]:
    """The gradients of the samples' random projections with respect to the outputs; None for one that is not compared.

    Raises:
        NotSamplewiseError: if a compared output has no row per sample.
    """
    found: list[Tensor | None] = [None] * len(outputs)
    for index, generator in enumerate(generators):
        rows = {name: (output[index : index + 1] if output.ndim else output) for name, output in zip(outputs.names, outputs, strict=True)}
        own = {name: row.detach().requires_grad_() for name, row in rows.items()}
        scalar = metric.project(sample_of(prepared, index), Outputs.of(own), generator)
        gradients = torch.autograd.grad(scalar, list(own.values()), allow_unused=True)
        for place, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
            if gradient is None:
                continue
            if not output.ndim or len(output) != len(generators):
                raise NotSamplewiseError
            into = found[place] = torch.zeros_like(output) if found[place] is None else found[place]
            assert into is not None
            into[index : index + 1] = gradient
    return found


class _Uses(TorchFunctionMode):
    """Detects every use of some weights, and hooks the gradient of its output."""

    def __init__(self, layers: Mapping[int, Layer], samples: int, changes: Callable[[Layer], Iterable[Piece]]) -> None:
        super().__init__()
        self._layers, self._samples, self._changes = layers, samples, changes
        self._uses = Counter[str]()
        self._counting = True
        self._receive: ReceiveRows = lambda *_: None
        self._open: dict[str, tuple[Layer, Tensor, int]] = {}

    @contextmanager
    def received(self, receive: ReceiveRows) -> Iterator[None]:
        """Hand over what the backward pass inside the `with` finds; the products of several uses of one weight are summed."""
        self._receive = receive
        yield
        for layer, rows, _ in self._open.values():  # some of whose uses no gradient reached
            receive(layer, rows)
        self._open.clear()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside the `with`, uses that were detected before are seen again."""
        self._counting = False
        try:
            with self:
                yield
        finally:
            self._counting = True

    def _found(self, layer: Layer, rows: Tensor) -> None:
        _, sum_of_others, uses = self._open.pop(layer.name, (layer, torch.zeros(()), 0))
        if uses + 1 == self._uses[layer.name]:
            self._receive(layer, rows + sum_of_others)
        else:
            self._open[layer.name] = (layer, rows + sum_of_others, uses + 1)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        layers = [self._layers[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._layers]
        if not layers or not torch.is_grad_enabled() or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        operation, names = _KNOWN.get(func, ("", ()))
        arguments = dict(zip(names, args, strict=False)) | kwargs
        if len(layers) > 1 or id(arguments.get("weight")) not in self._layers or not {"alpha", "beta"}.isdisjoint(arguments):
            raise NotSamplewiseError
        (layer,) = layers
        inner = _inner(layer, operation, arguments, self._samples)
        self._uses[layer.name] += self._counting
        output = func(*args, **kwargs)
        if not output.requires_grad:
            output = output.requires_grad_().clone()  # nothing before it has a gradient; the clone may be changed in place
        output.register_hook(lambda gradient: self._found(layer, inner(gradient.detach().float(), lambda: self._changes(layer))))
        return output


def _inner(layer: Layer, operation: str, arguments: Mapping[str, Any], samples: int) -> Callable[[Tensor, Pieces], Tensor]:
    """Gives products [changes, samples, rows] from the gradient of the op's output and the changes."""
    given = arguments["input"].detach()
    if layer.groups > 1:
        raise NotSamplewiseError
    if operation == "embedding":
        if given.shape[0] != samples or layer.axes != (0,) or arguments.get("max_norm") is not None or arguments.get("scale_grad_by_freq"):
            raise NotSamplewiseError
        padding = arguments.get("padding_idx")
        return lambda gradient, changes: torch.cat([_looked_up(given, gradient, piece, padding) for piece in changes()], -1)
    if operation == "conv":
        return _convolved(layer, arguments, kept_or_remade(given), samples)
    if len(given) % samples or (given.dim() > 2 and len(given) != samples):
        raise NotSamplewiseError
    kept, straight = kept_or_remade(given), layer.axes == ((1,) if operation == "addmm" else (0,))

    def products(gradient: Tensor, changes: Pieces) -> Tensor:
        inputs, outputs = (part.reshape(samples, -1, part.shape[-1]) for part in (kept(), gradient))

        def gradients(start: int, stop: int, rows: slice) -> Tensor:
            left, right = (part[start:stop].float() for part in (outputs, inputs))
            if straight:
                return left[..., rows].mT @ right
            return _matrices(layer, right.mT @ left if operation == "addmm" else left.mT @ right)[:, rows]

        return _by_gradients(gradients, changes, samples)

    return products


def _matrices(layer: Layer, gradients: Tensor) -> Tensor:
    """Gradients [samples, *shape of the weight] as [samples, rows, columns]."""
    return to_matrix(gradients, (0, *(axis + 1 for axis in layer.axes))).view(len(gradients), *layer.matrix)


def _by_gradients(gradients: Gradients, changes: Pieces, samples: int) -> Tensor:
    """Products by way of the gradients of a few samples at a time; each is made once for each piece of the changes."""
    found = []
    for rows, piece in changes():
        step = max(1, _GRADIENT_VALUES // piece[0].numel())
        parts = [row_products(gradients(start, min(start + step, samples), rows), piece) for start in range(0, samples, step)]
        found.append(torch.cat(parts, 1))
    return torch.cat(found, -1)


def row_products(gradients: Tensor, changes: Tensor) -> Tensor:
    """The inner product of each row of each change [changes, rows, columns] with that of each gradient [gradients, rows, columns].

    Returns:
        [changes, gradients, rows].
    """
    return (changes.transpose(0, 1) @ gradients.permute(1, 2, 0)).permute(1, 2, 0)


def _convolved(layer: Layer, arguments: Mapping[str, Any], kept: Callable[[], Tensor], samples: int) -> Callable[[Tensor, Pieces], Tensor]:
    """The samples side by side as groups of one convolution: then the gradient of its weight is that of each sample's own."""
    weight, (count, dim), groups = arguments["weight"], (len(arguments["input"]), arguments["input"].dim()), int(arguments.get("groups", 1))
    if dim != weight.dim() or count != samples or isinstance(arguments.get("padding"), str) or arguments.get("transposed"):
        raise NotSamplewiseError
    dims = weight.dim() - 2
    straight = groups == 1 and layer.axes == (0,)
    stride, padding, dilation = (list(each(arguments.get(name, default), dims)) for name, default in DEFAULTS)

    def gradients(given: Tensor, gradient: Tensor, start: int, stop: int, rows: slice) -> Tensor:
        count, own = stop - start, rows if straight else slice(None)
        side_by_side = [part.float().reshape(1, -1, *part.shape[2:]) for part in (gradient[start:stop, own], given[start:stop])]
        repeated = weight.detach()[own].float().repeat(count, *[1] * (weight.dim() - 1))
        settings = (None, stride, padding, dilation, False, [0] * dims, count * groups, (False, True, False))
        found: Tensor = _ATEN.convolution_backward(*side_by_side, repeated, *settings)[1]
        made = found.reshape(count, -1, *weight.shape[1:])
        return made.flatten(2) if straight else _matrices(layer, made)[:, rows]

    def products(gradient: Tensor, changes: Pieces) -> Tensor:
        given = kept()
        return _by_gradients(lambda start, stop, rows: gradients(given, gradient, start, stop, rows), changes, samples)

    return products


def _looked_up(indices: Tensor, gradient: Tensor, piece: Piece, padding: int | None) -> Tensor:
    if padding is not None and padding >= 0:
        gradient = gradient * (indices != padding).unsqueeze(-1)  # autograd gives that row no gradient either
    rows, changes = piece
    samples, (_, count, columns) = len(indices), changes.shape
    places = indices.reshape(samples, -1) - rows.start
    outside = (places < 0) | (places >= count)
    places, values = places.clamp(0, count - 1), gradient.reshape(samples, -1, columns)
    found = torch.zeros(len(changes), samples, count, device=changes.device)
    for change, into in zip(changes, found, strict=True):
        into.scatter_add_(1, places, (change[places] * values).sum(-1).masked_fill_(outside, 0.0))
    return found
