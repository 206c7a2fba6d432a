"""Fits data to a model: finds out how to read it, in which dtype, and with which batch size, by trying one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mpq.config import data_settings
from mpq.data.batch import LABEL_KEYS, Batch, is_integer, regroup
from mpq.data.dataset import Data, make_data
from mpq.data.interpret import interpretations
from mpq.data.masks import with_masks
from mpq.data.split_rule import rule_for
from mpq.data.spread import samples_at, spread_ranks
from mpq.errors import DataError, UsageError
from mpq.models.inputs.check_values import check_labels, check_values, labels_are_positions
from mpq.models.inputs.fit_samples import Fit, Reading, example_batch, fit_samples, is_graph
from mpq.models.running.forward import accepted, described, forward
from mpq.models.running.habits import as_found, examine
from mpq.models.sources.loaded import LoadedModel


def fit_data(
    content: Any,
    *,
    model: LoadedModel,
    source: str,
    num_samples: int | None = None,
    batch_size: int | None = None,
    mask: str | None = None,
    batch_axis: int | str | None = None,
    seed_each_forward: bool = False,
    split: str | None = None,
    spread: bool = True,
    chosen: bool = False,
    ordered: bool = False,
    notes: Sequence[str] = (),
) -> Data:
    """Data that `model` accepts, from tensors in memory.

    Args:
        content: a tensor, tuple, dict or `Batch`, or an iterable of these such as a DataLoader.
        model: decides whether the last tensor of a tuple is an input or labels.
        source: the file or callable, for messages.
        num_samples: use only so many; None uses all.
        batch_size: None chooses one that is fast on a CPU, or keeps the batches of an iterable.
        mask: the input that says which positions are data; None looks for one.
        batch_axis: the axis of the inputs that counts samples; "none" makes each batch one sample; None finds it.
        seed_each_forward: whether every call of the model starts with the same random seed.
        split: "position" or "random"; None uses position for windows of token ids, else random (`data/split_rule.py`).
        spread: whether `num_samples` are spread evenly over all; else they are the first ones, as always of an iterable.
        chosen: the samples were spread over their source when they were read, and are in the order in which they were chosen.
        ordered: the samples are windows cut from running text.
        notes: notes for the description.

    Raises:
        DataError: if there is no sample, the model does not accept it, it has NaN, or a label or token id is out of range.
        UsageError: if a number is not positive, or `split` is unknown.
    """
    for value, option in ((num_samples, "num-samples"), (batch_size, "batch-size")):
        if value is not None and value < 1:
            raise UsageError(f"--{option} {value} is not a number of samples: give 1 or more")
    spread = spread and not _is_stream(content)
    try:
        how = Reading(axis_of(batch_axis), mask, known_rows=ordered, seeded=seed_each_forward)
        with as_found(model.module):
            fit = _fit(content, model, how, num_samples=num_samples, batch_size=batch_size, spread=spread)
            rule = rule_for(fit.batches, asked=split, text=ordered)  # neighbors that overlap are seen only before some are chosen
            fit = _some(fit, num_samples, spread=spread)
        check_values(fit.batches, model)
        check_labels(fit.batches, model)
        labelled = labels_are_positions(fit.batches, model)
        batches, note = with_masks(fit.batches, mask, parameters=list(accepted(model.module)), labelled=labelled)
        masked = [note] if note else []
        habits = examine(model.module, batches, lambda batch: forward(model.module, batch), seed=seed_each_forward)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    told = [*notes, *fit.notes, *masked, *habits]
    ranks = tuple(range(len(batches) if fit.fixed_batch else sum(batch.size for batch in batches))) if chosen else fit.ranks
    return make_data(
        batches, source=source, ordered=ordered, fixed_batch=fit.fixed_batch, rule=rule, ranks=ranks, there=fit.there, notes=told
    )


def refit_data(data: Data | Any, *, model: LoadedModel, facts: Mapping[str, Any]) -> Data:
    """Batches of an earlier analysis, read in the same way as then; `Data` is returned unchanged.

    Args:
        data: like in `fit_data`.
        model: the model of the analysis.
        facts: facts about the analysis's data, from its sensitivity file or a plan.

    Raises:
        DataError: like `fit_data`.
    """
    if isinstance(data, Data):
        return data
    was = data_settings(facts)
    return fit_data(data, model=model, source="memory", mask=was.mask, batch_axis=was.batch_axis, seed_each_forward=was.seed_each_forward)


def axis_of(text: int | str | None) -> int | str | None:
    """The axis that counts samples, from the user's text: a number, "none", or None if not given.

    Raises:
        UsageError: if it is anything else.
    """
    if text is None or text == "none":
        return text
    if isinstance(text, bool) or not str(text).isdecimal():
        raise UsageError(f"--batch-axis {text} is not an axis: give 0, 1 or 2, or none if each batch is one sample")
    return int(text)


def _fit(content: Any, model: LoadedModel, how: Reading, *, num_samples: int | None, batch_size: int | None, spread: bool) -> Fit:
    """The first interpretation of `content` that the model accepts; if there is none, raises the error of the likeliest one."""
    failure = ""
    for read in interpretations(content, limit=num_samples):
        batches = [_arranged(_named(batch, model), how) for batch in read if batch.size][: None if spread else num_samples]
        if not batches:
            raise DataError("it holds no samples: give at least one")
        strangers = _not_taken(batches[0], model)
        batches = [_without(batch, strangers) for batch in batches]
        for cast, note in _casts(model, batches[0]):
            note = "; ".join(
                filter(None, (note, f"left out, because the model does not take it: {', '.join(strangers)}" if strangers else ""))
            )
            try:
                return fit_samples(batches, cast, note, model=model, how=how, batch_size=batch_size)
            except DataError as error:
                failure = failure or f"{error}{_hint(batches[0], model)}"
    raise DataError(failure)


def _is_stream(content: Any) -> bool:
    """Whether samples come one after another, so that reading on to the last ones may take long."""
    return isinstance(content, Iterable) and not isinstance(content, (Tensor, Mapping, tuple, list, Batch))


def _arranged(batch: Batch, how: Reading) -> Batch:
    """The batch with its samples along the axis that the user gave."""
    if how.axis == "none":
        return batch.as_whole()
    return batch if how.axis is None or batch.whole else batch.along(int(how.axis))


def _named(batch: Batch, model: LoadedModel) -> Batch:
    """Token ids and labels of positions are passed by name if the model has such an argument: only names tell what they are."""
    names = [name for name, each in accepted(model.module).items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    given = dict(zip(names, batch.args, strict=False)) if len(names) >= len(batch.args) else {}
    if batch.args and not batch.kwargs and not is_graph(model) and any(key in given for key in LABEL_KEYS):
        named = replace(batch, args=(), kwargs=given, sampled=())
        return named if named.known_labels is not batch.labels else batch
    if batch.kwargs or len(batch.args) != 1 or not isinstance(batch.args[0], Tensor) or batch.args[0].ndim != 2:
        return batch
    if not is_integer(batch.args[0]) or "input_ids" not in accepted(model.module):
        return batch
    return replace(batch, args=(), kwargs={"input_ids": batch.args[0]}, sampled=())


def _not_taken(batch: Batch, model: LoadedModel) -> tuple[str, ...]:
    """Named inputs that the model's forward pass does not have, such as names of files in a dataset; none if it takes any name."""
    known = accepted(model.module)
    any_name = any(each.kind is each.VAR_KEYWORD for each in known.values())
    return tuple(name for name in batch.kwargs if name not in known) if known and not any_name and not is_graph(model) else ()


def _without(batch: Batch, names: Sequence[str]) -> Batch:
    kept = {name: value for name, value in batch.kwargs.items() if name not in names}
    return replace(batch, kwargs=kept, sampled=(), axes=()) if names and (kept or batch.args) else batch


def _casts(model: LoadedModel, batch: Batch) -> Iterator[tuple[Callable[[Batch], Batch], str]]:
    """The data unchanged; then with floats in the model's dtype; then with token ids as int64."""
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


def _some(fit: Fit, num_samples: int | None, *, spread: bool) -> Fit:
    """Only so many samples; they can be counted only now that it is known what a sample is."""
    unit, there = fit.fixed_batch or 1, sum(batch.size for batch in fit.batches)
    if num_samples is None or num_samples >= there:
        return fit
    if num_samples < unit:
        raise DataError(f"the model takes exactly {fit.fixed_batch} samples per batch: --num-samples {num_samples} is too few")
    most = num_samples // unit
    units, ranks = spread_ranks(there // unit, most) if spread else (list(range(most)), ())
    pieces = [fit.batches[place] for place in units] if fit.fixed_batch else samples_at(fit.batches, units)
    batches = regroup(pieces, fit.fixed_batch or max(batch.size for batch in fit.batches))
    return replace(fit, batches=batches, ranks=ranks, there=there if spread else 0)


def _hint(batch: Batch, model: LoadedModel) -> str:
    if any(tensor.dtype == torch.uint8 and tensor.ndim > 2 for tensor in batch.tensors):
        return "; images must be normalised as in training first, for example (x / 255 - mean) / std, and saved as floats"
    return "" if model.example_inputs is None else f"; its example inputs are {described(example_batch(model))}"


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_token_like(tensor: Tensor) -> bool:
    return is_integer(tensor) and tensor.ndim == 2


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
