"""Damages to exports, as they happen in the field: each changes one layer or tensor of a written file, in place."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpq.records.fingerprint import Fingerprint, read_fingerprint


class Damage(NamedTuple):
    """What was done to which layer, and the kinds of finding that name it."""

    name: str
    layer: str
    kinds: tuple[str, ...]
    do: Callable[[], None]


def swapped_nibbles(packed: Any) -> Any:
    """Bytes whose halves are swapped."""
    flat = np.ascontiguousarray(packed).view(np.uint8)
    return (flat >> 4 | flat << 4).view(packed.dtype)


def rolled(scales: Any) -> Any:
    """Scales [rows, groups] of the row before."""
    return np.roll(scales, 1, axis=0)


def reordered(scales: Any) -> Any:
    """Scales [rows, groups] in the reverse order of groups."""
    return np.ascontiguousarray(np.flip(scales, axis=1))


_KINDS: dict[str, tuple[str, ...]] = {
    "scales of other rows": ("scales swapped",),
    "scales of another layer": ("scales swapped",),
    "groups in another order": ("group order",),
    "nibbles swapped": ("nibbles swapped",),
    "another group size": ("group size",),
    "loaded as float": ("unquantized",),
    "layer missing": ("layer missing", "unquantized"),
    "tensor missing": ("tensor missing",),
    "tied head lost": ("tie lost", "tensor missing"),
}


def damages(export: Path) -> Iterator[Damage]:
    """Every damage that the export can have; each is to be done to a fresh copy of it."""
    fingerprint = read_fingerprint(export)
    kind = {"onnx": _Onnx, "openvino": _OpenVino, "pt2": _Pt2, "compressed-tensors": _Folder, "gguf": _Gguf}[fingerprint.target]
    yield from kind(export, fingerprint).all()


class _Damaged:
    """Damages of one target; a subclass has a method for each that its files can have."""

    def __init__(self, export: Path, fingerprint: Fingerprint) -> None:
        self.export, self.layers, self.tensors = export, fingerprint.layers, fingerprint.tensors
        self.ties = sorted(fingerprint.ties) if fingerprint.target == "compressed-tensors" else []

    def all(self) -> Iterator[Damage]:
        """All of them."""
        for name, kinds in _KINDS.items():
            method = getattr(self, name.replace(" ", "_"), None)
            layer = None if method is None else self._layer(name)
            if method is not None and layer is not None:
                yield Damage(name, layer, kinds, lambda method=method, layer=layer: method(layer))  # type: ignore[misc]

    def _layer(self, name: str) -> str | None:
        """A layer that can have this damage, from the middle of the model."""
        grouped = re.compile(r"int[48]-g\d+")
        found = [layer for layer, facts in self.layers.items() if grouped.fullmatch(facts.scheme) and facts.matrix[1] > 32]
        if name == "nibbles swapped":
            found = [layer for layer in found if self.layers[layer].scheme.startswith("int4")]
        if name == "scales of another layer":
            found = [layer for layer in found if self.like(layer) is not None]
        if name == "tied head lost":
            found = [layer for layer, facts in self.layers.items() if len(facts.uses) > 1] + self.ties
        if name == "tensor missing":
            found = sorted(self.tensors)
        return found[len(found) // 2] if found else None

    def like(self, layer: str) -> str | None:
        """Another layer with scales of the same shape."""
        facts = self.layers[layer]
        return next((o for o, f in self.layers.items() if o != layer and (f.scheme, f.matrix) == (facts.scheme, facts.matrix)), None)

    def place(self, layer: str) -> str:
        """The layer's name in the file."""
        return self.layers[layer].place


class _Onnx(_Damaged):
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


class _OpenVino(_Damaged):
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


class _Pt2(_Damaged):
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


class _Folder(_Damaged):
    def _edit(self, change: Callable[[dict[str, Tensor]], None]) -> None:
        from safetensors.torch import load_file, save_file

        file = self.export / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})

    def _part(self, layer: str, part: str, change: Callable[[Any], Any]) -> None:
        name = f"{self.place(layer)}.weight_{part}"

        def edit(tensors: dict[str, Tensor]) -> None:
            tensors[name] = torch.from_numpy(np.ascontiguousarray(change(tensors[name].numpy())))

        self._edit(edit)

    def _config(self, change: Callable[[dict[str, Any]], None]) -> None:
        file = self.export / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        change(config)
        file.write_text(json.dumps(config), encoding="utf-8")

    def scales_of_other_rows(self, layer: str) -> None:
        self._part(layer, "scale", rolled)

    def groups_in_another_order(self, layer: str) -> None:
        self._part(layer, "scale", reordered)

    def scales_of_another_layer(self, layer: str) -> None:
        other = self.like(layer)
        assert other is not None
        names = [f"{self.place(each)}.weight_scale" for each in (layer, other)]

        def edit(tensors: dict[str, Tensor]) -> None:
            tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]

        self._edit(edit)

    def nibbles_swapped(self, layer: str) -> None:
        self._part(layer, "packed", swapped_nibbles)

    def loaded_as_float(self, layer: str) -> None:
        from mpq.export.stored.compressed_tensors import read
        from mpq.verify.places import places_of

        weight = read(self.export, places_of(read_fingerprint(self.export))).weights[self.place(layer)].dequantize()
        place = self.place(layer)

        def edit(tensors: dict[str, Tensor]) -> None:
            for part in ("packed", "scale", "shape"):
                del tensors[f"{place}.weight_{part}"]
            tensors[f"{place}.weight"] = weight

        def untarget(config: dict[str, Any]) -> None:
            for group in config["quantization_config"]["config_groups"].values():
                group["targets"] = [each for each in group["targets"] if each != place]
            config["quantization_config"]["ignore"].append(place)

        self._edit(edit)
        self._config(untarget)

    def layer_missing(self, layer: str) -> None:
        def edit(tensors: dict[str, Tensor]) -> None:
            for part in ("packed", "scale", "shape"):
                del tensors[f"{self.place(layer)}.weight_{part}"]

        self._edit(edit)

    def tensor_missing(self, tensor: str) -> None:
        def edit(tensors: dict[str, Tensor]) -> None:
            del tensors[tensor]

        self._edit(edit)

    def tied_head_lost(self, layer: str) -> None:
        self._config(lambda config: config.update(tie_word_embeddings=False))


class _Gguf(_Damaged):
    def _blocks(self, layer: str, change: Callable[[Any, int], None]) -> None:
        """Change the blocks of a layer, uint8 [rows, groups, bytes of a block], of which the first two bytes are the scale."""
        import gguf

        reader = gguf.GGUFReader(self.export, "r+")
        data = next(tensor.data for tensor in reader.tensors if tensor.name == self.place(layer))
        change(data.view(np.uint8).reshape(data.shape[0], self.layers[layer].matrix[1] // 32, -1), 2)
        reader.data.flush()

    def scales_of_other_rows(self, layer: str) -> None:
        def edit(blocks: Any, head: int) -> None:
            blocks[..., :head] = rolled(blocks[..., :head])

        self._blocks(layer, edit)

    def groups_in_another_order(self, layer: str) -> None:
        def edit(blocks: Any, head: int) -> None:
            blocks[..., :head] = reordered(blocks[..., :head])

        self._blocks(layer, edit)

    def nibbles_swapped(self, layer: str) -> None:
        def edit(blocks: Any, head: int) -> None:
            blocks[..., head:] = swapped_nibbles(blocks[..., head:])

        self._blocks(layer, edit)
