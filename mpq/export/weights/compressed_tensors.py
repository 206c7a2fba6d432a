"""compressed-tensors: a Hugging Face folder that Transformers and vLLM load, one config group per scheme.

Format "pack-quantized": per linear layer `weight_packed` (codes, densely in int32 along each row), `weight_scale` [rows, groups] as fp16,
and `weight_shape`. From the source of compressed-tensors 0.20. Zero points are not written: with that version, Transformers 5.23 expects
them unpacked and vLLM packed, so one of the two would not load them.

Linear layers are packed, including an untied head. Embeddings are stored with the artifact's values in the dtype of the model and take more
bytes than in the artifact: compressed-tensors and vLLM 0.32 support packed embeddings, but Transformers 5.23 fails on them when it
initializes weights ('Embedding' object has no attribute 'weight').
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mpq.export.abilities import Abilities, ExportError
from mpq.export.base import Options, Target, Written
from mpq.export.fused_schemes import check_fused
from mpq.export.output_place import staged
from mpq.export.plans.base import is_embedding
from mpq.export.source import Source
from mpq.export.vllm_remarks import remarks
from mpq.export.weights.hf_folder import CONFIG, config_with, copy_tokenizer
from mpq.export.weights.reopen import original_path, quantized_module
from mpq.files import OutputError, write_text
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.tensors.words import BITS, GROUP_SIZES, packed

_SCORES = ("score", "classifier")  # which vLLM builds without quantization


class CompressedTensors(Target):
    """4 and 8 bits, per row or in groups of 32, 64 or 128, as supported by vLLM's kernels for weight-only models."""

    keeps_rest = True
    fuses = True
    ending = "-compressed-tensors"
    abilities = Abilities(bits=BITS, group_sizes=GROUP_SIZES)

    def takes(self, name: str) -> bool:
        """Whether a layer is stored in its scheme; others are stored as values."""
        return name in self._packable

    def stores(self, layer: Layer) -> bool:
        """Whether it is the weight of one linear layer."""
        return _is_linear(layer)

    def check(self, source: Source, options: Options) -> None:
        """Refuse models that are not from Hugging Face, and fused layers with different schemes.

        Raises:
            ExportError: saying which.
        """
        if source.kind != "hf":
            raise ExportError(f"this target only supports Hugging Face models, but {source.path} is of kind {source.kind}: use onnx")
        self._packable = {layer.name for layer in source.artifact.layers if self.stores(layer)}
        if options.fused:
            names = [*source.schemes, *(name.removesuffix(".weight") for name in source.others or ())]
            check_fused({name: scheme for name, scheme in source.schemes.items() if not scheme.is_float}, names)

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write weights, tokenizer, then config.json, without which nothing loads the folder."""
        from safetensors.torch import save_file

        module = quantized_module(source, options)
        linear = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        state = module.state_dict()
        kept = {layer.name: layer for layer in source.artifact.layers if not self._packs(layer, source.schemes[layer.name], linear)}
        tensors = {name: tensor.contiguous() for name, tensor in source.rest().items()}
        tensors |= {layer.parameters[0]: state[layer.parameters[0]].contiguous() for layer in kept.values()}
        for name, weight in source.weights():
            if name not in kept:
                tensors |= {f"{name}.{part}": tensor for part, tensor in packed(weight).items()}
        schemes = {name: scheme for name, scheme in source.schemes.items() if name not in kept}
        config = _config(source, schemes, sorted(linear - set(schemes)))
        with staged(output, last=CONFIG) as folder:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            notes = copy_tokenizer(original_path(source, options), folder)
            write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        notes += [
            _stored_whole(layer, source, state[layer.parameters[0]]) for layer in kept.values() if not source.schemes[layer.name].is_float
        ]
        notes += remarks(schemes, {name: state[f"{name}.weight"].shape[1] for name in schemes}, sorted(linear))
        return Written(output, (*notes, f"use: AutoModelForCausalLM.from_pretrained('{output.name}', dtype='auto')"))

    def check_place(self, output: Path) -> None:
        """Refuse a folder with a model of another kind.

        Raises:
            OutputError: naming it.
        """
        super().check_place(output)
        found = output / CONFIG
        if found.exists() and '"compressed-tensors"' not in found.read_text(encoding="utf-8", errors="replace"):
            raise OutputError(f"{output} holds another model: choose another place with --output")

    def _packs(self, layer: Layer, scheme: Scheme, linear: set[str]) -> bool:
        return self.takes(layer.name) and layer.name in linear and not scheme.is_float


def _is_linear(layer: Layer) -> bool:
    """Whether a layer may be the weight of one linear layer, rows first; a tied head is an embedding."""
    plain = layer.axes == (0,) and len(layer.parameters) == 1 and len(layer.shape) == 2
    return plain and not is_embedding(layer.name) and layer.name.rpartition(".")[2] not in _SCORES


def _config(source: Source, schemes: dict[str, Scheme], ignored: list[str]) -> dict[str, Any]:
    """The model's config.json with the quantization in it."""
    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": _group(scheme, names) for number, (scheme, names) in enumerate(groups.items())},
        "ignore": ignored,
    }
    return config_with(source.artifact.config, quantization)


def _group(scheme: Scheme, names: list[str]) -> dict[str, Any]:
    weights: dict[str, Any] = {"num_bits": scheme.bits, "type": "int", "symmetric": True, "dynamic": False}
    weights |= {"strategy": "channel"} if scheme.group_size is None else {"strategy": "group", "group_size": scheme.group_size}
    return {"targets": names, "weights": weights, "input_activations": None, "output_activations": None}


def _stored_whole(layer: Layer, source: Source, value: Tensor) -> str:
    dtype, size = str(value.dtype).removeprefix("torch."), value.numel() * value.element_size()
    why = "this target packs linear layers only"
    return f"{layer.name} ({source.stored[layer.name]}) is stored as {dtype} values, {size:,} bytes: {why}"
