"""Which positions of a sample are data, and which are padding.

Padding is found in what the model is given anyway: a mask of the batch (`attention_mask`: 1 is data; `key_padding_mask` and its kin of
`torch.nn`: True is padding), and labels of -100. Positions that are not data count in no figure: no error, no metric, no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.errors import DataError

IGNORED_LABEL = -100  # torch's convention for "no label here"
KEEPS = ("decoder_attention_mask", "attention_mask", "padding_mask", "mask")
"""Names of masks that are true where there is data; of several, the first that fits."""
DROPS = ("tgt_key_padding_mask", "key_padding_mask", "src_key_padding_mask")
"""Names of masks that are true where there is padding, as in `torch.nn`."""


def with_masks(batches: Sequence[Batch], name: str | None = None) -> tuple[list[Batch], str]:
    """The batches with their masks, and a note on what was found; empty if all positions count.

    A batch that brings a mask of its own keeps it. Samples without any position that counts are dropped.

    Args:
        batches: what the model is given.
        name: the input that is the mask; None looks for one.

    Raises:
        DataError: if `name` is not an input of the batches, or no position counts at all.
    """
    sources: dict[str, None] = {}
    found, dropped = [], 0
    for batch in batches:
        masked, source = _masked(batch, name)
        sources |= dict.fromkeys(source)
        if masked.mask is not None and not bool(masked.mask.flatten(1).any(1).all()):
            kept = masked.mask.flatten(1).any(1).nonzero().squeeze(1)
            dropped += masked.size - len(kept)
            masked = masked.select(kept)
        found += [masked] if masked.size else []
    if not found:
        raise DataError(f"{', '.join(sources)} leaves no position that counts: give samples that are not all padding")
    counted, given = counted_positions(found)
    if not given:
        return found, ""
    share = counted / given
    note = f"{share:.0%} of the positions count, by {' and '.join(sources)}; the others are padding"
    return found, note + (f"; {dropped} samples that are all padding are dropped" if dropped else "")


def counted_positions(batches: Sequence[Batch]) -> tuple[int, int]:
    """How many positions of all samples count, and how many there are; zeros where no batch has a mask."""
    if all(batch.mask is None for batch in batches):
        return 0, 0
    sizes = [_positions(batch) if batch.mask is None else (int(batch.mask.sum()), batch.mask.numel()) for batch in batches]
    return sum(counted for counted, _ in sizes), sum(given for _, given in sizes)


def _positions(batch: Batch) -> tuple[int, int]:
    """Of a batch without a mask, whose positions all count."""
    masks = [mask for _, mask in _given_all(batch)]
    several = (tensor for tensor in (batch.labels, *batch.tensors) if tensor is not None and tensor.ndim > 1 and len(tensor) == batch.size)
    shape = masks[0].shape if masks else next((tensor.shape[:2] for tensor in several), (batch.size, 1))
    return shape[0] * shape[1], shape[0] * shape[1]


def padding_masks(batch: Batch) -> list[Tensor]:
    """Which positions of the inputs are not padding, bool [samples, positions]; several where encoder and decoder have their own.

    Tokens that merely have no label are data for the layers that read them.
    """
    found = [mask for _, mask in _given_all(batch) if not bool(mask.all())]
    own = batch.mask is not None and (batch.labels is None or not bool((batch.labels == IGNORED_LABEL).any()))
    return found or ([batch.mask] if own and batch.mask is not None else [])


def _masked(batch: Batch, name: str | None) -> tuple[Batch, list[str]]:
    """The batch with its mask, and the names of what it was made from."""
    if batch.mask is not None and name is None:
        return batch, ["its own mask"]
    parts = dict(_given(batch, name))
    if batch.labels is not None and batch.labels.ndim > 1 and bool((batch.labels == IGNORED_LABEL).any()):
        parts["labels of -100"] = _labelled(batch)
    shapes = {mask.shape for mask in parts.values()}
    if len(shapes) > 1:  # a mask of the encoder's positions and labels of the decoder's: the labels belong to the output
        parts = {"labels of -100": parts["labels of -100"]}
    if not parts:
        return replace(batch, mask=None), []
    mask = torch.stack(list(parts.values())).all(0)
    return replace(batch, mask=None if bool(mask.all()) else mask), list(parts)


def _given(batch: Batch, name: str | None) -> list[tuple[str, Tensor]]:
    if name is not None:
        mask = batch.kwargs.get(name)
        if not isinstance(mask, Tensor) or mask.ndim < 2 or len(mask) != batch.size:
            known = ", ".join(key for key, value in batch.kwargs.items() if isinstance(value, Tensor) and value.ndim > 1)
            raise DataError(f"'{name}' is not a mask of this data: name an input of shape [samples, positions] (here: {known or 'none'})")
        return [(name, mask.logical_not() if name in DROPS else mask.bool())]
    return _given_all(batch)[:1]


def _given_all(batch: Batch) -> list[tuple[str, Tensor]]:
    """Every mask among the inputs, true where there is data."""
    found = []
    for key in (*KEEPS, *DROPS):
        mask = batch.kwargs.get(key)
        if isinstance(mask, Tensor) and mask.shape[:1] == (batch.size,) and mask.ndim == 2 and _is_binary(mask):
            found.append((key, mask.logical_not() if key in DROPS else mask.bool()))
    return found


def _is_binary(mask: Tensor) -> bool:
    return mask.dtype == torch.bool or bool(((mask == 0) | (mask == 1)).all())


def _labelled(batch: Batch) -> Tensor:
    """Where an output position has a label: the label stands at the position itself, or, in the manner of causal models, at the next."""
    assert batch.labels is not None
    kept = batch.labels != IGNORED_LABEL
    return torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], 1) if labels_are_next_tokens(batch) else kept


def labels_are_next_tokens(batch: Batch) -> bool:
    """Whether the labels repeat the token ids, so that the model's output at one position is judged by the label at the next."""
    tokens = batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    labels = batch.labels
    if labels is None or not isinstance(tokens, Tensor) or tokens.shape != labels.shape or labels.ndim != 2:
        return False
    kept = labels != IGNORED_LABEL
    return bool(kept.any()) and bool((labels == tokens)[kept].all())
