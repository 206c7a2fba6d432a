"""The inputs, the progress and the result of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from mpq.data.dataset import Data
from mpq.models.running.metrics import Metric
from mpq.records.activations import Groups
from mpq.records.layer import Layer
from mpq.recovery.base import State
from mpq.recovery.training.settings import TrainSettings


@dataclass(frozen=True)
class Job:
    """What is trained, on what.

    Args:
        module: the unquantized model; unchanged afterwards.
        layers: the quantized layers.
        state: to begin with.
        data: to train on.
        metric: measures the error.
        settings: the rest.
        note: what was done before, for the first line.
        activations: tensors between layers that are rounded, whose ranges move, too.
    """

    module: nn.Module
    layers: list[Layer]
    state: State
    data: Data
    metric: Metric
    settings: TrainSettings
    note: str = ""
    activations: Groups = field(default_factory=dict)


@dataclass
class Line:
    """What is known at one evaluation; a line of `*.recover.jsonl`.

    Args:
        step: steps done.
        of: steps planned.
        loss: mean error of the steps since the last evaluation.
        aside: mean error on the samples kept aside.
        rate: multiple of the usual learning rates, of all but codes.
        code_rate: the same of codes.
        event: what happened besides.
    """

    step: int
    of: int
    loss: float | None
    aside: float
    rate: float
    code_rate: float
    event: str = ""


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Args:
        state: of the least error on the samples kept aside; the first one if none was better.
        improved: whether any was better.
        lines: all evaluations, the first before any step.
        seconds: that all runs took together, those that were killed included.
        samples: trained on.
        resumed: the step that the run went on from; None for a new one.
    """

    state: State
    improved: bool
    lines: list[Line]
    seconds: float
    samples: int
    resumed: int | None = None
