"""Equalization: channels of tensors between layers are scaled in the weights before anything is measured, if held-out samples agree.

A tensor that is rounded to integers has one range for all its channels, so channels of a small range keep few levels. Scaling them up in
what computes the tensor, and down in the weights behind it, changes nothing in floating point, since the factors are powers of two. It
costs levels of the weights behind, whose columns then differ more. A channel's factor is w^(1 - s) / a^s, with the largest magnitude a of
the channel on the calibration samples and w of the weights that read it (SmoothQuant; s = 0.5 is cross-layer equalization, with the range
of the channel in place of that of the weight that computes it). Depthwise weights have a scale for each channel: there s is 1.

Every tensor is tried alone, with its own rounding and that of the weights behind it; where that is too much work, all are tried together.
Those with a significant gain on calibration samples are kept if, with all tensors rounded, the error on the held-out samples is
significantly smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mpq.activations.calibrate import calibrate, traced
from mpq.activations.chains import Link, links
from mpq.activations.equalized import equalized, folded
from mpq.activations.errors import rounded_errors
from mpq.activations.ranges import least_squares
from mpq.activations.rounding import Change, changed, rounded, rounded_tokens
from mpq.config import AnalysisSettings
from mpq.data.batch import Batch
from mpq.data.dataset import Data, Split
from mpq.errors import MismatchError
from mpq.evidence.paired_test import compare
from mpq.formats.activations import CHOICES, STATIC
from mpq.formats.scheme import Scheme
from mpq.models.layers.state_tensors import state_of
from mpq.models.running.comparison import by_relative_error
from mpq.models.running.forward import call, forward
from mpq.models.running.metrics import Metric
from mpq.models.running.operations import operations
from mpq.models.running.reference import Reference
from mpq.records.equalization import Chain
from mpq.records.layer import Layer
from mpq.records.sensitivity import standard_error
from mpq.records.sensitivity_header import SensitivityHeader
from mpq.recovery.held_out import LEAST_SAMPLES, Verdict
from mpq.tensors.matrix import from_matrix, to_matrix
from mpq.tensors.quantizers.registry import quantizer_named

_STRENGTHS = (0.5, 0.75)
_FREE = (1.0,)
_REACH = 8  # largest exponent
_SAMPLES = 64
_FEWEST = 16
AFFORDABLE = 1e12  # floating-point operations of all trials
_TOLERANCE = 1e-4  # of the largest output
_NOTE = "equalization"  # the beginning of every line about it
_LATE = f"{_NOTE} was not tried: the layers of this analysis are measured without it; for a new analysis, write elsewhere with --output"


def equalization_of(
    module: nn.Module,
    split: Split,
    layers: Sequence[Layer],
    candidates: Mapping[str, Sequence[Scheme]],
    metric: Metric,
    schemes: Sequence[str],
) -> tuple[tuple[Chain, ...], str]:
    """The channels to scale, none if that does not help, and a line for people with the errors.

    Args:
        module: the model; unchanged.
        split: calibration samples, which choose, and held-out samples, which decide.
        layers: the searched layers.
        candidates: of each layer.
        metric: of errors.
        schemes: of activations, "a8" or "a8d".
    """
    if split.held_out.samples < LEAST_SAMPLES:
        return (), f"{_NOTE} was not tried: too few held-out samples to decide with"
    trial = _Trial(module, split.calibration, layers, candidates, static=STATIC in schemes)
    found, refused = trial.provable()
    if not found:
        return (), "; ".join([f"{_NOTE}: there is no tensor whose channels can be scaled", *refused])
    kept = trial.chosen(found, by_relative_error(metric))
    note = "".join(f"; {each}" for each in refused)
    if not kept:
        return (), f"{_NOTE} was left out: none of {len(found)} tensors gains by it on calibration samples{note}"
    better, figures = trial.decided(kept, split.held_out, metric)
    about = f"{len(kept)} tensor{'s' * (len(kept) != 1)}"
    return (tuple(kept), f"{_NOTE} kept for {about}: {figures}{note}") if better else ((), f"{_NOTE} not kept: {figures}{note}")


def settled_equalization(
    module: nn.Module,
    split: Split,
    layers: Sequence[Layer],
    candidates: Mapping[str, Sequence[Scheme]],
    metric: Metric,
    settings: AnalysisSettings,
    earlier: SensitivityHeader | None,
) -> tuple[tuple[Chain, ...], list[str]]:
    """The channels that an analysis scales, and what to tell of them: those of the analysis that it resumes, if there is one."""
    if earlier is not None:
        told = [note for note in earlier.notes if note.startswith(_NOTE)]
        wanted = settings.activations and settings.equalize and not told
        return earlier.equalization, [*told, *([_LATE] if wanted else [])]
    if not settings.activations or not settings.equalize:
        return (), []
    found, line = equalization_of(module, split, layers, candidates, metric, [CHOICES[each] for each in settings.activations])
    return found, [line]


class _Trial:
    """Errors of a model with some of its channels scaled, some tensors rounded and some weights quantized."""

    def __init__(
        self, module: nn.Module, data: Data, layers: Sequence[Layer], candidates: Mapping[str, Sequence[Scheme]], *, static: bool
    ) -> None:
        self._module, self._all, self._static = module, data, static
        self._layers = {layer.parameters[0]: layer for layer in layers}
        self._schemes = {name: _integers(found) for name, found in candidates.items()}
        self._quantizer = quantizer_named("rtn")
        self._few = data

    def provable(self) -> tuple[list[Link], list[str]]:
        """The tensors whose channels can be scaled, and lines about those where the model's outputs would change."""
        batches = self._all.batches
        seen = traced(self._module, batches, list(self._layers.values()), whole=bool(self._all.fixed_batch))
        lengths = {name: len(tensor) if tensor.dim() else 0 for name, tensor in state_of(self._module).items()}
        found, refused = list[Link](), list[str]()
        for link in links(seen, list(self._layers.values()), lengths):
            apart = self._apart(link, batches[0])
            if apart <= _TOLERANCE:
                found.append(link)
            else:
                refused.append(f"channels of {self.name(link)} are left alone: scaling them changes the outputs by {apart:.2g}")
        return found, refused

    def name(self, link: Link) -> str:
        """The first layer that reads a tensor."""
        return self._layers[link.divided[0]].name

    def _apart(self, link: Link, batch: Batch) -> float:
        """How far the outputs move, as a share of the largest, with arbitrary factors for the channels of one tensor."""
        generator = torch.Generator().manual_seed(0)
        exponents = torch.randint(-3, 4, (link.channels,), generator=generator).tolist()
        before = forward(self._module, batch)
        try:
            with equalized(self._module, [link.chain(exponents)]):
                after = forward(self._module, batch)
        except MismatchError:
            return float("inf")
        pairs = [(one.double(), two.double()) for one, two in zip(before, after, strict=True) if one.numel()]
        return max(float((one - two).abs().max() / one.abs().max().clamp(min=1e-30)) for one, two in pairs)

    def chosen(self, found: Sequence[Link], metric: Metric) -> list[Chain]:
        """The chains whose tensors, rounded alone, have a significantly smaller error on calibration samples."""
        one = self._all.batches[0]
        each = operations(self._module, one) / one.size
        affordable = int(AFFORDABLE / max(1.0, each * len(found) * (1 + len(_STRENGTHS))))
        count = min(self._all.samples, max(_FEWEST, min(_SAMPLES, affordable)))
        self._few = self._all if self._all.fixed_batch else self._all.first(count)
        reference, plain = Reference(self._module, self._few, metric), self._changes(())
        found = [link for link in found if set(link.readers) <= plain.keys()]
        largest = self._largest(found)
        tries = [self._chains(found, largest, number) for number in range(len(_STRENGTHS))]
        rounding = [self._changes(chains) for chains in tries]
        kept: list[Chain] = []
        for places in [[place] for place in range(len(found))] if affordable >= _FEWEST else [list(range(len(found)))]:
            readers = [reader for place in places for reader in found[place].touched]
            weights = [name for place in places for name in found[place].divided]
            before = self._errors(reference, (), plain, readers, weights)
            options = [[chains[place] for place in places] for chains in tries]
            errors = [self._errors(reference, *pair, readers, weights) for pair in zip(options, rounding, strict=True)]
            best = min(range(len(options)), key=lambda number: float(errors[number].mean()))
            if compare(errors[best].numpy(), before.numpy()).better:
                kept += [chain for chain in options[best] if any(chain.exponents)]
        return kept

    def decided(self, chains: Sequence[Chain], held_out: Data, metric: Metric) -> tuple[bool, str]:
        """Whether the held-out error with all tensors rounded is significantly smaller, and the errors for people.

        Where the metric shows no significant difference, the relative error of the outputs decides, as in recovery.
        """
        weights = [name for chain in chains for name in chain.divided]
        plain, scaled = self._changes(()), self._changes(chains)
        said: list[str] = []
        for judge in (metric, by_relative_error(metric)):
            reference = Reference(self._module, held_out, judge)
            before = self._errors(reference, (), plain, plain, weights).numpy()
            after = self._errors(reference, chains, scaled, plain, weights).numpy()
            compared = compare(after, before)
            means, spread = (float(before.mean()), float(after.mean())), (standard_error(before), standard_error(after))
            said.append(Verdict(judge.name, means, spread, compared).figures)
            if compared.better or compared.worse:
                break
        told = ", no significant difference; ".join(said)
        end = "" if compared.better else ", significantly worse" if compared.worse else ", no significant gain"
        return compared.better, f"{told} on {held_out.samples} held-out samples{end}"

    def _errors(
        self, reference: Reference, chains: Sequence[Chain], changes: Mapping[str, Change], readers: Iterable[str], weights: Iterable[str]
    ) -> Tensor:
        """The error of each sample with `chains` scaled, then the inputs of `readers` rounded and `weights` quantized."""
        values = folded(self._module, chains)
        state = state_of(self._module)
        values |= {name: self._quantized(name, values.get(name, state[name].detach())) for name in weights}
        return rounded_errors(reference, {reader: changes[reader] for reader in readers if reader in changes}, values)

    def _quantized(self, name: str, value: Tensor) -> Tensor:
        layer = self._layers[name]
        scheme = self._schemes[layer.name]
        if scheme is None:
            return value
        made = self._quantizer.quantize(to_matrix(value, layer.axes, layer.groups), scheme, None)
        return from_matrix(made.dequantize(), layer.shape, layer.axes, layer.groups).to(value)

    def _changes(self, chains: Sequence[Chain]) -> dict[str, Change]:
        """What rounding does to the input of every reader, with ranges of least squared error."""
        with equalized(self._module, chains):
            kept, _ = calibrate(self._module, self._few.batches, list(self._layers.values()), fixed_batch=bool(self._few.fixed_batch))
        found: dict[str, Change] = {}
        for each in kept:
            for readers, histogram in zip(each.candidate.tensors, each.histograms, strict=True):
                if self._static:
                    chosen = least_squares(histogram)
                    found |= dict.fromkeys(readers, partial(rounded, scale=chosen.scale, zero_point=chosen.zero_point))
                elif each.candidate.only_products:
                    found |= dict.fromkeys(readers, rounded_tokens)
        return found

    def _largest(self, found: Sequence[Link]) -> list[Tensor]:
        """The largest magnitude of each channel of each tensor on the calibration samples."""
        largest = [torch.zeros(link.channels) for link in found]

        def look(place: int, axis: int, values: Tensor) -> Tensor:
            seen = values.detach().float().abs().movedim(axis, 0).flatten(1).amax(1).cpu()
            largest[place] = torch.maximum(largest[place], seen)
            return values

        axes = [1 if link.readers[0].startswith("conv") else -1 for link in found]
        watch = {link.readers[0]: partial(look, place, axes[place]) for place, link in enumerate(found)}
        with changed(self._module, watch):
            for batch in self._few.batches:
                call(self._module, batch)
        return largest

    def _chains(self, found: Sequence[Link], largest: Sequence[Tensor], number: int) -> list[Chain]:
        state = state_of(self._module)
        chains: list[Chain] = []
        for link, most in zip(found, largest, strict=True):
            strength = _FREE[0] if link.free else _STRENGTHS[number]
            weights = torch.stack([_columns(state[name].detach().float().cpu(), link.channels) for name in link.divided]).amax(0)
            chains.append(link.chain(exponents_of(most, weights, strength)))
        return chains


def exponents_of(largest: Tensor, weights: Tensor, strength: float) -> list[int]:
    """The exponent of 2 that each channel is multiplied with; around 0, so that all weights stay in the range of fp16.

    Args:
        largest: magnitude of each channel; 0 where it never has another value, which is left alone.
        weights: magnitude of the weights that read each channel.
        strength: s of the formula at the head of this file.
    """
    alive = (largest > 0) & (weights > 0)
    if not bool(alive.any()):
        return [0] * len(largest)
    size, weight = torch.where(alive, largest, 1.0).log2(), torch.where(alive, weights, 1.0).log2()
    wanted = (1 - strength) * weight - strength * size
    wanted = wanted - float(wanted[alive].max() + wanted[alive].min()) / 2
    return [round(each) if live else 0 for each, live in zip(wanted.clamp(-_REACH, _REACH).tolist(), alive.tolist(), strict=True)]


def _columns(weight: Tensor, channels: int) -> Tensor:
    """The largest magnitude of the weights that read each input channel."""
    parts = weight.reshape(channels // weight.shape[1], -1, *weight.shape[1:]).abs()
    return parts.flatten(3).amax(-1).amax(1).flatten() if weight.dim() > 2 else parts.amax(1).flatten()


def _integers(schemes: Sequence[Scheme]) -> Scheme | None:
    """The integer scheme of a layer with most bits; None if it has none."""
    return max((scheme for scheme in schemes if scheme.is_integer), key=lambda scheme: scheme.bits, default=None)
