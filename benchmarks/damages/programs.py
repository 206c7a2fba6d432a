"""Damages to files of programs: ONNX, OpenVINO and pt2."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.damages.base import Damaged, reordered, rolled, swapped_nibbles


class Onnx(Damaged):
    def _edit(self, change: Callable[[Any, dict[str, Any]], None]) -> None:
        import onnx

        model = onnx.load(self.export)
        change(model.graph, {each.name: each for each in model.graph.initializer})
        onnx.save(model, self.export)

    def _scales(self, layer: str, change: Callable[[Any], Any]) -> None:
        from onnx import numpy_helper

        def edit(graph: Any, held: dict[str, Any]) -> None:
            tensor = held[f"{self.place(layer)}.scales"]
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

        self._edit(edit)

    def scales_of_other_rows(self, layer: str) -> None:
        self._scales(layer, rolled)

    def groups_in_another_order(self, layer: str) -> None:
        self._scales(layer, reordered)

    def scales_of_another_layer(self, layer: str) -> None:
        other = self.like(layer)
        assert other is not None

        def edit(graph: Any, held: dict[str, Any]) -> None:
            first, second = held[f"{self.place(layer)}.scales"], held[f"{self.place(other)}.scales"]
            first.raw_data, second.raw_data = second.raw_data, first.raw_data

        self._edit(edit)

    def nibbles_swapped(self, layer: str) -> None:
        def edit(graph: Any, held: dict[str, Any]) -> None:
            tensor = held[f"{self.place(layer)}.codes"]
            tensor.raw_data = swapped_nibbles(np.frombuffer(tensor.raw_data, np.uint8)).tobytes()

        self._edit(edit)

    def another_group_size(self, layer: str) -> None:
        from onnx import numpy_helper

        def edit(graph: Any, held: dict[str, Any]) -> None:
            tensor = held[f"{self.place(layer)}.scales"]
            tensor.CopyFrom(numpy_helper.from_array(np.repeat(numpy_helper.to_array(tensor), 2, axis=1), tensor.name))
            node = next(node for node in graph.node if f"{self.place(layer)}.codes" in node.input)
            block = next(each for each in node.attribute if each.name == "block_size")
            block.i //= 2

        self._edit(edit)

    def _as_float(self, graph: Any, layer: str) -> str:
        """A new constant of the layer's weights; its name."""
        from onnx import numpy_helper

        from mpq.export.stored.onnx import read

        weight = read(self.export, []).weights[self.place(layer)].dequantize()
        name = f"{self.place(layer)}.unpacked"
        graph.initializer.append(numpy_helper.from_array(weight.numpy(), name))
        return name

    def loaded_as_float(self, layer: str) -> None:
        def edit(graph: Any, held: dict[str, Any]) -> None:
            name = self._as_float(graph, layer)
            node = next(node for node in graph.node if f"{self.place(layer)}.codes" in node.input)
            for user in graph.node:
                user.input[:] = [name if each == node.output[0] else each for each in user.input]
            graph.node.remove(node)

        self._edit(edit)

    def layer_missing(self, layer: str) -> None:
        self._edit(lambda graph, held: graph.initializer.remove(held[f"{self.place(layer)}.codes"]))

    def tensor_missing(self, tensor: str) -> None:
        self._edit(lambda graph, held: graph.initializer.remove(held[tensor]))

    def tied_head_lost(self, layer: str) -> None:
        def edit(graph: Any, held: dict[str, Any]) -> None:
            name = self._as_float(graph, layer)
            node = next(node for node in graph.node if f"{self.place(layer)}.codes" in node.input)
            users = [user for user in graph.node if node.output[0] in user.input and user.op_type != "Gather"]
            for user in users:
                user.input[:] = [name if each == node.output[0] else each for each in user.input]

        self._edit(edit)


class OpenVino(Damaged):
    def _bytes(self, constant: str, change: Callable[[Any], Any]) -> None:
        """Change the bytes of a constant."""
        weights = self.export.with_suffix(".bin")
        content = bytearray(weights.read_bytes())
        tree = ElementTree.parse(self.export)
        data = next(layer.find("data") for layer in tree.iter("layer") if layer.get("name") == constant)
        assert data is not None
        first, size = int(data.attrib["offset"]), int(data.attrib["size"])
        content[first : first + size] = change(np.frombuffer(bytes(content[first : first + size]), np.uint8)).tobytes()
        weights.write_bytes(content)

    def _constants(self, layer: str) -> tuple[str, str, tuple[int, ...]]:
        """Names of the constants of codes and scales, and the shape of the scales."""
        from mpq.export.stored.openvino import dequantized, opened

        for codes, _, scale, _ in dequantized(opened(self.export)):
            if codes.get_friendly_name() == self.place(layer):
                return codes.get_friendly_name(), scale.get_friendly_name(), tuple(scale.get_output_shape(0))
        raise AssertionError(layer)

    def _scales(self, layer: str, change: Callable[[Any], Any]) -> None:
        _, name, shape = self._constants(layer)
        rows = shape[0]
        self._bytes(
            name, lambda found: change(found.view(np.float32 if self._wide(layer) else np.float16).reshape(rows, -1)).view(np.uint8)
        )

    def _wide(self, layer: str) -> bool:
        from mpq.export.stored.openvino import dequantized, opened

        return any(
            str(scale.get_output_element_type(0).get_type_name()) == "f32"
            for codes, _, scale, _ in dequantized(opened(self.export))
            if codes.get_friendly_name() == self.place(layer)
        )

    def scales_of_other_rows(self, layer: str) -> None:
        self._scales(layer, rolled)

    def groups_in_another_order(self, layer: str) -> None:
        self._scales(layer, reordered)

    def nibbles_swapped(self, layer: str) -> None:
        self._bytes(self._constants(layer)[0], swapped_nibbles)


class Pt2(Damaged):
    def _edit(self, layer: str, part: str, change: Callable[[Any], Any]) -> None:
        program = torch.export.load(self.export)
        tensor = program.state_dict[f"{self.place(layer)}__{part}"]
        tensor.data.copy_(torch.from_numpy(np.ascontiguousarray(change(tensor.numpy()))))
        torch.export.save(program, self.export)

    def scales_of_other_rows(self, layer: str) -> None:
        self._edit(layer, "scales", rolled)

    def groups_in_another_order(self, layer: str) -> None:
        self._edit(layer, "scales", reordered)

    def nibbles_swapped(self, layer: str) -> None:
        self._edit(layer, "codes", swapped_nibbles)
