"""Chooses which outputs are compared, and how, unless the user did; with the reason for each choice.

All outputs count, except those that other outputs are computed from (hidden states next to logits) and those without one row per sample.
Outputs that are left out are reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import ModelError, UsageError
from mpq.models.running.comparison import Comparison, Part, floor_of, spread
from mpq.models.running.forward import Outputs, forward, named
from mpq.models.running.metrics import CosineDistance, KLDivergence, RelativeMSE, has_direction, undirected
from mpq.models.running.output_kind import COMPLEX, OutputKind, kind_of
from mpq.models.running.output_positions import counts_positions, mask_place
from mpq.models.running.positions import finite, flat, mask_of_output
from mpq.models.running.sample_lists import WRAP, is_in_list
from mpq.shown import listed

INTERMEDIATE = ("loss", "hidden_states", "attentions", "cross_attentions", "last_hidden_state", "pooler_output", "router_logits")
"""Outputs that heads are computed from, or that are computed from heads; also with "encoder_" or "decoder_" in front."""
OVER_POSITIONS = ("start_logits", "end_logits")
_BY_NORM = (RelativeMSE.name, CosineDistance.name)
_SAMPLES = 256  # samples whose outputs give floors and spreads


class Chosen(NamedTuple):
    """A comparison, and notes on the decisions for people."""

    comparison: Comparison
    notes: tuple[str, ...]


def choose_comparison(module: nn.Module, batches: Sequence[Batch], *, metric: str = "auto", outputs: Sequence[str] = ()) -> Chosen:
    """The outputs of `module` to compare and the metric of each.

    Args:
        module: the unquantized model.
        batches: calibration samples; the first ones are run.
        metric: a metric's name; "auto" uses KL divergence if an output is logits or probabilities, else the relative error.
        outputs: names or globs of outputs, each optionally with a weight: "logits", "boxes=2". Empty chooses.

    Raises:
        UsageError: if a name of `outputs` matches nothing, or the metric is unknown.
        ModelError: if an output has no row per sample.
    """
    batch = batches[0]
    returned = forward(module, batch)
    found = named(returned)
    empty = _empty(module, batches, found)
    filled = {name: value for name, value in found.items() if name not in empty}
    repeated = {} if outputs else _repeated(filled, compared_by_default(filled))
    asked = _asked(found, outputs) if outputs else {name: 1.0 for name in compared_by_default(filled) if name not in repeated}
    weights = {name: weight for name, weight in asked.items() if name in filled}
    if not weights:
        advice = f"choose others with --outputs ({', '.join(filled)})" if filled else "wrap the model to return an earlier tensor"
        raise ModelError(f"{_emptiness(found, sorted(empty & set(asked or found)))}, so nothing can be compared: {advice}")
    _check_rows(found, weights, batch, asked=bool(outputs))
    several = len(weights) > 1
    kinds = {name: _kind(module, batch, returned, name, alone=not several) for name in weights}
    masks = {name: _mask_of(module, batches, name, found[name]) for name in weights}
    parts = [_part(name, kinds[name], metric, masks[name][0]) for name in weights]
    notes = [_reason(part, kinds[part.output], asked=metric != "auto") for part in parts] + _left_out(
        returned, {*weights, *repeated}, empty
    )
    notes += [note for _, note in masks.values() if note]
    notes += [f"output '{name}' is the same tensor as '{first}', so it counts once" for name, first in repeated.items()]
    if several or any(part.metric in _BY_NORM for part in parts):
        parts, more = _scaled(module, batches, parts, weights)
        notes += more
    return Chosen(Comparison(parts), tuple(notes))


def _kind(module: nn.Module, batch: Batch, returned: Outputs, name: str, *, alone: bool) -> OutputKind:
    """The kind of one output; what only looks like logits is not if its last dimension counts positions."""
    if name in returned.complex:
        return COMPLEX
    found = named(returned)
    kind = kind_of(name, found[name], batch.answers, alone=alone, named=found.keys() != {"output"})
    if kind.certain or not counts_positions(module, batch, name, found[name]):
        return kind
    return OutputKind("other", "the last dimension of the output becomes shorter with that of the inputs: positions, not classes")


def _asked(found: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, float]:
    """The weight of each requested output."""
    weights: dict[str, float] = {}
    for text in outputs:
        pattern, _, number = text.partition("=")
        names = [name for name in found if name == pattern or fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not names:
            raise UsageError(f"no output is named '{pattern}': the model returns {', '.join(found)}")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = -1.0
        if not 0 < weight < float("inf"):
            raise UsageError(f"the weight in '{text}' is not a positive number: write for example {pattern}=2")
        weights |= dict.fromkeys(names, weight)
    return weights


def compared_by_default(found: Mapping[str, Tensor]) -> list[str]:
    """The outputs that count by default: all except those that others are computed from."""
    rows = [name for name, tensor in found.items() if tensor.ndim] or list(found)
    heads = [name for name in rows if not _is_intermediate(name)]
    return heads or [name for name in rows if name == "last_hidden_state"] or rows


def _empty(module: nn.Module, batches: Sequence[Batch], found: Mapping[str, Tensor]) -> set[str]:
    """Outputs without values, such as [samples, 0]; one without rows, as where nothing is detected, only if it is so on other batches."""
    empty = {name for name, tensor in found.items() if not tensor.numel()}
    seen = batches[0].size
    for batch in batches[1:] if any(len(found[name]) != batches[0].size for name in empty) else ():
        if seen >= _SAMPLES:
            break
        others = named(forward(module, batch))
        empty = {name for name in empty if name not in others or not others[name].numel()}
        seen += batch.size
    return empty


def _repeated(found: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, str]:
    """Outputs that are one tensor in memory with an earlier output, each with the earlier one's name."""
    first: dict[object, str] = {}
    again: dict[str, str] = {}
    for name in names:
        one = found[name]
        place = (one.data_ptr(), one.dtype, one.shape, one.stride()) if one.numel() else name
        if first.setdefault(place, name) != name:
            again[name] = first[place]
    return again


def _is_intermediate(name: str) -> bool:
    return name.partition(".")[0].removeprefix("encoder_").removeprefix("decoder_") in INTERMEDIATE


def _check_rows(found: Mapping[str, Tensor], names: Iterable[str], batch: Batch, *, asked: bool) -> None:
    for name in names:
        shape = list(found[name].shape)
        if not shape or shape[0] != batch.size:
            if is_in_list(name, found, batch.size):
                raise ModelError(f"output '{name}' belongs to a list with one value for each of {batch.size} samples: {WRAP}")
            others = [other for other, tensor in found.items() if tensor.ndim and len(tensor) == batch.size]
            advice = f"choose others with --outputs ({', '.join(others)})" if others else "wrap the model to return an earlier tensor"
            raise ModelError(
                f"output '{name}' has shape {shape} for {batch.size} samples, so its rows are not samples; "
                f"{'it cannot be compared' if asked else 'if its shape depends on values, as with detections, it cannot be compared'}: "
                f"{advice}, or give a metric of your own"
            )


def _mask_of(module: nn.Module, batches: Sequence[Batch], name: str, output: Tensor) -> tuple[str | None, str]:
    """What masks apply to in this output, and a note if that is unusual."""
    masked = next((batch for batch in batches if batch.mask is not None), None)
    if masked is None:
        return "positions", ""
    if name in OVER_POSITIONS:
        return "classes", ""
    own = output if masked is batches[0] else named(forward(module, masked)).get(name)
    return ("positions", "") if own is None else mask_place(module, masked, name, own)


def _part(name: str, kind: OutputKind, metric: str, mask: str | None) -> Part:
    fitting = RelativeMSE.name if kind.kind == "other" else KLDivergence.name
    chosen = fitting if metric == "auto" else metric
    return Part(name, chosen, probabilities=kind.kind == "probabilities", mask=mask)


def _reason(part: Part, kind: OutputKind, *, asked: bool) -> str:
    of = "" if part.output == "output" else f" of output '{part.output}'"
    return f"metric {part.metric}{of}: {'as asked' if asked else kind.reason}"


def _left_out(found: Outputs, names: Collection[str], empty: Collection[str]) -> list[str]:
    others = [name for name in found.names if name not in names and name not in empty]
    notes = (
        [f"outputs not compared: {listed(others, 5)} (computed with the others, or no row per sample); --outputs chooses"] if others else []
    )
    if empty:
        notes.append(f"outputs not compared: {_emptiness(named(found), sorted(empty))}")
    if found.whole_numbers:
        notes.append(f"outputs not compared: {listed(found.whole_numbers, 5)} (whole numbers or booleans)")
    return notes


def _emptiness(found: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """Outputs without values, with their shapes."""
    return f"{listed([f'{name} {list(found[name].shape)}' for name in names], 5)} without values"


def _scaled(
    module: nn.Module, batches: Sequence[Batch], parts: Sequence[Part], weights: Mapping[str, float]
) -> tuple[list[Part], list[str]]:
    """The parts with their floors and weights, from the reference's outputs on the first samples, and notes on them."""
    seen: list[list[Tensor]] = []
    used: list[Batch] = []
    for batch in batches:
        if sum(one.size for one in used) >= _SAMPLES:
            break
        outputs = named(forward(module, batch))
        seen.append([outputs[part.output].detach() for part in parts])
        used.append(batch)
    if len(parts) > 1 and sum(one.size for one in used) < 2:
        raise ModelError(
            "several outputs are compared by their spread, and one sample has none: give more samples, or choose one by --outputs"
        )
    made: list[Part] = []
    notes: list[str] = []
    for place, part in enumerate(parts):
        own = [outputs[place] for outputs in seen]
        masks = [mask_of_output(batch.mask, one, part.mask) for batch, one in zip(used, own, strict=True)]
        if part.metric == RelativeMSE.name:
            part, note = _floored(part, own, masks)
            notes += note
        elif part.metric == CosineDistance.name:
            notes += _undirected(part, own, masks)
        if part.metric in _BY_NORM:
            notes += _infinite(part, own)
            if len(parts) == 1:
                _check_any(part, own)
        scale = spread(part.made(), own, masks) if len(parts) > 1 else 1.0
        made.append(replace(part, weight=weights[part.output] / scale if scale > 0 else 0.0))
    if len(parts) == 1:
        return [replace(part, weight=1.0) for part in made], notes
    return _shared(made, weights, notes)


def _shared(parts: Sequence[Part], weights: Mapping[str, float], notes: Sequence[str]) -> tuple[list[Part], list[str]]:
    """Several parts with their shares of the whole; those that are the same for all samples have none."""
    whole = sum(weights[part.output] for part in parts if part.weight)
    if not whole:
        raise ModelError("every output is the same for all samples, so no error can be measured: give other data, or --outputs")
    made = [replace(part, weight=_rounded(part.weight / whole)) for part in parts]
    told = [f"{part.output} {weights[part.output] / whole:.0%}, {part.metric} times {part.weight:.4g}" for part in made if part.weight]
    silent = [part.output for part in made if not part.weight]
    more = [f"each output's error is divided by the output's spread: {', '.join(told)}"]
    return made, [*notes, *more, *([f"{', '.join(silent)}: the same for all samples, so not compared"] if silent else [])]


def _check_any(part: Part, outputs: Sequence[Tensor]) -> None:
    if not any(bool(finite(output).any()) for output in outputs):
        how = "zero or infinite" if any(bool(output.any()) for output in outputs) else "zero"
        raise ModelError(f"output '{part.output}' is {how} for every sample, so no error can be measured: give other data")


def _floored(part: Part, outputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> tuple[Part, list[str]]:
    powers = torch.cat([finite(flat(output, mask)).double().square().sum(-1) for output, mask in zip(outputs, masks, strict=True)])
    floor = _rounded(floor_of(powers))
    below = int((powers < floor).sum())
    note = f"{below} of {len(powers)} samples have an output close to zero: relative errors divide by at least {floor:.3g} (squared norm)"
    return replace(part, floor=floor), [note] if below else []


def _undirected(part: Part, outputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[str]:
    """A note on samples that have no cosine."""
    kept = torch.cat([has_direction(flat(output, mask)) for output, mask in zip(outputs, masks, strict=True)])
    missing = int((~kept).sum())
    return [f"{undirected(part.output, missing, len(kept))}; they count as distance 0"] if missing else []


def _infinite(part: Part, outputs: Sequence[Tensor]) -> list[str]:
    """A note on infinite values, which are compared only by being so in both models."""
    count, total = sum(int(output.isinf().sum()) for output in outputs), sum(output.numel() for output in outputs)
    told = f"{100 * count / total:.3g}% of the values of output '{part.output}' are infinite and are left out of every error."
    return [f"{told} That is right for masks; if the model overflows instead, convert it to bf16 or fp32."] if count else []


def _rounded(value: float) -> float:
    """Six digits, so that the record does not depend on the last bit of a sum."""
    return float(f"{value:.6g}")
