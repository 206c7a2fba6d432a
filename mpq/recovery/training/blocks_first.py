"""Block reconstruction before training end to end, on the samples of the training; a killed run does not repeat it once it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mpq.recovery.base import Proposal, State, Task
from mpq.recovery.reconstruction import Reconstruction
from mpq.recovery.trainable import Codes
from mpq.recovery.training.checkpoints import Checkpoint, Checkpoints
from mpq.tensors.quantized import QuantizedWeight, unpack_weight

_WEIGHT, _TENSOR = "weight", "tensor"


@dataclass(frozen=True)
class BlocksFirst(Reconstruction):
    """Block reconstruction whose proposal is kept for a later run of the same command.

    Args:
        checkpoints: where it is kept.
        codes: whose codes move.
    """

    checkpoints: Checkpoints | None = None
    codes: Codes = "integers"

    @property
    def moving(self) -> Codes:
        """As given."""
        return self.codes

    def propose(self, task: Task, state: State) -> Proposal:
        """The proposal of block reconstruction; that of the run before if there was one."""
        found = None if self.checkpoints is None else self.checkpoints.newest()
        if found is not None:
            return _restored(found, state)
        clock = task.limits.clock()
        made = super().propose(task, state)
        made = replace(made, details={**made.details, "seconds": round(clock.spent, 1)})
        if self.checkpoints is not None:
            self.checkpoints.save(0, _facts(made), _tensors(made))
        return made


def _facts(made: Proposal) -> dict[str, Any]:
    return {"about": made.about, "details": dict(made.details), "stopped": made.stopped, "remark": made.remark}


def _tensors(made: Proposal) -> dict[str, Tensor]:
    weights = {f"{_WEIGHT}:{part}:{name}": tensor for name, weight in made.weights.items() for part, tensor in weight.pack().items()}
    return weights | {f"{_TENSOR}::{name}": tensor for name, tensor in made.tensors.items()}


def _restored(found: Checkpoint, state: State) -> Proposal:
    parts: dict[str, dict[str, Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    for key, tensor in found.tensors.items():
        kind, part, name = key.split(":", 2)
        if kind == _WEIGHT:
            parts.setdefault(name, {})[part] = tensor
        else:
            tensors[name] = tensor
    weights = {name: _unpacked(held, state.weights[name]) for name, held in parts.items()}
    return Proposal(weights=weights, tensors=tensors, **found.facts)


def _unpacked(parts: dict[str, Tensor], like: QuantizedWeight) -> QuantizedWeight:
    return unpack_weight(parts, like.scheme, like.matrix)
