"""Replay: a forward pass with one changed layer that reuses everything computed before that layer.

Two kinds of models can be replayed, using values recorded in one reference pass per batch:

    eager modules     a submodule whose single call ended before the changed layer's first use returns its recorded output
    graphs (fx)       only nodes that depend on the changed parameter run again

All other models (TorchScript, models that keep state between calls) run completely. Outputs are bit-identical to a full pass. This is
checked once for each layer: with nothing changed, a replay must have error zero; otherwise replay is disabled for the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from mpq.errors import MpqError
from mpq.models.running.habits import habits_of
from mpq.models.running.kept_weights import rewritten_weights
from mpq.models.running.reference import Reference
from mpq.models.running.replay.graph import GraphTape, is_replayable
from mpq.models.running.replay.modules import ModuleTape
from mpq.models.running.replay.tape import Tape
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer


class Replay:
    """Errors of changed layers, by replay if the model allows it.

    Args:
        module: the unquantized model.
        reference: its outputs on the samples, and the metric.

    Attributes:
        given_up: why replay is disabled; empty while it is enabled.
    """

    def __init__(self, module: nn.Module, reference: Reference) -> None:
        self._module, self._reference = module, reference
        self._tape = tape_for(module)
        self._exact: set[str] = set()
        self.given_up = ""
        self._runs = self._run = 0.0
        self._recorded = 0.0

    @property
    def cost(self) -> dict[str, float]:
        """Forward passes: the number run, counting a replay by its share, and the number that replay saved."""
        done = self._reference.forwards + self._recorded + self._run
        return {"forward_equivalents": round(done, 2), "saved": round(self._runs - self._run, 2)}

    def record(self, index: int) -> None:
        """Prepare replays on one batch; at most one batch's activations are held."""
        if self._tape is not None:
            self._tape.record(self._reference.data.batches[index])
            self._recorded += 1

    def errors(self, index: int, layer: Layer, weights: Mapping[str, Tensor]) -> Tensor:
        """The error of each sample of one batch with `weights`, all of `layer`, swapped in."""
        if self._tape is None:
            return self._reference.batch_errors(index, weights)
        share = self._tape.work(layer)
        batch = self._reference.data.batches[index]
        if share < 1 and not self._is_exact(index, layer):
            return self._reference.batch_errors(index, weights)
        with swapped(self._module, weights):
            outputs = self._tape.run(batch, layer)
        self._runs, self._run = self._runs + 1, self._run + share
        return self._reference.compared(index, outputs)

    def clear(self) -> None:
        """Forget the recorded batch."""
        if self._tape is not None:
            self._tape.clear()

    def _is_exact(self, index: int, layer: Layer) -> bool:
        """Whether a replay with nothing changed has error zero; checked once for each layer. If not, replay is disabled."""
        if layer.name in self._exact or self._tape is None:
            return self._tape is not None
        batch = self._reference.data.batches[index]
        try:
            same = not bool(self._reference.compared(index, self._tape.run(batch, layer)).any())
        except MpqError:  # a skipped call has an effect that a later one needs
            same = False
        self._recorded += self._tape.work(layer)
        if same:
            self._exact.add(layer.name)
            return True
        self.given_up = f"every measurement runs the full model: a replay around '{layer.name}' gives different outputs than the model"
        self.clear()
        self._tape = None
        return False


def tape_for(module: nn.Module) -> Tape | None:
    """The tape for a model; None if only full passes are safe."""
    if isinstance(module, torch.jit.ScriptModule) or habits_of(module) is not None or rewritten_weights(module):
        return None
    if isinstance(module, fx.GraphModule):
        return GraphTape(module) if is_replayable(module) else None
    return ModuleTape(module)
