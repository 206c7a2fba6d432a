"""An OpenVINO model: integer constants behind Convert and Multiply, with the operators that use them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpq.errors import FormatError
from mpq.export.base import package
from mpq.export.stored.base import Held, Place, integer_scheme, values
from mpq.shown import first_line
from mpq.tensors.quantized import QuantizedWeight

_BITS = {"i4": 4, "u4": 4, "i8": 8, "u8": 8}
_SHAPERS = ("Reshape", "Transpose", "Convert", "Multiply", "Squeeze", "Unsqueeze")
_FLOATS = ("f16", "bf16", "f32", "f64")


def read(path: Path, places: Iterable[Place]) -> Held:
    """The contents of a model."""
    model = opened(path)
    weights, uses, taken = {}, {}, set()
    for constant, product, scale, zeros in dequantized(model):
        name = constant.get_friendly_name()
        weights[name] = _weight(constant, scale, zeros)
        uses[name] = tuple(sorted(user.get_type_name() for user in _users(product)))
        taken |= {each.get_friendly_name() for each in (constant, scale, zeros) if each is not None}
    constants = {each.get_friendly_name(): each for each in _constants(model) if _type(each) in _FLOATS}
    for place in places:
        if place.scheme.is_float and place.name in constants:
            weights[place.name] = values(torch.from_numpy(_array(constants[place.name], np.float32)), place.matrix)
            taken.add(place.name)
    others = {name: torch.from_numpy(_array(each, np.float32)) for name, each in constants.items() if name not in taken}
    return Held(weights, others, uses)


def opened(path: Path) -> Any:
    """The model in an .xml.

    Raises:
        FormatError: if OpenVINO cannot read it.
    """
    core = package("openvino", extra="openvino").Core()
    try:
        return core.read_model(path)
    except Exception as error:  # it has its own errors
        raise FormatError(f"{path} is not an OpenVINO model, or is damaged ({first_line(error)})") from error


def dequantized(model: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    """The constant with codes, the node that gives the weight in groups, the constant with scales, and the one with zero points or None."""
    for constant in _constants(model):
        if _type(constant) not in _BITS or len(constant.get_output_shape(0)) < 2:
            continue
        codes, zeros = _only_user(constant, "Convert"), None
        node = _only_user(codes, "Subtract", "Multiply")
        if node is not None and node.get_type_name() == "Subtract":
            if node.input_value(0).get_node() != codes:
                continue  # they are zero points
            node, zeros = _only_user(node, "Multiply"), _constant_of(node)
        scale = None if node is None else _constant_of(node)
        if scale is not None:
            yield constant, node, scale, zeros


def _constants(model: Any) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]


def _type(node: Any) -> str:
    return str(node.get_output_element_type(0).get_type_name())


def _array(constant: Any, dtype: Any) -> Any:
    return np.array(constant.get_data(dtype=dtype))


def _only_user(node: Any, *kinds: str) -> Any:
    """The node of one of these kinds that uses the output of `node`."""
    users = [] if node is None else [each.get_node() for each in node.output(0).get_target_inputs()]
    return next((user for user in users if user.get_type_name() in kinds), None)


def _constant_of(node: Any) -> Any:
    """The constant that is the second input of a node, also behind a Convert."""
    found = node.input_value(1).get_node()
    found = found.input_value(0).get_node() if found.get_type_name() == "Convert" else found
    return found if found.get_type_name() == "Constant" else None


def _users(node: Any) -> Iterator[Any]:
    """The nodes that use a weight, skipping those that only reshape it or scale it by constants."""
    for user in (each.get_node() for each in node.output(0).get_target_inputs()):
        shaped = user.get_type_name() in _SHAPERS and all(
            each.get_node() == node or each.get_node().get_type_name() == "Constant" for each in user.input_values()
        )
        if shaped:
            yield from _users(user)
        else:
            yield user


def _rows(shape: Sequence[int], scales: Sequence[int]) -> int:
    """Rows of a weight: its first dimension, or for a convolution all dimensions with separate scales, such as [groups, outputs, ...]."""
    if len(shape) < 4 or len(scales) != len(shape):
        return shape[0]
    own = itertools.takewhile(lambda sizes: sizes[0] == sizes[1], zip(shape, scales, strict=True))
    return math.prod(size for size, _ in own)


def _weight(constant: Any, scale: Any, zeros: Any) -> QuantizedWeight:
    shape = list(constant.get_output_shape(0))
    rows = _rows(shape, list(scale.get_output_shape(0)))
    codes = _codes(constant).reshape(rows, -1)
    scales = _array(scale, np.float32).reshape(rows, -1)
    size = shape[-1] if scales.shape[1] > 1 else codes.shape[1]
    bits = _BITS[_type(constant)]
    scheme = integer_scheme(bits, groups=scales.shape[1], columns=codes.shape[1], group_size=size, symmetric=zeros is None)
    zero_points = None if zeros is None else torch.from_numpy(_codes(zeros).reshape(scales.shape))
    return QuantizedWeight(scheme, (codes.shape[0], codes.shape[1]), torch.from_numpy(codes), torch.from_numpy(scales), zero_points)


def _codes(constant: Any) -> Any:
    """Codes or zero points, unsigned: two 4-bit ones are in a byte, the first in its lower half."""
    kind = _type(constant)
    found = np.array(constant.data).reshape(-1).view(np.uint8)
    if _BITS[kind] == 4:
        halves = np.stack([found & 0x0F, found >> 4], axis=-1).reshape(-1)
        found = halves[: int(np.prod(constant.get_output_shape(0)))]
    return found ^ np.uint8(2 ** (_BITS[kind] - 1)) if kind.startswith("i") else found
