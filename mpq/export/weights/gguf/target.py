"""GGUF: Llama-family models for llama.cpp, each layer in the block type that represents its codes.

Rows of query and key weights are reordered per head for llama.cpp's rotary embedding; a permutation of rows moves whole groups, so codes
and scales do not change. Norms and biases are float32. Keys: GGUF specification in the ggml repository.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.export.abilities import ExportError
from mpq.export.base import Options, Target, Written, package
from mpq.export.gguf_blocks import ABILITIES, block_type, pack_blocks
from mpq.export.llama_names import gguf_name
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.gguf.vocabulary import add_vocabulary
from mpq.export.weights.reopen import original_path
from mpq.tensors.quantized import QuantizedWeight

_MODEL_TYPES = ("llama", "mistral")
_DEFAULT_THETA = 10000.0


class Gguf(Target):
    """Block types of 32 weights; other schemes use the next larger one, which takes more bytes than in the artifact."""

    keeps_rest = True
    ending = ".gguf"
    abilities = ABILITIES

    def check(self, source: Source, options: Options) -> None:
        """Refuse models that differ from llama.cpp's "llama" architecture.

        Raises:
            ExportError: with the reason.
        """
        package("gguf", extra="gguf")
        config = source.artifact.config
        if config.get("model_type") not in _MODEL_TYPES:
            found = config.get("model_type") or f"one of kind {source.kind}"
            raise ExportError(
                f"this target only supports Hugging Face models of the types {', '.join(_MODEL_TYPES)}, not {found}: use onnx"
            )
        kind = (_rope(config).get("rope_type") or _rope(config).get("type") or "default").lower()
        if kind != "default":
            raise ExportError(f"rope scaling of type '{kind}' cannot be written to GGUF by mpq: use compressed-tensors or onnx")
        strange = [name for name in (*source.schemes, *source.rest()) if gguf_name(name) is None]
        if strange:
            raise ExportError(f"'{strange[0]}' has no name in a GGUF file of a {config['model_type']} model")

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write keys, vocabulary and tensors."""
        gguf = package("gguf", extra="gguf")
        with staged(output.parent, last=output.name) as folder:
            notes = self._fill(gguf.GGUFWriter(folder / output.name, "llama"), source, options)
        return Written(output, (*notes, f"use: llama-cli -m {output.name}"))

    def _fill(self, writer: Any, source: Source, options: Options) -> list[str]:
        """Write everything through `writer`; returns notes."""
        gguf = package("gguf", extra="gguf")
        _add_keys(writer, gguf, source)
        notes = add_vocabulary(writer, original_path(source, options), source.artifact.config["vocab_size"])
        sizes: dict[str, list[int]] = defaultdict(list)
        for name, kind, data in _tensors(source):
            writer.add_tensor(gguf_name(name), data, raw_dtype=gguf.GGMLQuantizationType[kind])
            sizes[kind].append(data.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        types = "; ".join(f"{kind}: {len(each)} tensors, {sum(each):,} bytes" for kind, each in sorted(sizes.items()))
        return [types, *notes]


def _add_keys(writer: Any, gguf: Any, source: Source) -> None:
    config = source.artifact.config
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(Path(str(source.model.get("path"))).name)
    writer.add_context_length(config.get("max_position_embeddings", 2048))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(_rope(config).get("rope_theta") or config.get("rope_theta") or _DEFAULT_THETA)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.GUESSED)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tensors(source: Source) -> Iterator[tuple[str, str, Any]]:
    """Name, GGUF type and data of every tensor, one at a time."""
    config = source.artifact.config
    for name, weight in source.weights():
        ordered = _rows_for_rope(name, weight, config)
        kind = block_type(weight.scheme)
        yield name, kind, _values(ordered.codes) if weight.scales is None else pack_blocks(ordered)
    for name, tensor in source.rest().items():
        row = row_order(name, config, len(tensor))
        value = tensor if row is None else tensor[row]
        kind = "F32" if tensor.ndim == 1 else {torch.float16: "F16", torch.bfloat16: "BF16"}.get(tensor.dtype, "F32")
        yield name, kind, _values(value.float() if kind == "F32" else value)


def _values(tensor: Tensor) -> Any:
    whole = tensor.contiguous()
    return whole.view(torch.uint8).numpy() if whole.dtype == torch.bfloat16 else whole.numpy()


def _rows_for_rope(name: str, weight: QuantizedWeight, config: dict[str, Any]) -> QuantizedWeight:
    row = row_order(name, config, weight.matrix[0])
    if row is None:
        return weight
    zero_points = None if weight.zero_points is None else weight.zero_points[row]
    return replace(weight, codes=weight.codes[row], scales=None if weight.scales is None else weight.scales[row], zero_points=zero_points)


def row_order(name: str, config: dict[str, Any], rows: int) -> Tensor | None:
    """The row order of a query or key weight in the GGUF file: in each head, the two halves are interleaved."""
    base = name.removesuffix(".weight").removesuffix(".bias")
    heads = config["num_attention_heads"]
    if base.endswith("k_proj"):
        heads = config.get("num_key_value_heads") or heads
    elif not base.endswith("q_proj"):
        return None
    return torch.arange(rows).view(heads, 2, rows // heads // 2).transpose(1, 2).reshape(-1)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found
