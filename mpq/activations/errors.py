"""The error of a model whose tensors between layers are rounded, against the reference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mpq.activations.rounding import Change, changed
from mpq.models.running.forward import forward
from mpq.models.running.reference import Reference
from mpq.models.running.swap import swapped


def rounded_errors(reference: Reference, changes: Mapping[str, Change], weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """The error of each sample of a reference, float64 [samples]; NaN where an output is not finite.

    Args:
        reference: of the unquantized model.
        changes: of the inputs of operators, by reader.
        weights: values by name that are in place meanwhile.
    """
    if not changes:
        return reference.errors(weights or {})
    found: list[Tensor] = []
    for index, batch in enumerate(reference.data.batches):
        with swapped(reference.module, weights or {}), changed(reference.module, changes):
            outputs = forward(reference.module, batch)
        reference.forwards += 1
        found.append(reference.compared(index, outputs))
    return torch.cat(found)
