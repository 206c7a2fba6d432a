"""Lookup tables in a graph: the codes and scales of the rows that are looked up are dequantized, not the whole table in every call."""

from __future__ import annotations

from typing import Any

from mpq.formats.scheme import Scheme
from mpq.tensors.quantized import QuantizedWeight


def lookups_of(place: Any, weight: QuantizedWeight) -> list[Any]:
    """The nodes that look up rows of a weight which can be dequantized row by row: 8-bit codes with one scale for each row."""
    scales, scheme = weight.scales, weight.scheme
    if scales is None or scales.shape[1] != 1 or weight.zero_points is not None or not _is_byte(scheme):
        return []
    return gathers_of(place)


def gathers_of(place: Any) -> list[Any]:
    """The nodes that look up rows of a weight."""
    return [node for node, index in place.uses() if node.op_type == "Gather" and index == 0 and _axis(node) == 0]


def look_up(ir: Any, graph: Any, node: Any, codes: Any, scales: Any, last: Any) -> list[Any]:
    """Replace a Gather of values by one of codes [rows, columns] and one of scales [rows], times each other; the new nodes.

    `last` is the constant [-1].
    """
    result, row = node.outputs[0], node.inputs[1]
    parts = [ir.node("Gather", [table, row], attributes={"axis": 0}) for table in (codes, scales)]
    floats = [ir.node("Cast", [part.outputs[0]], attributes={"to": ir.DataType.FLOAT}) for part in parts]
    column = ir.node("Unsqueeze", [floats[1].outputs[0], last])
    nodes = [*parts, *floats, column, ir.node("Mul", [floats[0].outputs[0], column.outputs[0]])]
    if result.dtype not in (None, ir.DataType.FLOAT):
        nodes.append(ir.node("Cast", [nodes[-1].outputs[0]], attributes={"to": result.dtype}))
    nodes[-1].outputs[0].type, nodes[-1].outputs[0].shape = result.type, result.shape
    graph.insert_before(node, nodes)
    result.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return nodes


def _is_byte(scheme: Scheme) -> bool:
    return scheme.is_integer and scheme.bits == 8


def _axis(node: Any) -> int:
    return int(node.attributes["axis"].as_int()) if "axis" in node.attributes else 0
