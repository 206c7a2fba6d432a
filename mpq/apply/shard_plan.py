"""An artifact in several files: the exact contents of each, before anything is written; and reading them like one file.

Each file is an artifact with its own layers. The index next to them maps every tensor to its file, like that of a Hugging Face checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpq.errors import ApplyError
from mpq.models.layers.discover import DTYPES as FLOATS
from mpq.models.sources.checkpoint_files import StoredTensor, tensors_of
from mpq.models.sources.huggingface import described_checkpoint
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_file import INDEX_VERSION
from mpq.records.artifact_layout import entry, in_file_order, layer_entries
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.tensors.dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES
from mpq.tensors.narrow import narrow_dtype


@dataclass(frozen=True)
class Shard:
    """One file of the checkpoint and one of the artifact.

    Args:
        source: the file to read.
        output: the file to write.
        tensors: the tensors of the source.
        layers: the quantized layers, by tensor name.
        header: the header of the output.
        first: the first bytes of the output.
        places: the offset of each tensor in the output.
        bytes: the size of the output.
    """

    source: Path
    output: Path
    tensors: tuple[StoredTensor, ...]
    layers: Mapping[str, Layer]
    header: ArtifactHeader
    first: bytes
    places: Mapping[str, int]
    bytes: int

    def is_there(self) -> bool:
        """Whether the output already exists, from the same plan and model."""
        if not self.output.exists() or self.output.stat().st_size != self.bytes:
            return False
        with self.output.open("rb") as file:
            return file.read(len(self.first)) == self.first


def planned_shards(source: Path, files: Sequence[Path], plan: Plan, folder: Path) -> list[Shard]:
    """The files of the artifact of `plan`, each with its final size.

    Raises:
        ApplyError: if the plan names layers that the checkpoint does not have, or that are not weights.
        MismatchError: if a weight has another shape.
    """
    if plan.equalization:
        raise ApplyError("the plan has equalized channels: leave out --shards, or analyze again with --no-equalize")
    if plan.activations:
        raise ApplyError("the plan has integer activations: leave out --shards, or delete `activations:` from the plan")
    held = {path: tensors_of(path) for path in files}
    by_name = {tensor.name: tensor for tensors in held.values() for tensor in tensors}
    layers = {layer.parameters[0]: layer for layer in (_layer(name, plan, by_name, source) for name in plan.layers)}
    config = (
        described_checkpoint(source, {t.name: TORCH_DTYPES[t.dtype] for t in by_name.values()}) if plan.model.get("kind") == "hf" else {}
    )
    whole = ArtifactHeader(plan.model, plan.quantizer, tuple(layers.values()), plan.layers, {}, config, rest_dtype=plan.rest.dtype)
    return [
        _shard(path, folder / f"model-{number:05}-of-{len(files):05}.mpq.safetensors", held[path], layers, whole)
        for number, path in enumerate(files, start=1)
    ]


def index_of(shards: Sequence[Shard]) -> dict[str, Any]:
    """The index: the file of every tensor."""
    names = {name: shard.output.name for shard in shards for name in shard.places}
    total = sum(shard.bytes for shard in shards)
    return {"metadata": {"mpq_index": INDEX_VERSION, "total_size": total}, "weight_map": dict(sorted(names.items()))}


def stored_dtype(tensor: StoredTensor, wanted: str | None) -> str:
    """The dtype in which an unquantized tensor is stored, by its safetensors name: `wanted` if that is smaller, else its own."""
    return SAFETENSORS_DTYPES[narrow_dtype(TORCH_DTYPES[tensor.dtype], wanted)]


def _shard(path: Path, output: Path, tensors: list[StoredTensor], layers: Mapping[str, Layer], whole: ArtifactHeader) -> Shard:
    own = {tensor.name: layers[tensor.name] for tensor in tensors if tensor.name in layers}
    schemes = {layer.name: whole.schemes[layer.name] for layer in own.values()}
    before = 0 if whole.rest_dtype is None else sum(tensor.bytes for tensor in tensors if tensor.name not in own)
    facts = replace(whole, layers=tuple(own.values()), schemes=schemes, rest_bytes=before)
    kept = [tensor for tensor in tensors if tensor.name not in own]
    entries = [entry(tensor.name, stored_dtype(tensor, whole.rest_dtype), tensor.shape) for tensor in kept]
    for layer in own.values():
        entries += layer_entries(layer.name, layer.matrix, schemes[layer.name])
    first = facts.first_bytes(entries)
    places, end = dict[str, int](), len(first)
    for item in in_file_order(entries):
        places[item.name] = end
        end += item.stored.bytes
    return Shard(path, output, tuple(tensors), own, facts, first, places, end)


def _layer(name: str, plan: Plan, tensors: Mapping[str, StoredTensor], source: Path) -> Layer:
    tensor = tensors.get(f"{name}.weight") or tensors.get(name)
    if tensor is None:
        raise ApplyError(f"the plan names '{name}', which no file of {source} contains under this name: apply with the model in memory")
    dtype = FLOATS.get(TORCH_DTYPES[tensor.dtype])
    if dtype is None:
        raise ApplyError(f"'{name}' is stored as {tensor.dtype}, not a floating-point weight: remove it from the plan")
    return plan.layer(name, (tensor.name,), tensor.shape, dtype, source=str(source))
