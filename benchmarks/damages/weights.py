"""Damages to files of weights: folders of Hugging Face and GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.damages.base import Damaged, reordered, rolled, swapped_nibbles
from mpq.records.fingerprint import read_fingerprint


class Folder(Damaged):
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


class Gguf(Damaged):
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
