"""The error of a model whose tensors between layers are rounded, against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import torch
from torch import Tensor

from mpq.activations.rounding import Change, changed
from mpq.models.running.forward import forward
from mpq.models.running.reference import Reference


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
    with closing(reference.placed(weights or {})) as batches:
        for index, prepared in batches:
            with changed(reference.module, changes):
                outputs = forward(reference.module, reference.data.batches[index])
            reference.forwards += 1
            found.append(reference.errors_of(prepared, outputs))
    return torch.cat(found)
