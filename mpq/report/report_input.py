"""The subject of a report, from the available inputs: a table, a plan, an artifact's header, a frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from mpq.errors import UsageError
from mpq.formats.scheme import Scheme
from mpq.records.activations import Groups
from mpq.records.artifact import ArtifactHeader
from mpq.records.evaluation import Evaluation
from mpq.records.frontier import Frontier, Point
from mpq.records.layer import Layer
from mpq.records.plan import Plan
from mpq.records.recovery_lines import Evaluated
from mpq.records.sensitivity import Sensitivity
from mpq.records.time_frontier import TimeFrontier

SHOWN_BITS = 4.5


@dataclass(frozen=True)
class Subject:
    """The inputs of a report. At least one of table, plan and artifact is present.

    Args:
        source: name of the file that the report was asked for.
        table: the sensitivities, complete or not.
        plan: the plan.
        artifact: the header of an artifact.
        artifact_bytes: size of the artifact's file.
        frontier: what the table can reach; None without a complete table.
        evaluation: the results of `mpq eval` for this plan's artifact, if known.
        other: an earlier plan that this one is compared with, and its name.
        training: the evaluations of the training that `evidence.recovery` notes, where they are known.
        times: the profiles of this model.
        limits: the least bits per weight at which any code could have a layer's output error, by layer, where known.

    Raises:
        UsageError: if there is nothing to report.
    """

    source: str
    table: Sensitivity | None = None
    plan: Plan | None = None
    artifact: ArtifactHeader | None = None
    artifact_bytes: int | None = None
    frontier: Frontier | None = None
    evaluation: Evaluation | None = None
    other: tuple[str, Plan] | None = None
    training: tuple[Evaluated, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    times: tuple[TimeFrontier, ...] = ()

    def __post_init__(self) -> None:
        if self.table is None and self.plan is None and self.artifact is None:
            raise UsageError("a report needs a sensitivity file, a plan or an artifact")

    @property
    def model(self) -> Mapping[str, Any]:
        """Path, sha256 and kind of the model."""
        if self.plan is not None:
            return self.plan.model
        if self.artifact is not None:
            return self.artifact.model
        assert self.table is not None
        return self.table.header.model

    @property
    def title(self) -> str:
        """The model's file name."""
        path = self.model.get("path")
        return PurePath(str(path)).name if path else "model in memory"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The searched layers in model order; a plan alone only knows the shapes of their matrices."""
        if self.table is not None:
            return self.table.layers
        if self.artifact is not None:
            return self.artifact.layers
        assert self.plan is not None
        return tuple(Layer(name, (name,), matrix, (0,), "float32") for name, matrix in self.plan.shapes.items())

    @property
    def schemes(self) -> Mapping[str, Scheme]:
        """The chosen scheme by layer name; empty for a table alone."""
        if self.plan is not None:
            return self.plan.layers
        return self.artifact.schemes if self.artifact is not None else {}

    @property
    def activations(self) -> Groups:
        """The tensors between layers that are integers; empty for a table alone."""
        if self.plan is not None:
            return self.plan.activations
        return self.artifact.activations if self.artifact is not None else {}

    @property
    def drawn(self) -> Mapping[str, Scheme]:
        """The schemes that the page shows: the chosen ones, else those of `shown`."""
        return self.schemes or (self.shown.schemes if self.shown else {})

    @property
    def shown(self) -> Point | None:
        """For a table alone: the best plan near `SHOWN_BITS`, which the page shows first."""
        if self.schemes or self.frontier is None:
            return None
        return min(self.frontier.points, key=lambda point: abs(point.effective_bits - SHOWN_BITS))

    @property
    def metric(self) -> str | None:
        """Name of the metric, if known."""
        if self.table is not None:
            return self.table.metric
        return None if self.plan is None else self.plan.evidence.get("metric")

    @property
    def evidence(self) -> Mapping[str, Any]:
        """The plan's measurements; empty if they are for other schemes."""
        return self.plan.evidence if self.plan is not None and self.plan.evidence_is_current else {}

    def error(self, layer: str, scheme: Scheme | None) -> tuple[float, float] | None:
        """Mean error and its standard error; None if not measured."""
        if self.table is None or scheme is None or (layer, scheme) not in self.table.errors:
            return None
        return self.table.mean(layer, scheme), self.table.stderr(layer, scheme)
