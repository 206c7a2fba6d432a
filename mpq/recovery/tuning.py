"""Tuning: what an artifact stores anyway follows the gradient of the error at the model's output, at no cost in bytes.

The quantized model is brought nearer to the unquantized one on the calibration samples, end to end (knowledge distillation: Hinton et
al. 2015, arXiv 1503.02531): the scales of its weights, as in EfficientQAT's last phase (Chen et al. 2024, arXiv 2407.11062), the vectors
that no scheme changes, biases and the weights of norms, as in norm tweaking (Li et al. 2023, arXiv 2309.02784), and the codes, by
straight-through gradients (see `tensors/tuned.py`). Adam makes a few passes with a rate that falls to zero. A part of the samples is
kept aside; of the states after each pass the one with the least error there is taken. Every error is that of rounded values.

The steps depend on the seed alone, unless a quarter of the time allowed is spent and the passes are behind it: from then on the rate
falls with the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpq.models.batches import Data
from mpq.models.gradients import error_gradients
from mpq.models.metrics import Metric
from mpq.models.reference import Reference
from mpq.models.state import aliases_of, state_of
from mpq.models.swap import tensor_of
from mpq.models.variants import as_parameters
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.tuned import TunedWeight

PASSES = 16
ASIDE = 0.125  # of the calibration samples
OUT_OF_TIME, HOPELESS = "out of time", "hopeless"
_PATIENCE = 0.25  # share of the passes after which the error on the samples kept aside must have been below the first
GRACE = 0.25  # share of the time allowed in which being behind is not yet held against the machine
_STEPS = 8  # of a pass, at least, where there are as many samples
_SCALE_RATE = 1e-3  # a step, as a share of each scale
_CODE_RATE = 0.005  # a step, in codes
_VECTOR_RATE = 1e-3  # a step, as a share of the vector's root mean square
_ZERO_VECTOR = 1e-2  # what stands for that of a vector of zeros
_MOST_CODES = 1 << 28  # weights whose codes are tuned; beyond, the optimizer's state takes too much memory

Progress = Callable[[int, int, str], None]
"""Called with (done, total, pass) after each step."""


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Args:
        weights: by layer name, those that changed; empty if no state was better than the first on the samples kept aside.
        vectors: by name in the state dict, the same.
        passes: over the samples; not whole if time ran short.
        samples: that gradients were taken on.
        codes: whether codes were tuned, too.
        ended: why before the last pass: `OUT_OF_TIME`, or `HOPELESS` where the error on the samples kept aside did not fall.
        hurried: whether the rate fell with the clock, and so the result depends on the machine's speed.
    """

    weights: Mapping[str, QuantizedWeight]
    vectors: Mapping[str, Tensor]
    passes: float
    samples: int
    codes: bool
    ended: str
    hurried: bool


def tune(
    module: nn.Module,
    layers: Iterable[Layer],
    weights: Mapping[str, QuantizedWeight],
    corrected: Mapping[str, Tensor],
    calibration: Data,
    metric: Metric,
    *,
    seed: int,
    seconds: float,
    on_progress: Progress | None = None,
) -> Tuned:
    """Tune `weights` and the vectors of `module`; the module is unchanged afterwards.

    Args:
        module: the unquantized model.
        layers: the quantized layers.
        weights: by layer name.
        corrected: other values to begin with for vectors and buffers, by name in the state dict.
        calibration: samples to tune on and to choose a state by.
        metric: what an error is.
        seed: of the order of samples.
        seconds: time allowed.
        on_progress: told after each step.

    Raises:
        DataError: if there is only one sample.
        ModelError: if no gradient flows.
    """
    clock = _Clock(seconds)
    used, aside = calibration.split(ASIDE, seed)
    if not used.fixed_batch:
        used = used.rebatch(min(max(batch.size for batch in used.batches), -(-used.samples // _STEPS)))
    state = _State(module, layers, weights, corrected)
    reference, watched = Reference(module, used, metric), Reference(module, aside, metric)
    best, least, ended = None, float(watched.errors(state.values()).mean()), ""
    count, done, generator = len(used.batches), 0, torch.Generator().manual_seed(seed)
    total = PASSES * count
    for number in range(1, PASSES + 1):
        for index in torch.randperm(count, generator=generator).tolist():
            if clock.spent >= 1:
                ended = OUT_OF_TIME
                break
            error, gradients = error_gradients(reference, index, state.values(), state.wanted)
            if math.isfinite(error):
                state.step(gradients, _rate(clock.progress(done, total)))
            done += 1
            if on_progress is not None:
                on_progress(done, clock.expected(done, total), f"pass {number} of {PASSES}")
        if done > (number - 1) * count and (error := float(watched.errors(state.values()).mean())) < least:
            best, least = state.snapshot(), error
        if best is None and number >= PASSES * _PATIENCE:
            ended = ended or HOPELESS
        if ended:
            break
    return Tuned(*(best or ({}, {})), done / count, used.samples, state.codes, ended, clock.short)


class _Clock:
    """How much of the time allowed is spent, and whether it turned out to be short."""

    def __init__(self, seconds: float) -> None:
        self._began, self._seconds = time.monotonic(), seconds
        self.short = False

    @property
    def spent(self) -> float:
        """As a share."""
        return (time.monotonic() - self._began) / self._seconds

    def progress(self, done: int, total: int) -> float:
        """How far the schedule is: by the steps alone, until these are behind the clock."""
        spent = self.spent
        self.short = self.short or spent > max(GRACE, done / total)
        return max(done / total, spent) if self.short else done / total

    def expected(self, done: int, total: int) -> int:
        """The number of steps in all for which there is time, of `total`, after `done`."""
        return max(done, min(total, int(done / max(self.spent, 1e-9))))


def _rate(share: float) -> float:
    """A factor that falls from one to zero along a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return (1 + math.cos(math.pi * min(1.0, share))) / 2


class _State:
    """All that is tuned, with its optimizer."""

    def __init__(
        self, module: nn.Module, layers: Iterable[Layer], weights: Mapping[str, QuantizedWeight], corrected: Mapping[str, Tensor]
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._fixed = dict(corrected)
        scaled = {name: weight for name, weight in weights.items() if weight.scales is not None and weight.scales.dtype == torch.float16}
        self._fixed |= as_parameters({name: weight for name, weight in weights.items() if name not in scaled}, self._layers.values())
        self.codes = sum(weight.codes.numel() for weight in scaled.values()) <= _MOST_CODES
        self._weights = {name: TunedWeight(weight, self._original(module, name)) for name, weight in scaled.items()}
        self._first = {name: corrected.get(name, value).detach() for name, value in vectors_of(module, self._layers.values()).items()}
        self._vectors = {name: value.float().clone() for name, value in self._first.items()}
        self._now = dict(scaled)
        self.wanted = [*(self._parameter(name) for name in scaled), *self._vectors]
        groups = [{"params": [weight.change], "lr": _SCALE_RATE} for weight in self._weights.values()]
        groups += [{"params": [w.positions], "lr": _CODE_RATE} for w in self._weights.values() if w.positions is not None]
        groups += [{"params": [value], "lr": _VECTOR_RATE * _size(value)} for value in self._vectors.values()]
        self._rates = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12) if groups else None

    def values(self) -> dict[str, Tensor]:
        """All values that differ from the unquantized model's, by name in the state dict."""
        return self._fixed | as_parameters(self._now, self._layers.values()) | self._rounded()

    def snapshot(self) -> tuple[dict[str, QuantizedWeight], dict[str, Tensor]]:
        """Weights and vectors as they would be stored now."""
        return dict(self._now), self._rounded()

    def step(self, gradients: Mapping[str, Tensor], share: float) -> None:
        """One step of Adam at this share of its rates."""
        for name, weight in self._weights.items():
            gradient = gradients.get(self._parameter(name))
            if gradient is not None:
                weight.take(to_matrix(gradient, self._layers[name].axes), self._now[name])
        for name, value in self._vectors.items():
            gradient = gradients.get(name)
            value.grad = None if gradient is None else gradient.float()
        if self._adam is None:
            return
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._adam.step()
        self._adam.zero_grad()
        self._now = {name: weight.quantized() for name, weight in self._weights.items()}

    def _rounded(self) -> dict[str, Tensor]:
        return {name: value.to(self._first[name].dtype) for name, value in self._vectors.items()}

    def _parameter(self, layer: str) -> str:
        return self._layers[layer].parameters[0]

    def _original(self, module: nn.Module, layer: str) -> Tensor | None:
        return to_matrix(tensor_of(module, self._parameter(layer)).detach(), self._layers[layer].axes) if self.codes else None


def vectors_of(module: nn.Module, layers: Iterable[Layer]) -> dict[str, Tensor]:
    """The floating-point parameters of at most one dimension that no scheme changes, by canonical name."""
    state = state_of(module)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    left_out = {name for layer in layers for name in layer.parameters} | set(aliases_of(state))
    return {
        name: tensor
        for name, tensor in state.items()
        if name in parameters and name not in left_out and tensor.dim() < 2 and tensor.is_floating_point() and tensor.numel()
    }


def _size(vector: Tensor) -> float:
    return float(vector.square().mean().sqrt()) or _ZERO_VECTOR
