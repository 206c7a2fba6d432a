"""A monitor of a model: sketches a share of its calls, and runs the reference on a smaller share."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpq.errors import UsageError
from mpq.models.running.forward import main_output
from mpq.monitor.alarms import Alarm, alarms, shadow_alarms
from mpq.monitor.baseline import Baseline, read_baseline
from mpq.monitor.bounds import RunningMean
from mpq.monitor.observe import Observer

_MOST_KL = 1.0  # nats; a larger divergence of one call counts as this


class Monitor:
    """Watches a share of the calls of a model until it is closed; made by `monitor`.

    Args:
        module: the model, which gets two hooks.
        baseline: the sketches of its calibration data.
        observer: sketches a call.
        draw: decides which calls.
        sample: the share of calls that are sketched.
        shadow: the share of calls that are also run through `reference`.
        reference: the unquantized model.
        limits: of the means over the calls that the reference runs, by name.
    """

    def __init__(
        self,
        module: nn.Module,
        baseline: Baseline,
        observer: Observer,
        draw: random.Random,
        *,
        sample: float,
        shadow: float,
        reference: nn.Module | None,
        limits: dict[str, float | None],
    ) -> None:
        self.baseline, self.limits = baseline, limits
        self._observer, self._reference, self._draw = observer, reference, draw
        self._sample, self._shadow = sample, shadow
        self._inner: list[Any] | None = None
        self.calls = self.sampled = 0
        self.divergence, self.agreement = RunningMean(most=_MOST_KL), RunningMean()
        self._hooks = [  # of nn.Module, because TorchScript refuses its own methods of these names, although it calls such hooks
            nn.Module.register_forward_pre_hook(module, self._before, with_kwargs=True),
            nn.Module.register_forward_hook(module, self._after, with_kwargs=True, always_call=True),
        ]

    @property
    def sketches(self) -> dict[str, Any]:
        """The sketches since the last `restart`, by the name of the tensor."""
        return self._observer.sketches

    def restart(self) -> None:
        """Start new sketches, so that current drift is not hidden by earlier normal values."""
        self._observer.sketches = {}

    def alarms(self) -> list[Alarm]:
        """Alarms since the last `restart`. The means are over all calls, and checking often raises no false alarms about them."""
        return [*alarms(self.baseline, self.sketches), *shadow_alarms(self.divergence, self.agreement, **self.limits)]

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in (*self._hooks, *(self._inner or ())):
            hook.remove()
        self._hooks, self._inner = [], None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.calls += 1
        if self._inner is None and self._draw.random() < self._sample:  # another thread may be in a sampled call
            self._inner = self._observer.attach()

    def _after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        inner, self._inner = self._inner, None
        for hook in inner or ():
            hook.remove()
        if result is None:  # the call failed
            return
        if inner is not None:
            self.sampled += 1
            self._observer.see((args, kwargs), result)
        if self._reference is not None and self._draw.random() < self._shadow:
            self._compare(args, kwargs, result)

    def _compare(self, args: Any, kwargs: Any, result: Any) -> None:
        assert self._reference is not None
        with torch.no_grad():
            wanted, found = (_rows(each) for each in (self._reference(*args, **kwargs), result))
        if wanted is None or found is None or wanted.shape != found.shape:
            return
        first, second = wanted.log_softmax(-1), found.log_softmax(-1)
        self.divergence.add(float((first.exp() * (first - second)).sum(-1).mean()))
        self.agreement.add(float((wanted.argmax(-1) == found.argmax(-1)).float().mean()))


def monitor(
    module: nn.Module,
    baseline: Baseline | Path | str,
    *,
    sample: float = 0.01,
    shadow: float = 0.0,
    reference: nn.Module | None = None,
    layers: Iterable[str] | None = None,
    most_kl: float | None = None,
    least_agreement: float | None = None,
    seed: int = 0,
) -> Monitor:
    """Watch a share of the calls of a running model; the memory does not grow with the number of calls.

    Args:
        module: the model; only two hooks are added.
        baseline: the sketches of its calibration data, or the artifact with the baseline next to it.
        sample: the share of calls that are sketched.
        shadow: the share of calls that are also run through the reference.
        reference: the unquantized model, needed for `shadow`.
        layers: names of modules whose inputs are also sketched; None uses those of the baseline.
        most_kl: limit for the mean KL divergence from the reference, for example twice the plan's held-out error.
        least_agreement: limit for the mean top-1 agreement with it.
        seed: seed of the choice of calls.

    Raises:
        UsageError: if a share is not between 0 and 1, or `shadow` has no reference.
        FormatError: if the baseline is missing or damaged.
    """
    _check_share("sample", sample)
    _check_share("shadow", shadow)
    if shadow and reference is None:
        raise UsageError(f"shadow={shadow:g} needs the unquantized model: give reference=")
    known = baseline if isinstance(baseline, Baseline) else read_baseline(Path(baseline))
    watched = [name.removesuffix(".input") for name in known.tensors if name.endswith(".input")] if layers is None else layers
    return Monitor(
        module,
        known,
        Observer(module, watched),
        random.Random(seed),
        sample=sample,
        shadow=shadow,
        reference=reference,
        limits={"most_kl": most_kl, "least_agreement": least_agreement},
    )


def _rows(result: Any) -> Tensor | None:
    output = main_output(result)[1]
    return output.detach().float().reshape(-1, output.shape[-1]) if isinstance(output, Tensor) and output.ndim > 1 else None


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"{name}={share:g} is not a share of the calls: give a number from 0 to 1")
