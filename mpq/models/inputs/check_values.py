"""Checks of data that the model accepts but that would invalidate the measurements: NaN, token ids and labels out of range."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpq.data.batch import Batch, is_integer
from mpq.data.masks import IGNORED_LABEL, labels_are_next_tokens
from mpq.data.sparse import parts_of
from mpq.errors import DataError
from mpq.models.running.forward import forward, named
from mpq.models.running.output_kind import kind_of, out_of_range
from mpq.models.sources.loaded import LoadedModel


def check_values(batches: Sequence[Batch], model: LoadedModel) -> None:
    """Refuse NaN in any sample, and token ids beyond the vocabulary that the model's configuration names.

    Infinity is allowed: attention masks use it.

    Raises:
        DataError: naming the number of samples, or the token id.
    """
    total = sum(batch.size for batch in batches)
    if bad := sum(_samples_with_nan(batch) for batch in batches):
        raise DataError(f"{bad} of {total} sample{'s' if total > 1 else ''} hold{'s' if bad == 1 else ''} NaN: remove or repair them")
    vocabulary = (model.config or {}).get("vocab_size")
    for ids in (batch.kwargs.get("input_ids") for batch in batches):
        if isinstance(vocabulary, int) and isinstance(ids, Tensor) and is_integer(ids) and int(ids.max()) >= vocabulary:
            raise DataError(
                f"token id {int(ids.max())} is out of range: the model's vocabulary has {vocabulary} tokens, 0 to {vocabulary - 1}"
            )


def check_labels(batches: Sequence[Batch], model: LoadedModel) -> None:
    """Refuse integer labels that are not a class of a model whose output is logits, with one row per label.

    Raises:
        DataError: naming the label and the number of classes.
    """
    first, labels = batches[0], batches[0].answers
    if labels is None or not is_integer(labels):
        return
    outputs = named(forward(model.module, first))
    fitting = [output for name, output in outputs.items() if labels.shape == output.shape[:-1] and _has_classes(name, output, len(outputs))]
    if not fitting:
        return
    classes = fitting[0].shape[-1]
    for labels in (batch.known_labels for batch in batches if batch.known_labels is not None):
        if len(wrong := labels[out_of_range(labels, classes)]):
            raise DataError(
                f"label {int(wrong[0])} is out of range: the model gives {classes} classes, 0 to {classes - 1}; "
                f"if it stands for 'no label', replace it with {IGNORED_LABEL}"
            )


def labels_are_positions(batches: Sequence[Batch], model: LoadedModel) -> bool:
    """Whether labels [samples, positions] may belong to positions of an output; those of CTC, whose output has its own, do not."""
    first, labels = batches[0], batches[0].answers
    if labels is None or labels.ndim != 2 or labels_are_next_tokens(first):
        return True
    outputs = named(forward(model.module, first)).values()
    return any(labels.shape[1] in output.shape[1:] for output in outputs)


def _has_classes(name: str, output: Tensor, outputs: int) -> bool:
    return kind_of(name, output, None, alone=outputs == 1, named=name != "output").kind != "other"


def _samples_with_nan(batch: Batch) -> int:
    if batch.whole:
        leaves = [leaf for leaf in batch.leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        return int(any(bool(parts_of(leaf)[-1].isnan().any()) for leaf in leaves))
    bad = torch.zeros(batch.size, dtype=torch.bool)
    for leaf, sampled in zip(batch.leaves, batch.sampled, strict=True):
        if sampled and leaf.is_floating_point():
            rows = batch.rows(leaf)
            bad |= rows.isnan().flatten(1).any(dim=1) if rows.ndim > 1 else rows.isnan()
    return int(bad.sum())
