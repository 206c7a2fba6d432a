"""Bias correction: new biases and batch-norm statistics that compensate shifts from quantized weights, without extra bytes.

Both models run on the same batches. Where an op of the quantized one adds a bias of the model, the bias takes up the difference of
the outputs' means, channel by channel (bias correction: Nagel et al. 2019, arXiv 1906.04721). The running statistics of a batch norm
follow the map a x + b that takes mean and variance of its inputs in the reference to those in the quantized model (re-estimation, as in
Sun et al. 2019, but relative: the noise of a few calibration samples cancels, and what the full training set knew is kept). Each batch
continues with its own corrected values, so that later operations see the outputs of corrected earlier ones; the corrections are means over
samples.

The models are watched at the level of ATen ops, so modules, exported programs and TorchScript are alike. A tensor whose ops met inputs
of other shapes in the two models, as where tokens choose experts, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpq.activations.rounding import simulated
from mpq.calibration.input_moments import plain_kernels
from mpq.data.dataset import Data
from mpq.models.layers.dispatch_watch import named
from mpq.models.layers.state_tensors import state_of
from mpq.models.running.forward import forward
from mpq.models.running.swap import swapped
from mpq.records.activations import Groups
from mpq.recovery.base import Proposal, State, Step, Task

_BIASES = {"addmm": "self", "linear": "bias", "convolution": "bias"}  # op -> the argument that is added to each output channel
_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
_LEAST_VARIANCE = 1e-12
_LARGEST_RATIO = 16.0  # of variances: beyond it the statistics are kept, to avoid blow-up
_NOTHING = "no operation adds a bias or normalizes with running statistics"

Seen = dict[tuple[str, int], tuple[torch.Size, Tensor, Tensor]]
"""By tensor name and how often it was met before in the batch: the shape, means and variances of an op's output or input by channel."""


class BiasCorrection(Step):
    """Corrects biases and batch-norm statistics."""

    name = "bias_correction"
    title = "Bias correction"

    def hindrance(self, module: nn.Module, calibration: Data) -> str | None:
        """A reason, if there is nothing to correct."""
        return None if correctable(module, calibration) else _NOTHING

    def propose(self, task: Task, state: State) -> Proposal:
        """Corrected tensors."""
        found = corrections(task.module, task.values(state), task.calibration, task.activations)
        if not found:
            return Proposal(_NOTHING)
        about = f"for {len(found)} bias or batch-norm vector{'' if len(found) == 1 else 's'}"
        return Proposal(about, tensors=found, details={"tensors": len(found)})


def corrections(module: nn.Module, weights: Mapping[str, Tensor], data: Data, activations: Groups | None = None) -> dict[str, Tensor]:
    """New values of the biases and batch-norm statistics of `module` with `weights` in place, by their names in the state dict.

    Args:
        module: the unquantized model, in eval mode; unchanged afterwards.
        weights: quantized weights by canonical name.
        data: calibration samples.
        activations: tensors between layers that the quantized model rounds: what clipping and rounding shift is corrected, too.
    """
    watch = _Watch(module)
    with plain_kernels(module):
        for batch in data.batches:
            watch.begin(reference=True)
            with watch:
                forward(module, batch)
            if not watch.seen:
                return {}
            watch.begin(reference=False)
            with swapped(module, weights), watch, simulated(module, activations or {}):
                forward(module, batch)
            watch.end(batch.size)
    return watch.found()


def correctable(module: nn.Module, data: Data) -> bool:
    """Whether the model adds any bias, or normalizes by any statistics, that could be corrected; one batch is run."""
    watch = _Watch(module)
    watch.begin(reference=True)
    with plain_kernels(module), watch:
        forward(module, data.batches[0])
    return bool(watch.seen)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches one batch pass through the reference, then through the quantized model, which it corrects as it runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._state = state_of(module)
        self._names = {tensor.data_ptr(): name for name, tensor in reversed(self._state.items()) if tensor.dim() == 1 and tensor.numel()}
        self.seen: Seen = {}
        self._expected: Seen = {}
        self._values: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}
        self._refused: set[str] = set()
        self._samples = 0

    def begin(self, *, reference: bool) -> None:
        """Prepare for one pass."""
        self._expected = {} if reference else self.seen
        self.seen, self._values, self._reference = {}, {}, reference

    def end(self, samples: int) -> None:
        """Add the results of one batch of `samples`."""
        for name, values in self._values.items():
            mean = torch.stack(values).mean(0) * samples
            self._sums[name] = self._sums[name] + mean if name in self._sums else mean
        self._refused |= {name for name, _ in self.seen.keys() ^ self._expected.keys()}
        self._samples += samples

    def found(self) -> dict[str, Tensor]:
        """The corrected tensors, in their own dtype."""
        changed = {name: total / self._samples for name, total in self._sums.items() if name not in self._refused}
        return {name: value.to(self._state[name].dtype) for name, value in changed.items() if bool(value.isfinite().all())}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        operation, given = func._schema.name.split("::")[-1], kwargs or {}
        if operation in _NORMS:
            return self._norm(func, args, given)
        result = func(*args, **given)
        if operation not in _BIASES:
            return result
        bias = named(func, args, given).get(_BIASES[operation])
        name = self._name(bias)
        if bias is None or name is None:
            return result
        return self._shift(name, bias, result, channel=1 if operation == "convolution" else result.dim() - 1)

    def _name(self, tensor: Any) -> str | None:
        """The name of a tensor, if it is a whole vector of the model."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return None
        name = self._names.get(tensor.data_ptr())
        return name if name is not None and self._state[name].shape == tensor.shape else None

    def _shift(self, name: str, bias: Tensor, result: Tensor, *, channel: int) -> Tensor:
        found = self._look(name, result, channel)
        if found is None:
            return result
        missing = found[0] - found[1]
        self._values.setdefault(name, []).append(bias.float() + missing)
        shape = [1] * result.dim()
        shape[channel] = -1
        return result + missing.view(shape).to(result.dtype)

    def _norm(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = named(func, args, kwargs)
        mean, variance = arguments.get("running_mean"), arguments.get("running_var")
        names = self._name(mean), self._name(variance)
        if mean is None or variance is None or names[0] is None or names[1] is None or arguments.get("training"):
            return func(*args, **kwargs)
        found = self._look(names[0], arguments["input"], 1)
        if found is None:
            return func(*args, **kwargs)
        before, now, old, new = found
        ratio = new / old.clamp(min=_LEAST_VARIANCE)
        ratio = torch.where((ratio * _LARGEST_RATIO > 1) & (ratio < _LARGEST_RATIO), ratio, 1.0)
        moved = now + ratio.sqrt() * (mean.float() - before), variance.float() * ratio
        for name, value in zip(names, moved, strict=True):
            self._values.setdefault(str(name), []).append(value)
        swaps = {id(mean): moved[0].to(mean.dtype), id(variance): moved[1].to(variance.dtype)}
        return func(*(swaps.get(id(one), one) for one in args), **{key: swaps.get(id(one), one) for key, one in kwargs.items()})

    def _look(self, name: str, values: Tensor, channel: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Means before and now, variances before and now; None in the reference, or where there is nothing to compare with."""
        key = name, sum(1 for known, _ in self.seen if known == name)
        others = [dim for dim in range(values.dim()) if dim != channel]
        variance, mean = torch.var_mean(values.float(), others, correction=0)
        self.seen[key] = values.shape, mean, variance
        if self._reference:
            return None
        shape, before, old = self._expected.get(key, (None, mean, variance))
        if shape != values.shape:
            self._refused.add(name)
            return None
        return before, mean, old, variance
