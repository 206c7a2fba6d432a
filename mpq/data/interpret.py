"""How tensors in memory become batches: which are inputs, which are passed by name, and which are labels.

A file does not say whether the last of two tensors is an input or the labels, or whether a list contains the inputs of one batch or several
batches. So there may be several interpretations, the likeliest first; the model decides which one it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from mpq.data.batch import LABEL_KEYS, Batch, is_integer
from mpq.errors import DataError

POSITIONAL_KEYS = ("inputs", "input", "x", "images")


def interpretations(content: Any, *, limit: int | None = None) -> Iterator[list[Batch]]:
    """The ways to read `content` as a list of batches, the likeliest first; an iterable is read up to `limit` batches.

    Raises:
        DataError: if there is none.
    """
    failure: DataError | None = None
    found = False
    targets = _with_targets(content) if isinstance(content, tuple) else None
    for items in _as_items(content, limit):
        try:
            columns = [[*readings(item), *_last(None if item is content else _with_targets(item))] for item in items]
        except DataError as error:
            failure = failure or error
            continue
        for reading in range(min(map(len, columns), default=0)):
            found = True
            yield [column[reading] for column in columns]
    if targets is not None:
        yield [targets]
    if not found:
        raise failure or DataError("the data holds no samples: give at least one")


def readings(item: Any) -> Iterator[Batch]:
    """The ways to read one element as a batch, the likeliest first.

    Raises:
        DataError: if it is neither a tensor, a tuple, a mapping nor a `Batch`.
    """
    if isinstance(item, Batch):
        yield item
    elif isinstance(item, Tensor):
        yield Batch((item,))
    elif isinstance(item, Mapping) and item:
        yield from _readings_of_mapping({str(name): value for name, value in item.items()})
    elif isinstance(item, PackedSequence):
        yield Batch((item,), whole=True)
    elif isinstance(item, (tuple, list)) and item:
        yield from _readings_of_tuple(tuple(item))
        if isinstance(item, list):  # models of detection take a list of images, or of a dict for each image
            yield Batch((item,))
    else:
        raise DataError(f"{type(item).__name__} is not a batch: give a tensor, a tuple of tensors, or a dict of tensors")


def _readings_of_mapping(item: dict[str, Any]) -> Iterator[Batch]:
    label = next((name for name in LABEL_KEYS if isinstance(item.get(name), Tensor)), None)
    inputs = {name: value for name, value in item.items() if name != label}
    labels = None if label is None else item[label]
    if len(inputs) == 1:
        (name,) = inputs
        alone, named = Batch((inputs[name],), {}, labels), Batch((), inputs, labels)
        yield from (alone, named) if name in POSITIONAL_KEYS else (named, alone)
    elif inputs:
        yield Batch((), inputs, labels)
    if label is not None:
        yield Batch((), item)


def _readings_of_tuple(item: tuple[Any, ...]) -> Iterator[Batch]:
    *inputs, last = item
    whole = Batch(item)
    integers = isinstance(last, Tensor) and is_integer(last)
    labelled = Batch(tuple(inputs), {}, last) if inputs and integers and last.ndim and len(last) == whole.size else None
    if labelled is not None and last.ndim == 1:
        yield labelled
    yield whole
    if labelled is not None and last.ndim > 1:
        yield labelled


def _with_targets(item: Any) -> Batch | None:
    """A tuple whose last tensor is real numbers for each sample, such as the targets of a regression, as inputs with labels."""
    if not isinstance(item, (tuple, list)) or len(item) < 2 or not isinstance(item[0], Tensor):
        return None
    *inputs, last = item
    one_each = isinstance(last, Tensor) and last.is_floating_point() and last.ndim and item[0].ndim and len(last) == len(item[0])
    return Batch(tuple(inputs), {}, last) if one_each else None


def _last(batch: Batch | None) -> list[Batch]:
    return [] if batch is None else [batch]


def _as_items(content: Any, limit: int | None) -> Iterator[list[Any]]:
    if isinstance(content, (Tensor, Mapping, Batch, PackedSequence)):
        yield [content]
    elif isinstance(content, (tuple, list)):
        items = list(content)
        one_batch = isinstance(content, tuple) and items and isinstance(items[0], Tensor)
        if items:
            yield from ([content], items) if one_batch or _unlike_tensors(items) else (items, [content])
    elif isinstance(content, Iterable):
        yield list(islice(content, limit))
    else:
        raise DataError(f"data cannot be a {type(content).__name__}: give a tensor, a tuple, a dict, or a list of these")


def _unlike_tensors(items: list[Any]) -> bool:
    """Whether a list is probably the inputs of one batch, not several batches: equally many samples, but different dtypes or dimensions."""
    if not all(isinstance(item, Tensor) and item.ndim for item in items):
        return False
    return len({len(item) for item in items}) == 1 and len({(item.dtype, item.ndim) for item in items}) > 1
