"""Which positions of a sample are data, and which are padding.

Padding is found in the model's inputs: a mask of the batch (`data/mask_forms.py` lists the possible forms), lengths of padded sequences
(`lengths`, `input_lengths` and similar), and labels of -100. Padding counts in no error, no metric and no statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpq.data.batch import Batch, is_integer
from mpq.data.mask_forms import Sides, are_lengths, is_certain, lengths_mask, precedence, said_by_content, said_by_name, sides_of
from mpq.errors import DataError

IGNORED_LABEL = -100  # torch's convention for "no label"

_LENGTHS = re.compile(r"(\w+_)?(len|lens|length|lengths)")
"""Names of inputs that hold one number per sample: how many of its positions are data."""


def with_masks(
    batches: Sequence[Batch], name: str | None = None, *, parameters: Sequence[str] = (), labelled: bool = True
) -> tuple[list[Batch], str]:
    """The batches with their masks, and a note on what was found; empty if all positions count.

    A batch with its own mask keeps it; a batch that is one sample has none unless it is named. Samples without any position that counts are
    dropped.

    Args:
        batches: the inputs of the model.
        name: the input that is the mask; "~NAME" if its true values are padding. None looks for one.
        parameters: names of the model's parameters, to identify positional inputs.
        labelled: whether labels belong to positions of the output; those of CTC do not.

    Raises:
        DataError: if `name` is not an input of the batches, or no position counts at all.
    """
    sources: dict[str, None] = {}
    found, dropped = [], 0
    known = _Known(_longest(batches, parameters), _meanings(batches, parameters))
    for batch in batches:
        masked, source = _masked(batch, name, parameters, known, labelled=labelled)
        sources |= dict.fromkeys(source)
        if masked.mask is not None and not bool(masked.mask.flatten(1).any(1).all()):
            kept = masked.mask.flatten(1).any(1).nonzero().squeeze(1)
            dropped += masked.size - len(kept)
            masked = masked.select(kept)
        found += [masked] if masked.size else []
    if not found:
        raise DataError(f"{', '.join(sources)} leaves no position to measure: give samples that are not all padding")
    counted, given = counted_positions(found)
    if not given:
        return found, ""
    share = counted / given
    note = f"{share:.0%} of the positions count, according to {' and '.join(map(known.told, sources))}; the others are padding"
    return found, note + (f"; {dropped} samples that are all padding are dropped" if dropped else "")


def counted_positions(batches: Sequence[Batch]) -> tuple[int, int]:
    """The number of positions that count, and of all positions, over all samples; zeros if no batch has a mask."""
    if all(batch.mask is None for batch in batches):
        return 0, 0
    sizes = [_positions(batch) if batch.mask is None else (int(batch.mask.sum()), batch.mask.numel()) for batch in batches]
    return sum(counted for counted, _ in sizes), sum(given for _, given in sizes)


def _positions(batch: Batch) -> tuple[int, int]:
    """The positions of a batch without a mask; all count."""
    masks = [mask for _, mask in _given_all(batch, (), _Known.of(batch))]
    several = (tensor for tensor in (batch.labels, *batch.tensors) if tensor is not None and tensor.ndim > 1 and len(tensor) == batch.size)
    shape = masks[0].shape if masks else next((tensor.shape[:2] for tensor in several), (batch.size, 1))
    return shape[0] * shape[1], shape[0] * shape[1]


def padding_masks(batch: Batch) -> list[Tensor]:
    """Masks of the inputs' positions that are not padding, bool [samples, positions]; several if encoder and decoder have their own.

    Tokens without a label are still data for the layers that read them.
    """
    found = [mask for _, mask in _given_all(batch, (), _Known.of(batch)) if bool(mask.any()) and not bool(mask.all())]
    labels = batch.known_labels
    own = batch.mask is not None and (labels is None or not bool((labels == IGNORED_LABEL).any()))
    found = found or ([batch.mask] if own and batch.mask is not None else [])
    return [mask.transpose(0, 1) for mask in found] if batch.axis == 1 else found  # in the order of the model's own tensors


@dataclass(frozen=True)
class _Known:
    """Facts from all batches: the maximum length by input, and whether true values of a mask mean data (None: the name decides)."""

    longest: Mapping[str, int]
    meanings: Mapping[str, bool | None]

    @classmethod
    def of(cls, batch: Batch) -> _Known:
        """The facts from a single batch, by the names of its inputs."""
        return cls({}, _meanings([batch], ()))

    def told(self, source: str) -> str:
        """The name of an input, with the interpretation of its values if it is uncertain."""
        if self.meanings.get(source, True) is not None or is_certain(source):
            return source
        return f"{source} (judged by its name; --mask ~{source} inverts it)"


def _masked(batch: Batch, name: str | None, parameters: Sequence[str], known: _Known, *, labelled: bool) -> tuple[Batch, list[str]]:
    """The batch with its mask, and the names of the mask's sources."""
    if batch.mask is not None and name is None:
        return batch, ["its own mask"]
    parts = dict(_given(batch, name, parameters, known))
    labels = batch.answers
    if labelled and labels is not None and labels.ndim > 1 and is_integer(labels) and bool((labels == IGNORED_LABEL).any()):
        parts["labels of -100"] = _labelled(batch)
    shapes = {mask.shape for mask in parts.values()}
    if len(shapes) > 1:  # a mask of encoder positions and labels of decoder positions: the labels belong to the output
        parts = {"labels of -100": parts["labels of -100"]}
    if not parts:
        return replace(batch, mask=None), []
    mask = torch.stack(list(parts.values())).all(0)
    return replace(batch, mask=None if bool(mask.all()) else mask), list(parts)


def _given(batch: Batch, name: str | None, parameters: Sequence[str], known: _Known) -> list[tuple[str, Tensor]]:
    if name is None:
        return _given_all(batch, parameters, known)[:1]
    inputs, asked = _inputs(batch, parameters), name.removeprefix("~")
    mask = inputs.get(asked)
    if asked in known.longest and mask is not None and (lengths := _of_lengths(batch, mask, inputs, known.longest[asked])) is not None:
        return [(name, lengths)]
    mask = None if mask is None else mask if batch.whole and mask.ndim > 1 and len(mask) == 1 else batch.rows(mask)
    sides = None if mask is None else sides_of("mask", mask, batch.size, ())
    if mask is None or sides is None:
        several = ", ".join(key for key, value in inputs.items() if value.ndim > 1)
        raise DataError(f"'{asked}' is not a mask of this data: name an input of shape [samples, positions] (here: {several or 'none'})")
    meaning = known.meanings.get(asked)
    data = not asked.endswith("key_padding_mask") if meaning is None else meaning
    return [(name, sides.true if data and name == asked else sides.false)]


def _given_all(batch: Batch, parameters: Sequence[str], known: _Known) -> list[tuple[str, Tensor]]:
    """Every mask among the inputs, true for data; the mask of the output's own positions comes first."""
    if batch.whole:
        return []
    found, inputs = [], _inputs(batch, parameters)
    for key in sorted(known.meanings, key=precedence):
        if key in inputs:
            mask, contents = batch.rows(inputs[key]), _contents(batch, inputs, key)
            sides, meaning = sides_of(key, mask, batch.size, contents), known.meanings[key]
            meaning = said_by_name(key, mask) if meaning is None else meaning
            found += [] if sides is None or meaning is None else [(key, sides.true if meaning else sides.false)]
    for key, most in known.longest.items():
        lengths = _of_lengths(batch, inputs[key], inputs, most) if key in inputs else None
        found += [] if lengths is None else [(key, lengths)]
    return found


def _meanings(batches: Sequence[Batch], parameters: Sequence[str]) -> dict[str, bool | None]:
    """The inputs that have the form of masks, and whether their true values mean data; None if only their names can tell."""
    found: dict[str, bool | None] = {}
    for batch in batches:
        inputs = {} if batch.whole else _inputs(batch, parameters)
        for name, value in inputs.items():
            if found.get(name) is None and (sides := _sides(batch, inputs, name, value)) is not None:
                found[name] = said_by_content(name, sides, _contents(batch, inputs, name))
    return found


def _sides(batch: Batch, inputs: Mapping[str, Tensor], name: str, value: Tensor) -> Sides | None:
    return sides_of(name, batch.rows(value), batch.size, _contents(batch, inputs, name)) if value.ndim > 1 else None


def _contents(batch: Batch, inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """The inputs other than `name`, samples first."""
    return [batch.rows(value) for key, value in inputs.items() if key != name and value.ndim]


def _inputs(batch: Batch, parameters: Sequence[str]) -> dict[str, Tensor]:
    """The input tensors of the model by name; positional ones by the names of its parameters."""
    given = dict(zip(parameters, batch.args, strict=False)) | batch.kwargs
    return {name: value for name, value in given.items() if isinstance(value, Tensor)}


def _longest(batches: Sequence[Batch], parameters: Sequence[str]) -> dict[str, int]:
    """The maximum length in each input with lengths of padded sequences, by its name."""
    found: dict[str, int] = {}
    for batch in batches:
        for name, value in _inputs(batch, parameters).items():
            if is_integer(value) and not batch.whole and value.shape == (batch.size,):
                found[name] = max(found.get(name, 0), int(value.max()))
    return {name: most for name, most in found.items() if _LENGTHS.fullmatch(name) or _end_data(batches, name, parameters)}


def _end_data(batches: Sequence[Batch], name: str, parameters: Sequence[str]) -> bool:
    """Whether an input has lengths: in another input, everything behind them is padding."""
    given = [(batch, inputs) for batch in batches if name in (inputs := _inputs(batch, parameters))]
    return any(are_lengths(inputs[name], batch.size, _contents(batch, inputs, name)) is not None for batch, inputs in given)


def _of_lengths(batch: Batch, lengths: Tensor, inputs: Mapping[str, Tensor], longest: int) -> Tensor | None:
    """The mask for given lengths of padded sequences; None if no input has that many positions.

    The positions are those of the first dimension of another input that is as long as the longest sequence, else of the first longer one.
    """
    if lengths.shape != (batch.size,):
        return None
    sizes = [size for tensor in inputs.values() if tensor is not lengths for size in batch.rows(tensor).shape[1:3]]
    positions = longest if longest in sizes else next((size for size in sizes if size > longest), None)
    return None if positions is None or int(lengths.min()) < 0 else lengths_mask(lengths, positions)


def _labelled(batch: Batch) -> Tensor:
    """The output positions with a label: the label is at the same position or, for causal models, at the next one."""
    assert batch.answers is not None
    kept = batch.answers != IGNORED_LABEL
    return torch.cat([kept[..., 1:], torch.zeros_like(kept[..., :1])], -1) if labels_are_next_tokens(batch) else kept


def labels_are_next_tokens(batch: Batch) -> bool:
    """Whether the labels repeat the token ids, so that the output at one position is compared with the label at the next."""
    tokens = batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    labels = batch.known_labels
    if labels is None or not isinstance(tokens, Tensor) or tokens.shape != labels.shape or labels.ndim != 2:
        return False
    kept = labels != IGNORED_LABEL
    return bool(kept.any()) and bool((labels == tokens)[kept].all())
