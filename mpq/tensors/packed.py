"""The packed tensor: a `torch.Tensor` that stores codes and scales, in place of a module's parameter.

It has the shape and dtype of its weight. Linear layers, matrix products and embeddings use kernels for codes (`kernels/`). Any other
function gets the dequantized weight while it runs. Functions called from Python arrive through `__torch_function__`, and operators called
from compiled code through `__torch_dispatch__`. It has no gradients and can only be replaced by one of the same scheme and shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.errors import UsageError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.kernels import choose, traced, watched
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.matrix import from_matrix

aten = torch.ops.aten
_PARTS = ("codes", "scales", "zero_points")
_CONVOLUTIONS = [getattr(torch, f"conv{kind}{dimensions}d") for kind in ("", "_transpose") for dimensions in (1, 2, 3)]
_CONVOLUTIONS += [getattr(aten, name).default for name in ("conv1d", "conv2d", "conv3d", "convolution")]
Handler = Callable[..., Any]
_FUNCTIONS: dict[Any, Handler] = {}
_OPERATORS: dict[Any, Handler] = {}


class PackedTensor(torch.Tensor):
    """A quantized weight that stays packed.

    Args:
        packed: its codes.
        shape: shape of the weight.
        axes: its output axes, see `tensors/matrix.py`.
        dtype: dtype of the weight that it represents; products with it keep the dtype of the input.
        groups: groups of its first axis, see `tensors/matrix.py`.
    """

    groups = 1  # also if an older file does not say
    packed_codes: Tensor
    packed_scales: Tensor | None
    packed_zero_points: Tensor | None

    @staticmethod
    def __new__(cls, packed: Codes, shape: Sequence[int], axes: Sequence[int], dtype: torch.dtype, groups: int = 1) -> PackedTensor:
        """A wrapper without memory of its own."""
        return torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=packed.codes.device, requires_grad=False)

    def __init__(self, packed: Codes, shape: Sequence[int], axes: Sequence[int], dtype: torch.dtype, groups: int = 1) -> None:
        self._packed, self.scheme_name = packed, str(packed.scheme)
        # the tensor's own dtype would recurse through __torch_function__
        self.axes, self.weight_dtype, self.groups = tuple(axes), dtype, groups
        self.output_axis = self.axes[0] if len(shape) == 2 and len(self.axes) == 1 else None
        self.packed_codes, self.packed_scales, self.packed_zero_points = packed.codes, packed.scales, packed.zero_points

    @property
    def packed(self) -> Codes:
        """The codes."""
        if torch.compiler.is_compiling():  # a tracer must see its tensors come from its attributes
            return self._packed._replace(codes=self.packed_codes, scales=self.packed_scales, zero_points=self.packed_zero_points)
        return self._packed

    @property
    def packed_bytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(part.numel() * part.element_size() for part in self.parts().values())

    def parts(self) -> dict[str, Tensor]:
        """Its tensors by name: codes, and scales and zero points if it has them."""
        found = {name: getattr(self, f"packed_{name}") for name in _PARTS}
        return {name: part for name, part in found.items() if part is not None}

    def dequantize(self) -> Tensor:
        """The weight in its own shape and dtype, contiguous; bit-identical to that of an unpacked `mpq.load`."""
        if not torch.compiler.is_compiling() and watched.notes:
            watched.ran(watched.DEQUANTIZED, self._packed)
        return from_matrix(choose.dequantize(self.packed), self.shape, self.axes, self.groups).to(self.weight_dtype)

    def with_parts(self, parts: Mapping[str, Any], *, dtype: torch.dtype | None = None) -> PackedTensor:
        """The weight with different tensors, or with another dtype."""
        return self.with_packed(self.packed._replace(**parts), dtype=dtype)

    def with_packed(self, packed: Codes, *, dtype: torch.dtype | None = None) -> PackedTensor:
        """The weight with different codes, or with another dtype."""
        return PackedTensor(packed, self.shape, self.axes, dtype or self.weight_dtype, self.groups)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Scheme, shape and size."""
        where = f"dtype={self.dtype}, device={self.device}"
        return f"PackedTensor({self.scheme_name}, shape={list(self.shape)}, {where}, {self.packed_bytes:,} bytes)"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        """The names of its tensors, and everything else, for tracers."""
        names, packed = [f"packed_{name}" for name in self.parts()], self._packed
        facts = (packed.layout, self.scheme_name, packed.matrix, packed.bits, packed.simple)
        return names, (*facts, self.axes, self.weight_dtype, self.groups)

    def _stable_hash_for_caching(self) -> str:
        """The key for torch.compile's cache."""
        return repr((self.__tensor_flatten__()[1], [list(part.shape) for part in self.parts().values()]))

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], context: Any, shape: Sequence[int], stride: Sequence[int]) -> PackedTensor:
        """The inverse of `__tensor_flatten__`."""
        layout, scheme, matrix, bits, simple, axes, dtype, groups = context
        parts = {name: inner.get(f"packed_{name}") for name in _PARTS}
        codes = parts["codes"]
        assert codes is not None
        found = Codes(layout, parse_scheme(scheme), matrix, codes, parts["scales"], parts["zero_points"], bits, simple)
        return PackedTensor(found, shape, axes, dtype, groups)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Functions called from Python."""
        handler = _FUNCTIONS.get(func)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Operators."""
        handler = _OPERATORS.get(func)
        found = NotImplemented if handler is None else handler(*args, **(kwargs or {}))
        return _dequantized(func, args, kwargs or {}) if found is NotImplemented else found


def product(x: Tensor, weight: PackedTensor) -> Tensor:
    """The product of x [..., columns] with the transposed matrix of `weight`: [..., rows]."""
    found = traced.product(x, weight.packed) if torch.compiler.is_compiling() else choose.product(x, weight._packed)
    return found if x.ndim == 2 else found.view(*x.shape[:-1], found.shape[1])


def _handles(table: dict[Any, Handler], *functions: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        table.update(dict.fromkeys(functions, handler))
        return handler

    return register


@_handles(_OPERATORS, aten.linear.default)  # not decomposed, only under inference_mode
@_handles(_FUNCTIONS, torch.nn.functional.linear, aten.linear.default)
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    if not _multiplies(input, weight, output_axis=0):
        return torch.nn.functional.linear(plain(input), plain(weight), bias if bias is None else plain(bias))
    assert isinstance(weight, PackedTensor)
    found = product(input, weight)
    return found if bias is None else found + plain(bias)


def _convolution(function: Any, input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Any:  # noqa: A002
    """The same as any other function, but ten times as fast as the general path."""
    return function(plain(input), plain(weight), *rest, **named)


_FUNCTIONS |= {function: partial(_convolution, function) for function in _CONVOLUTIONS}


@_handles(_FUNCTIONS, torch.nn.functional.embedding)
def _embedding_function(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    if max_norm is None:
        return _embedding(weight, input)
    raise UsageError("an embedding with max_norm writes to its weight, and packed weights are read-only: load with packed=False")


@_handles(_OPERATORS, aten.embedding.default)
def _embedding(weight: Tensor, indices: Tensor, *_: Any, **__: Any) -> Any:
    if not isinstance(weight, PackedTensor) or weight.output_axis != 0 or isinstance(indices, PackedTensor):
        return aten.embedding.default(plain(weight), plain(indices))
    if torch.compiler.is_exporting():
        return aten.embedding.default(weight.dequantize(), indices)
    rows = traced.rows_of if torch.compiler.is_compiling() else choose.rows_of
    return rows(weight.packed, indices.reshape(-1)).to(weight.weight_dtype).view(*indices.shape, -1)


@_handles(_OPERATORS, aten.mm.default)
def _mm(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    return product(input, weight) if _multiplies(input, weight, output_axis=1) else NotImplemented  # type: ignore[arg-type]


@_handles(_OPERATORS, aten.addmm.default)
def _addmm(bias: Tensor, input: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: A002
    if beta != 1 or alpha != 1 or not _multiplies(input, weight, output_axis=1):
        return NotImplemented
    assert isinstance(weight, PackedTensor)
    return product(input, weight) + plain(bias)


@_handles(_OPERATORS, aten.t.default, aten.transpose.int)
def _transpose(weight: PackedTensor, first: int = 0, second: int = 1) -> Any:
    return _swapped(weight) if weight.ndim == 2 and first % 2 != second % 2 else NotImplemented


@_handles(_OPERATORS, aten.permute.default)
def _permute(weight: PackedTensor, dims: Sequence[int]) -> Any:
    return _swapped(weight) if [dim % weight.ndim for dim in dims] == [1, 0] else NotImplemented


@_handles(_OPERATORS, aten.detach.default, aten.alias.default, aten.lift_fresh.default)
def _same(weight: PackedTensor) -> PackedTensor:
    return weight.with_parts({})


@_handles(_OPERATORS, aten.view.default, aten._unsafe_view.default, aten.reshape.default)
def _view(weight: PackedTensor, shape: Sequence[int]) -> Any:
    known = math.prod(size for size in shape if size != -1)
    wanted = [weight.numel() // known if size == -1 else size for size in shape]
    return weight.with_parts({}) if wanted == list(weight.shape) else NotImplemented


@_handles(_OPERATORS, aten.clone.default)
def _clone(weight: PackedTensor, *, memory_format: object = None) -> PackedTensor:
    return weight.with_parts({name: part.clone() for name, part in weight.parts().items()})


@_handles(_OPERATORS, aten._to_copy.default)
def _to_copy(
    weight: PackedTensor, *, dtype: torch.dtype | None = None, device: torch.device | None = None, non_blocking: bool = False, **_: Any
) -> Any:
    if dtype is not None and not dtype.is_floating_point:
        return NotImplemented
    parts = {name: part.to(device, non_blocking=non_blocking, copy=True) for name, part in weight.parts().items()}
    found = weight.with_parts(parts, dtype=dtype)
    if found.weight_dtype == weight.weight_dtype or torch.compiler.is_compiling() or {weight.device.type, found.device.type} != {"cpu"}:
        return found
    return found.with_packed(choose.best_layout(found.packed, found.ndim, found.weight_dtype))


@_handles(_OPERATORS, aten.copy_.default)
def _copy_(weight: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    if not isinstance(weight, PackedTensor):
        return NotImplemented
    if not isinstance(source, PackedTensor) or _identity(weight) != _identity(source):
        raise UsageError(
            f"a packed weight ({weight.scheme_name}) can only be replaced by one with the same scheme and shape, not "
            f"{type(source).__name__} {list(source.shape)}: load the artifact with packed=False to change weights"
        )
    others = source.with_packed(choose.in_layout(source.packed, weight.packed.layout)).parts()
    for name, part in weight.parts().items():
        part.copy_(others[name], non_blocking=non_blocking)
    return weight


def _identity(weight: PackedTensor) -> tuple[Any, ...]:
    """The properties that two weights must share for one to be copied into the other."""
    return weight.scheme_name, weight.packed.matrix, tuple(weight.shape), weight.axes, weight.groups


def plain(value: Tensor) -> Tensor:
    """`value`, dequantized if it is packed."""
    return value.dequantize() if isinstance(value, PackedTensor) else value


def _multiplies(x: Tensor, weight: Tensor, *, output_axis: int) -> bool:
    """Whether x can be multiplied with codes: a plain input without gradients, and a matrix with its outputs along one axis."""
    return (
        isinstance(weight, PackedTensor)
        and not isinstance(x, PackedTensor)
        and weight.output_axis == output_axis
        and x.dtype == weight.weight_dtype
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch._C._is_any_autocast_enabled()
        and not torch.compiler.is_exporting()
    )


def _swapped(weight: PackedTensor) -> PackedTensor:
    """The transposed matrix: the same codes, with outputs along the other axis."""
    return PackedTensor(weight.packed, weight.shape[::-1], tuple(1 - axis for axis in weight.axes), weight.weight_dtype)


def _dequantized(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Any operator: by its decomposition if it has one, which happens under inference_mode; else on the dequantized weights."""
    found = func.decompose(*args, **kwargs)
    if found is not NotImplemented:
        return found
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.is_write and isinstance(value, PackedTensor):
            raise UsageError(f"{func} would write to a packed weight ({value.scheme_name}): load the artifact with packed=False")
    args, kwargs = pytree.tree_map_only(PackedTensor, PackedTensor.dequantize, (args, dict(kwargs)))
    return func(*args, **kwargs)


torch.serialization.add_safe_globals([PackedTensor, Codes, Scheme, (Scheme, "mpq.schemes.Scheme")])  # its place in older files
