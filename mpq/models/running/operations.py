"""The number of floating-point operations of a model call: the same on every machine.

Matrix products, convolutions and attention are counted by the formulas of torch's `FlopCounterMode`, which lacks kernels that a CPU uses:
recurrent layers of oneDNN, attention in one kernel, bilinear forms, distances, solvers, and products with sparse matrices. All else
(lookups, normalization, activations, kernels of other libraries) is not counted, but a pass takes at least as many operations as its
operators read and write elements, so that a model without known products has no cost of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from mpq.data.batch import Batch
from mpq.models.running.forward import forward

_ATEN = torch.ops.aten
_WITH_SPARSE = (_ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN._sparse_addmm)
_LOOKUPS = ("embedding", "_embedding_bag", "index", "index_select", "gather", "take")


def operations(module: nn.Module, batch: Batch) -> float:
    """Operations of one forward pass over `batch`; a multiply-add counts as two."""
    counter = OperationCounter()
    with counter:
        forward(module, batch)
    return counter.total


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of everything inside the `with`.

    Attributes:
        products: operations of matrix products, convolutions, attention and recurrent layers.
        elements: elements that all operators read and write.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = self.elements = 0.0

    @property
    def total(self) -> float:
        """Products, at least as many as elements."""
        return max(self.products, self.elements)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run one operator and count it; one that is made of others is split into them."""
        given, packet = kwargs or {}, func._overloadpacket
        if packet not in _FORMULAS and packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **given)
            if result is not NotImplemented:
                return result
        result = func(*args, **given)
        self.products += _products(packet, args, given, result)
        self.elements += 0 if _is_view(func) else _elements(str(packet._qualified_op_name), (args, given), result)
        return result


def _products(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> float:
    sparse = [value for value in args if isinstance(value, Tensor) and value.layout != torch.strided]
    if packet in _WITH_SPARSE and sparse:
        return float(2 * sparse[0]._nnz() * result.shape[-1])
    if packet in _FORMULAS:
        return float(_FORMULAS[packet](args))
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=result))
    return 0.0


def _elements(name: str, inputs: Any, result: Any) -> float:
    """Elements that an operator reads and writes; a lookup reads one for each that it writes, or for each index."""
    written = sum(_size(tensor) for tensor in _tensors(result))
    read = [_size(tensor) for tensor in _tensors(inputs)]
    if name.partition("::")[2] in _LOOKUPS:
        width = next((tensor.shape[-1] for tensor in _tensors(inputs) if tensor.ndim), 1)
        return float(written + max(written, width * sum(read[1:]) if name.endswith("_bag") else 0))
    return float(written + sum(read))


def _size(tensor: Tensor) -> int:
    return tensor.numel() if tensor.layout == torch.strided else tensor._nnz()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_view(func: Any) -> bool:
    """Whether an operator returns a part of its input and computes nothing."""
    returned = func._schema.returns
    return bool(returned) and all(each.alias_info is not None and not each.alias_info.is_write for each in returned)


def _recurrent(args: tuple[Any, ...]) -> float:
    """One layer: at each step, the input and the state are multiplied by their weights."""
    steps, inner, outer = args[0], args[1], args[2]
    return float(2.0 * (steps.numel() // steps.shape[-1]) * (inner.numel() + outer.numel()))


def _attention(args: tuple[Any, ...]) -> float:
    return float(sdpa_flop_count(*(tuple(one.shape) for one in args[:3])))  # type: ignore[no-untyped-call]


def _self_attention(args: tuple[Any, ...]) -> float:
    """Projections of queries, keys, values and outputs, and attention between all positions."""
    query, key, width = args[0], args[1], int(args[3])
    samples, length, others = query.shape[0], query.shape[1], key.shape[1]
    return float(8.0 * samples * length * width**2 + 4.0 * samples * length * others * width)


def _encoder_layer(args: tuple[Any, ...]) -> float:
    """Attention within a sequence, and two products for each position."""
    rows, matrices = args[0].shape[0] * args[0].shape[1], [one for one in args[3:] if isinstance(one, Tensor) and one.ndim == 2]
    return float(2.0 * rows * sum(one.numel() for one in matrices) + 4.0 * rows * args[0].shape[1] * int(args[1]))


def _bilinear(args: tuple[Any, ...]) -> float:
    return float(2.0 * args[1].numel() * (args[0].numel() / args[0].shape[-1]))


def _distances(args: tuple[Any, ...]) -> float:
    return float(3.0 * args[0].numel() * args[1].shape[-2])


def _transform(args: tuple[Any, ...]) -> float:
    sizes: Sequence[int] = [args[0].shape[axis] for axis in args[1]]
    return float(5.0 * args[0].numel() * math.log2(max(2, math.prod(sizes))))


def _solver(args: tuple[Any, ...]) -> float:
    return float(2.0 * args[0].numel() * min(args[0].shape[-2:]))


_FORMULAS: dict[Any, Callable[[tuple[Any, ...]], float]] = {
    _ATEN.mkldnn_rnn_layer: _recurrent,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_fused_attention_overrideable: _attention,
    _ATEN._native_multi_head_attention: _self_attention,
    _ATEN._transformer_encoder_layer_fwd: _encoder_layer,
    _ATEN._trilinear: _bilinear,
    _ATEN._cdist_forward: _distances,
    _ATEN._euclidean_dist: _distances,
    **dict.fromkeys((_ATEN._fft_r2c, _ATEN._fft_c2r, _ATEN._fft_c2c), _transform),
    **dict.fromkeys(
        (_ATEN.linalg_inv_ex, _ATEN._linalg_solve_ex, _ATEN._linalg_svd, _ATEN.linalg_cholesky_ex, _ATEN._linalg_eigh), _solver
    ),
}
