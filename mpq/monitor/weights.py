"""Compares the weights of a running model with the fingerprint of its artifact: bits that flipped in memory, or another file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mpq.data.checksums import digest
from mpq.errors import FormatError, MismatchError, UsageError
from mpq.models.layers.state_tensors import state_of
from mpq.records.artifact_files import read_header
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix
from mpq.tensors.packed import PackedTensor


def changed_layers(module: nn.Module, artifact: Path | str) -> list[str]:
    """Names of the layers whose weights are not those of the artifact; empty if all are.

    Args:
        module: what `mpq.load` gave, packed or not, in float32.
        artifact: the file that it should be of.

    Raises:
        FormatError: if the artifact has no fingerprint.
        MismatchError: if the module lacks one of its layers.
        UsageError: if a layer computes in another dtype, in which weights are rounded.
    """
    header, state = read_header(Path(artifact)), state_of(module)
    if not header.digests:
        raise FormatError(f"{artifact} has no fingerprint to compare with: run `mpq apply` again, without --shards or --no-fingerprint")
    missing = next((layer.name for layer in header.layers if layer.parameters[0] not in state), None)
    if missing is not None:
        raise MismatchError(f"the model has no layer '{missing}', which {artifact} has: give the artifact that it was loaded from")
    known = zip(header.layers, header.digests, strict=False)
    return [layer.name for layer, wanted in known if digest(_weights(state[layer.parameters[0]], layer), size=len(wanted)) != wanted]


def _weights(tensor: Tensor, layer: Layer) -> Tensor:
    if tensor.dtype != torch.float32:
        raise UsageError(f"'{layer.name}' computes in {tensor.dtype}, where weights are rounded: check a model in float32")
    plain = tensor.detach()
    return to_matrix(plain.dequantize() if isinstance(plain, PackedTensor) else plain, layer.axes, layer.groups)
