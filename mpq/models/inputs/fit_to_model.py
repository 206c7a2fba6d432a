"""Fits data to a model: finds, by trying one sample, how to read it, in which dtype, and how many samples go at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch, regroup
from mpq.data.dataset import Data, make_data
from mpq.data.interpret import interpretations
from mpq.data.masks import with_masks
from mpq.errors import DataError, UsageError
from mpq.models.inputs.check_values import check_labels, check_values, is_integer
from mpq.models.running.forward import accepted, described, forward
from mpq.models.running.habits import as_found, examine
from mpq.models.running.kept_state import copied
from mpq.models.sources.loaded import LoadedModel

_LARGE_SAMPLE = 1_000_000  # elements
_SHAPES_TRIED = 4
_LEADING = re.compile(r"size\(\)\[0\]|shape\[0\]")  # how torch.export names the leading dimension


@dataclass(frozen=True)
class _Fit:
    """Batches that the model accepts, and how many samples it takes at once."""

    batches: tuple[Batch, ...]
    fixed_batch: int | None
    notes: tuple[str, ...]


def fit_data(
    content: Any,
    *,
    model: LoadedModel,
    source: str,
    num_samples: int | None = None,
    batch_size: int | None = None,
    mask: str | None = None,
    seed_each_forward: bool = False,
    ordered: bool = False,
    notes: Sequence[str] = (),
) -> Data:
    """Data that `model` accepts, from tensors in memory.

    Args:
        content: a tensor, tuple, dict or `Batch`, or an iterable of these such as a DataLoader.
        model: decides whether the last tensor of a tuple is an input or labels.
        source: the file or callable, for messages.
        num_samples: only the first ones; None takes all.
        batch_size: None chooses one that is quick on a CPU, or keeps the batches of an iterable.
        mask: the input that says which positions are data; None looks for one.
        seed_each_forward: whether every call of the model begins with the same random numbers.
        ordered: windows of running text.
        notes: for the description.

    Raises:
        DataError: if there is no sample, the model does not accept it, it holds NaN, or a label or token id is out of range.
        UsageError: if a number is not positive.
    """
    for value, option in ((num_samples, "num-samples"), (batch_size, "batch-size")):
        if value is not None and value < 1:
            raise UsageError(f"--{option} {value} is not a number of samples: give 1 or more")
    try:
        with as_found(model.module):
            fit = _fit(content, model, num_samples=num_samples, batch_size=batch_size)
        check_values(fit.batches, model)
        check_labels(fit.batches, model)
        batches, note = with_masks(fit.batches, mask)
        masked = [note] if note else []
        habits = examine(model.module, batches, lambda batch: forward(model.module, batch), seed=seed_each_forward)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    return make_data(batches, source=source, ordered=ordered, fixed_batch=fit.fixed_batch, notes=[*notes, *fit.notes, *masked, *habits])


def _fit(content: Any, model: LoadedModel, *, num_samples: int | None, batch_size: int | None) -> _Fit:
    """The first way of reading `content` that the model accepts; the error of the likeliest one if there is none."""
    failure = ""
    for read in interpretations(content, limit=num_samples):
        batches = _first([_named(batch, model) for batch in read if batch.size], num_samples)
        if not batches:
            raise DataError("it holds no samples: give at least one")
        size = batch_size or (max(batch.size for batch in batches) if len(batches) > 1 else _quick_size(batches[0]))
        for cast, note in _casts(model, batches[0]):
            try:
                return _fit_size(batches, cast, note, model, size)
            except DataError as error:
                failure = failure or f"{error}{_hint(batches[0], model)}"
    raise DataError(failure)


def _fit_size(batches: Sequence[Batch], cast: Callable[[Batch], Batch], note: str, model: LoadedModel, wanted: int) -> _Fit:
    size, fixed = _accepted_size(regroup(batches, wanted)[0], cast, model, wanted)
    for batch in _one_of_each_shape(batches) if fixed is None else ():
        forward(model.module, _own(cast(batch)))
    grouped = regroup([cast(_with_int64_labels(batch)) for batch in batches], size)
    notes = [note] if note else []
    if fixed is not None:
        whole = tuple(batch for batch in grouped if batch.size == fixed)
        dropped = sum(batch.size for batch in grouped) - fixed * len(whole)
        notes.append(f"the model takes exactly {fixed} at once" + (f", so the last {dropped} are dropped" if dropped else ""))
        grouped = whole
    return _Fit(grouped, fixed, tuple(notes))


def _accepted_size(batch: Batch, cast: Callable[[Batch], Batch], model: LoadedModel, wanted: int) -> tuple[int, int | None]:
    """How many samples to give at once, and the same number again if the model accepts no other.

    A model that accepts one sample as well as two accepts any number up to a limit; programs exported without a dynamic batch
    accept only one number, most likely that of their example inputs.
    """
    failures: dict[int, DataError] = {}

    def accepts(size: int) -> bool:
        if size > batch.size:
            return False
        try:
            forward(model.module, _own(cast(batch.narrow(0, size))))
        except DataError as error:
            failures[size] = error
            return False
        return True

    most = min(wanted, batch.size)
    if accepts(1) and (batch.size == 1 or accepts(2)):
        return (wanted if not _is_graph(model) else _largest(most, accepts, wanted)), None
    example = _example_size(model)
    for size in dict.fromkeys((most, example or 1, 1, 2)):
        if accepts(size):
            return size, size
    if example is not None and example > batch.size and _LEADING.search(str(failures[1])):
        raise DataError(f"the model takes exactly {example} samples at once, and there are {batch.size}: give at least {example}")
    raise failures.get(example or 1, failures[1])


def _own(batch: Batch) -> Batch:
    """A copy of the inputs, for a model that may write into them."""
    return replace(batch, args=copied(batch.args), kwargs=copied(batch.kwargs))


def _largest(most: int, accepts: Callable[[int], bool], wanted: int) -> int:
    """`wanted`, or the first half, quarter... of it that the model accepts."""
    size = most
    while size > 2 and not accepts(size):
        size //= 2
    return wanted if size == most else size


def _is_graph(model: LoadedModel) -> bool:
    """Whether the module is a recorded program, which may have a largest batch; modules of Python code have none."""
    return model.kind in ("export", "torchscript") or isinstance(model.module, torch.fx.GraphModule)


def _named(batch: Batch, model: LoadedModel) -> Batch:
    """Token ids go to "input_ids" by name where the model knows that name."""
    if batch.kwargs or len(batch.args) != 1 or not isinstance(batch.args[0], Tensor) or batch.args[0].ndim != 2:
        return batch
    if not is_integer(batch.args[0]) or "input_ids" not in accepted(model.module):
        return batch
    return replace(batch, args=(), kwargs={"input_ids": batch.args[0]}, sampled=())


def _casts(model: LoadedModel, batch: Batch) -> Iterator[tuple[Callable[[Batch], Batch], str]]:
    """The data as it is; then floats in the model's dtype; then token ids as int64."""
    yield (lambda batch: batch), ""
    own = next((tensor.dtype for tensor in model.module.state_dict().values() if _is_float(tensor)), None)
    floats = {tensor.dtype for tensor in batch.tensors if tensor.is_floating_point()} - {own}
    if own is not None and floats:
        names = ", ".join(sorted(_name(dtype) for dtype in floats))
        yield (lambda batch: _cast(batch, torch.is_floating_point, own)), f"converted from {names} to {_name(own)}"
    integers = {tensor.dtype for tensor in batch.tensors if _is_token_like(tensor)} - {torch.int64}
    if integers:
        names = ", ".join(sorted(_name(dtype) for dtype in integers))
        yield (lambda batch: _cast(batch, _is_token_like, torch.int64)), f"converted from {names} to int64"


def _cast(batch: Batch, chosen: Callable[[Tensor], bool], dtype: torch.dtype) -> Batch:
    args, kwargs = pytree.tree_map(
        lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and chosen(leaf) else leaf, (batch.args, batch.kwargs)
    )
    return replace(batch, args=args, kwargs=kwargs)


def _with_int64_labels(batch: Batch) -> Batch:
    if batch.labels is None or not is_integer(batch.labels):
        return batch
    return replace(batch, labels=batch.labels.to(torch.int64))


def _first(batches: list[Batch], num_samples: int | None) -> list[Batch]:
    kept: list[Batch] = []
    for batch in batches:
        room = batch.size if num_samples is None else min(batch.size, num_samples - sum(b.size for b in kept))
        if room > 0:
            kept.append(batch if room == batch.size else batch.narrow(0, room))
    return kept


def _one_of_each_shape(batches: Sequence[Batch]) -> list[Batch]:
    """One sample of each of the first few shapes."""
    found: dict[str, Batch] = {}
    for batch in batches:
        found.setdefault(batch.shapes, batch)
    return [batch.narrow(0, 1) for batch in list(found.values())[1:_SHAPES_TRIED]]  # the first was tried already


def _quick_size(batch: Batch) -> int:
    elements = sum(tensor.numel() for tensor in batch.tensors) // batch.size
    sequences = all(is_integer(tensor) and tensor.ndim == 2 for tensor in batch.tensors)
    return 8 if sequences or elements >= _LARGE_SAMPLE else 64


def _example_size(model: LoadedModel) -> int | None:
    if model.example_inputs is None:
        return None
    return _example_batch(model).size


def _example_batch(model: LoadedModel) -> Batch:
    args, kwargs = model.example_inputs or ((), {})
    return Batch(tuple(args), dict(kwargs))


def _hint(batch: Batch, model: LoadedModel) -> str:
    if any(tensor.dtype == torch.uint8 and tensor.ndim > 2 for tensor in batch.tensors):
        return "; images must be normalised as in training first, for example (x / 255 - mean) / std, and saved as floats"
    return "" if model.example_inputs is None else f"; its example inputs are {described(_example_batch(model))}"


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_token_like(tensor: Tensor) -> bool:
    return is_integer(tensor) and tensor.ndim == 2


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
