"""A monitor of a model: sketches a share of its calls, and runs the reference on a smaller share."""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.calibration.observe import Observer, first_float, has_classes, mask_of, masks_in
from mpq.errors import UsageError
from mpq.evidence.drift import Alarm, alarms, kernel_alarms, shadow_alarms
from mpq.evidence.running_mean import RunningMean
from mpq.models.running.forward import inputs_of, main_output
from mpq.models.running.metrics import KLDivergence, Metric, Top1Disagreement
from mpq.models.running.output_kind import are_probabilities
from mpq.monitor.kernels import Kernels
from mpq.monitor.reservoir import Reservoir
from mpq.monitor.sessions import Session, as_module
from mpq.records.artifact import ArtifactHeader, is_artifact
from mpq.records.artifact_files import is_index, read_header
from mpq.records.baseline import Baseline, read_baseline
from mpq.records.monitor_log import TIME
from mpq.records.plan import Plan, read_plan
from mpq.records.sketch import Sketch

ROWS = 256
"""Calls whose rows are kept until the next `restart`."""
_NOT_COMPARED = (
    "calls are not compared with the reference: their first output is not [samples, classes] or [samples, positions, classes], or has "
    "another shape in the reference"
)
_CHANGES_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_TIMES = 2.0  # the held-out error of a plan
_MOST_KL = 1.0  # nats; a larger divergence of one call counts as this


class Monitor:
    """Watches a share of the calls of a model until it is closed; made by `monitor`.

    Args:
        module: the model, which gets one hook, and more during sampled calls.
        baseline: the sketches of its calibration data.
        observer: sketches a call.
        draw: decides which calls.
        sample: the share of calls that are sketched.
        shadow: the share of calls that are also run through `reference`.
        reference: the unquantized model.
        limits: of the means over the calls that the reference runs, by name.
        keep: number of sampled calls whose inputs are kept.
        header: of the model's artifact, which names the layers that should be packed; None if it is not known.
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
        keep: int,
        header: ArtifactHeader | None = None,
    ) -> None:
        self.baseline, self.limits = baseline, limits
        self._observer, self._reference, self._draw = observer, reference, draw
        self._sample, self._shadow = sample, shadow
        self._inner: list[Any] | None = None  # hooks of the call that is sampled or shadowed, on the model the last one
        self._ending: Any = None  # a hook of a call that failed
        self._thread, self._sampled, self._shadowed = 0, False, False
        self._told = False
        self._place: int | None = None  # of the sampled call's row
        self.calls = self.sampled = 0
        self.divergence, self.agreement = RunningMean(most=_MOST_KL), RunningMean()
        self.rows: Reservoir[dict[str, float | None]] = Reservoir(ROWS, draw)
        self.kept: Reservoir[Any] = Reservoir(keep, draw)  # as of `inputs_of`
        self.kernels = Kernels(module, header)
        # of nn.Module, because TorchScript refuses its own methods of these names, although it calls such hooks
        self._hooks: list[Any] = [nn.Module.register_forward_pre_hook(module, self._before, with_kwargs=True)]
        if isinstance(module, Session):
            module.attach()
            self._hooks.append(module)

    @property
    def sketches(self) -> dict[str, Sketch]:
        """The sketches since the last `restart`, by the name of the tensor."""
        return self._observer.sketches

    def restart(self) -> None:
        """Start new sketches, so that current drift is not hidden by earlier normal values."""
        self._observer.sketches = {}
        self.kernels.restart()
        self.rows.clear()
        self.kept.clear()

    def alarms(self) -> list[Alarm]:
        """Alarms since the last `restart`. The means are over all calls, and checking often raises no false alarms about them."""
        shadowed = shadow_alarms(self.divergence, self.agreement, **self.limits)
        return [*alarms(self.baseline, self.sketches), *shadowed, *kernel_alarms(self.kernels.fallbacks())]

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in (*self._hooks, *(self._inner or ()), *([] if self._ending is None else [self._ending])):
            hook.remove()
        self._hooks, self._inner, self._ending = [], None, None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.calls += 1
        if self._inner is not None:  # another thread is in a sampled call
            return
        sampled = self._draw.random() < self._sample
        shadowed = self._reference is not None and self._draw.random() < self._shadow
        if sampled or shadowed:
            self._begin(module, (args, kwargs), sampled=sampled, shadowed=shadowed)

    def _begin(self, module: nn.Module, inputs: Any, *, sampled: bool, shadowed: bool) -> None:
        """Attach all other hooks, for this call alone."""
        if self._ending is not None:
            self._ending.remove()
        self._thread, self._sampled, self._shadowed, self._ending = threading.get_ident(), sampled, shadowed, None
        hooks = list[Any]()
        if sampled:
            self._place = self.rows.next_place()
            hooks = [*self._observer.attach(inputs, row=self._place is not None), self.kernels.attach()]
        self._inner = [*hooks, nn.Module.register_forward_hook(module, self._after, with_kwargs=True, always_call=True)]

    def _after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if self._inner is None or threading.get_ident() != self._thread:
            return
        (*hooks, ending), self._inner = self._inner, None
        for hook in hooks:
            hook.remove()
        if result is None:  # the call failed, and torch still goes through the hooks of the module
            self._ending = ending
            return
        ending.remove()
        if self._sampled:
            self.sampled += 1
            self._observer.see((args, kwargs), result)
            self._keep(inputs_of(module, args, kwargs))
        if self._shadowed:
            self._compare(args, kwargs, result)

    def _keep(self, inputs: Any) -> None:
        if self._place is not None:
            self.rows.put(self._place, {TIME: time.time(), **self._observer.row})
        place = None if inputs is None else self.kept.next_place()
        if place is not None:
            self.kept.put(place, pytree.tree_map(_copy, inputs))

    def _compare(self, args: Any, kwargs: Any, result: Any) -> None:
        assert self._reference is not None
        with torch.no_grad():
            wanted, found = (_classes(each) for each in (self._reference(*args, **kwargs), result))
        if wanted is None or found is None or wanted.shape != found.shape:
            self._tell_once()
            return
        mask = mask_of(wanted, masks_in((args, kwargs)))
        if mask is not None and not bool(mask.any(1).all()):  # a sample that is all padding
            kept = mask.any(1)
            wanted, found, mask = wanted[kept], found[kept], mask[kept]
        divergence = KLDivergence(probabilities=are_probabilities(wanted.flatten(0, -2)))
        self.divergence.add(_mean(divergence, wanted, found, mask))
        self.agreement.add(1 - _mean(Top1Disagreement(), wanted, found, mask))

    def _tell_once(self) -> None:
        """Warn that calls are not compared: a divergence of 0 for an output without classes would say that all is well."""
        if not self._told:
            self._told = True
            warnings.warn(_NOT_COMPARED, UserWarning, stacklevel=2)


def monitor(
    model: Any,
    baseline: Baseline | Path | str,
    *,
    sample: float = 0.01,
    shadow: float = 0.0,
    reference: Any = None,
    layers: Iterable[str] | None = None,
    most_kl: float | None = None,
    least_agreement: float | None = None,
    plan: Plan | Path | str | None = None,
    keep: int = 0,
    seed: int = 0,
) -> Monitor:
    """Watch a share of the calls of a running model; the memory does not grow with the number of calls.

    Args:
        model: an `nn.Module`, to which one hook is added, or an `onnxruntime.InferenceSession`, whose layers are not seen.
        baseline: the sketches of its calibration data, or the artifact with the baseline in it or next to it.
        sample: the share of calls that are sketched.
        shadow: the share of calls that are also run through the reference.
        reference: the unquantized model, needed for `shadow`; it is called with the same inputs.
        layers: names of modules whose inputs are also sketched; None uses those of the baseline.
        most_kl: limit for the mean KL divergence from the reference.
        least_agreement: limit for the mean top-1 agreement with it.
        plan: the plan of the model, or its file: unless `most_kl` is given, twice its held-out KL divergence is the limit.
        keep: number of sampled calls whose inputs are kept in memory and written next to the log, for `mpq monitor recalibrate`. A call
            with unnamed and named inputs is only kept if `forward` names them all.
        seed: seed of the choice of calls.

    Raises:
        UsageError: if a share is not between 0 and 1, `shadow` has no reference, dropout or a batch norm is in training mode, the plan has
            no held-out KL divergence or was edited after it was measured, the model is neither a module nor a session, or the session is
            already watched.
        FormatError: if the baseline is missing or damaged.
    """
    _check_share("sample", sample)
    _check_share("shadow", shadow)
    if shadow and reference is None:
        raise UsageError(f"shadow={shadow:g} needs the unquantized model: give reference=")
    if keep < 0:
        raise UsageError(f"keep={keep} is not a number of calls: give 0 or more")
    if isinstance(reference, nn.Module):
        _check_mode("reference", reference)
    if plan is not None and most_kl is None:
        most_kl = _TIMES * _held_out(plan if isinstance(plan, Plan) else read_plan(Path(plan)))
    module = as_module(model)
    _check_mode("model", module)
    known = baseline if isinstance(baseline, Baseline) else read_baseline(Path(baseline))
    watched = [name.removesuffix(".input") for name in known.tensors if name.endswith(".input")] if layers is None else layers
    return Monitor(
        module,
        known,
        Observer(module, watched),
        random.Random(seed),
        sample=sample,
        shadow=shadow,
        reference=None if reference is None else as_module(reference),
        limits={"most_kl": most_kl, "least_agreement": least_agreement},
        keep=keep,
        header=None if isinstance(baseline, Baseline) else _header(Path(baseline)),
    )


def _header(artifact: Path) -> ArtifactHeader | None:
    """The header of an artifact; None for the file of a baseline alone."""
    return read_header(artifact) if is_artifact(artifact) or is_index(artifact) else None


def _held_out(plan: Plan) -> float:
    error, metric = plan.held_out_error, plan.evidence.get("metric")
    if error is None or metric != KLDivergence.name:
        raise UsageError(f"the plan has no held-out KL divergence (its metric is {metric}): give most_kl instead of plan")
    if not plan.evidence_is_current:
        raise UsageError(
            "the layers of the plan were edited after they were measured: run `mpq search` again, or give most_kl instead of plan"
        )
    return error


def _copy(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else leaf


def _classes(result: Any) -> Tensor | None:
    output = first_float(main_output(result)[1])
    return None if output is None or not has_classes(output) or not output.numel() else output.detach().float()


def _mean(metric: Metric, wanted: Tensor, found: Tensor, mask: Tensor | None) -> float:
    return float(metric.errors(metric.prepare([wanted], mask), [found]).mean())


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"{name}={share:g} is not a share of the calls: give a number from 0 to 1")


def _check_mode(name: str, module: nn.Module) -> None:
    """Refuse a model whose outputs are those of training."""
    found = [path for path, part in module.named_modules() if isinstance(part, _CHANGES_IN_TRAINING) and part.training]
    if found:
        raise UsageError(
            f"'{found[0] or type(module).__name__}' of the {name} is in training mode, where outputs differ: call {name}.eval()"
        )
