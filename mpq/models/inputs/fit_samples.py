"""Batches that a model accepts: which axis counts the samples, and the batch size."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpq.data.batch import Batch, is_integer, regroup
from mpq.errors import DataError
from mpq.models.inputs.check_values import check_values
from mpq.models.inputs.find_samples import Rows, arrangements, examine_lists, examine_rows, others_matter
from mpq.models.running.forward import forward
from mpq.models.running.kept_state import copied
from mpq.models.sources.loaded import LoadedModel

_LARGE_SAMPLE = 1_000_000  # elements
_SHAPES_TRIED = 4
_LEADING = re.compile(r"size\(\)\[0\]|shape\[0\]")  # torch.export's name for the leading dimension


@dataclass(frozen=True)
class Fit:
    """Batches that the model accepts, its fixed batch size, if any, and notes; when each sample was chosen (`Data.ranks`), of how many."""

    batches: tuple[Batch, ...]
    fixed_batch: int | None
    notes: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    there: int = 0


@dataclass(frozen=True)
class Reading:
    """What is known about the samples.

    Args:
        axis: the axis that counts them; "none" if none does; None if unknown.
        mask: the input that says which positions are data.
        known_rows: whether they are certainly rows, like windows of text.
        seeded: whether every call draws the same random numbers, so that a row gets different ones in a batch than alone.
    """

    axis: int | str | None
    mask: str | None
    known_rows: bool
    seeded: bool


def fit_samples(
    batches: Sequence[Batch], cast: Callable[[Batch], Batch], note: str, *, model: LoadedModel, how: Reading, batch_size: int | None
) -> Fit:
    """The batches, with samples along the axis that counts them, or whole batches as samples.

    Args:
        batches: as read.
        cast: converts a batch to the dtypes that are tried.
        note: a note on the cast.
        model: decides what it accepts.
        how: what is known about the samples.
        batch_size: the requested batch size.

    Raises:
        DataError: if the model accepts neither.
    """
    if any(batch.whole for batch in batches):
        return _fit_whole(batches, cast, note, model, "as asked" if how.axis == "none" else "as it was given")
    failure: DataError | None = None
    try:
        fit = _fit_size(batches, cast, note, model, batch_size)
        found = _examined(batches, fit, model, how)
        if not found.problem:
            return _as_found(fit, found)
        problem = found.problem
        if how.known_rows:
            return _fit_whole(fit.batches, lambda batch: batch, note, model, problem)
    except DataError as error:
        if is_graph(model) or how.axis is not None or how.known_rows:
            raise
        problem, failure = f"it cannot be cut into rows ({str(error).partition(': ')[2] or error})", error
    for arranged, told in arrangements(batches[0]):
        try:
            return _fit_arranged([arranged(batch) for batch in batches], told, cast, note, model, how, batch_size)
        except DataError:
            continue
    try:
        return _fit_whole(batches, cast, note, model, problem)
    except DataError as error:
        raise failure or error from error


def _examined(batches: Sequence[Batch], fit: Fit, model: LoadedModel, how: Reading) -> Rows:
    """Whether rows are samples, unless already known."""
    first = next((batch for batch in fit.batches if batch.size > 1), fit.batches[0])
    if first.whole or _is_refused_later(first, model):
        return Rows()
    if how.axis == 0 or how.seeded:  # known: only lists are looked for
        if fit.fixed_batch is not None:  # no row runs alone
            return Rows()
        return examine_lists(model.module, first, mask=how.mask)
    if fit.fixed_batch is None:
        found = examine_rows(model.module, first, mask=how.mask)
        return found if how.axis is None else replace(found, problem="")
    if is_graph(model) or how.axis is not None or fit.fixed_batch == 1:
        return Rows()
    leaves = zip(first.leaves, first.sampled, strict=True)
    indices = any(isinstance(leaf, Tensor) and is_integer(leaf) and not sampled for leaf, sampled in leaves)
    unlike = len({batch.size for batch in batches}) > 1
    if unlike or indices or others_matter(model.module, first):
        return Rows(f"it cannot be cut along axis 0 (the model does not accept fewer than {fit.fixed_batch} entries)")
    return Rows()


def _is_refused_later(batch: Batch, model: LoadedModel) -> bool:
    try:
        check_values([batch], model)
    except DataError:
        return True
    return False


def _fit_arranged(
    batches: Sequence[Batch],
    told: str,
    cast: Callable[[Batch], Batch],
    note: str,
    model: LoadedModel,
    how: Reading,
    batch_size: int | None,
) -> Fit:
    """Batches whose samples are not along the leading axis of every tensor.

    Raises:
        DataError: if these are not samples either.
    """
    fit = _fit_size(batches, cast, note, model, batch_size)
    if fit.fixed_batch is not None or fit.batches[0].size < 2:
        raise DataError("it cannot be cut")
    found = examine_rows(model.module, fit.batches[0], mask=how.mask)
    if found.problem:
        raise DataError(found.problem)
    return _as_found(replace(fit, notes=(*fit.notes, told)), found)


def _as_found(fit: Fit, found: Rows) -> Fit:
    if not found.output_axes and not found.listed:
        return fit
    batches = tuple(replace(batch, output_axes=found.output_axes, listed=found.listed) for batch in fit.batches)
    if not found.listed:
        return replace(fit, batches=batches)
    batches = regroup(batches, 1) if found.unlike else batches
    how = "its values differ in shape, so samples run one at a time" if found.unlike else "its tensors are stacked"
    return replace(fit, batches=batches, notes=(*fit.notes, f"the model returns a list with one value for each sample; {how}"))


def _fit_whole(batches: Sequence[Batch], cast: Callable[[Batch], Batch], note: str, model: LoadedModel, why: str) -> Fit:
    """Whole batches, each of them one sample.

    Raises:
        DataError: if the model does not accept one of the first few.
    """
    made = tuple(cast(batch) if batch.whole else cast(batch).as_whole() for batch in batches)
    for batch in made[:_SHAPES_TRIED]:
        forward(model.module, _own(batch))
    return Fit(made, None, (*([note] if note else []), f"one batch is one sample: {why}"))


def _fit_size(batches: Sequence[Batch], cast: Callable[[Batch], Batch], note: str, model: LoadedModel, batch_size: int | None) -> Fit:
    wanted = batch_size or (max(batch.size for batch in batches) if len(batches) > 1 else _quick_size(batches[0]))
    if not any(batches[0].sampled):
        raise DataError("no input has one row per sample")
    size, fixed = _accepted_size(regroup(batches, wanted)[0], cast, model, wanted)
    for batch in _one_of_each_shape(batches) if fixed is None else ():
        forward(model.module, _own(cast(batch)))
    grouped = regroup([cast(_with_int64_labels(batch)) for batch in batches], size)
    notes = [note] if note else []
    if fixed is not None:
        whole = tuple(batch for batch in grouped if batch.size == fixed)
        dropped = sum(batch.size for batch in grouped) - fixed * len(whole)
        notes.append(f"the model takes exactly {fixed} per batch" + (f", so the last {dropped} are dropped" if dropped else ""))
        grouped = whole
    return Fit(grouped, fixed, tuple(notes))


def _accepted_size(batch: Batch, cast: Callable[[Batch], Batch], model: LoadedModel, wanted: int) -> tuple[int, int | None]:
    """The batch size to use, and the same number again if the model accepts no other.

    A model that accepts one sample and also two accepts any number up to a limit. Programs exported without a dynamic batch accept only one
    number, most likely that of their example inputs.
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
        return (wanted if not is_graph(model) else _largest(most, accepts, wanted)), None
    example = _example_size(model)
    for size in dict.fromkeys((most, example or 1, 1, 2)):
        if accepts(size):
            return size, size
    if example is not None and example > batch.size and _LEADING.search(str(failures[1])):
        raise DataError(f"the model takes exactly {example} samples per batch, and there are {batch.size}: give at least {example}")
    raise failures.get(example or 1, failures[1])


def _own(batch: Batch) -> Batch:
    """A copy of the inputs, for a model that may modify them."""
    return replace(batch, args=copied(batch.args), kwargs=copied(batch.kwargs))


def _largest(most: int, accepts: Callable[[int], bool], wanted: int) -> int:
    """`wanted`, or the first half, quarter... of it that the model accepts."""
    size = most
    while size > 2 and not accepts(size):
        size //= 2
    return wanted if size == most else size


def is_graph(model: LoadedModel) -> bool:
    """Whether the module is a recorded program, which may have a largest batch; Python modules have none."""
    return model.kind in ("export", "torchscript") or isinstance(model.module, torch.fx.GraphModule)


def _with_int64_labels(batch: Batch) -> Batch:
    if batch.labels is None or not is_integer(batch.labels):
        return batch
    return replace(batch, labels=batch.labels.to(torch.int64))


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
    return example_batch(model).size


def example_batch(model: LoadedModel) -> Batch:
    """The example inputs of a program, as one batch."""
    args, kwargs = model.example_inputs or ((), {})
    return Batch(tuple(args), dict(kwargs))
