"""Replay: a forward pass with one changed layer, in which what finished before that layer is not computed again.

Two kinds of models can be replayed, by values recorded in one reference pass per batch:

    eager modules     a submodule whose single call ended before the changed layer's first use returns its recorded output
    graphs (fx)       only nodes that depend on the changed parameter run again

Everything else (TorchScript, models that change their tensors in place across modules) is simply run whole. Outputs are bit-identical
to the plain pass; this is checked once for each model, and replay is given up if it fails.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from mpq.data.dataset import Batch
from mpq.models.running.forward import forward
from mpq.models.running.reference import Reference
from mpq.models.running.replay.graph import GraphTape, is_replayable
from mpq.models.running.replay.modules import ModuleTape
from mpq.models.running.replay.tape import Tape
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer


class Replay:
    """Errors of changed layers, by replay where the model allows it.

    Args:
        module: the unquantized model.
        reference: its outputs on the samples, and the metric.
    """

    def __init__(self, module: nn.Module, reference: Reference) -> None:
        self._module, self._reference = module, reference
        self._tape = tape_for(module)
        self._checked = False
        self._runs = self._run = 0.0
        self._recorded = 0

    @property
    def cost(self) -> dict[str, float]:
        """Forward passes: what was run, counting a replay by its share, and what replay saved."""
        done = self._reference.forwards + self._recorded + self._run
        return {"forward_equivalents": round(done, 2), "saved": round(self._runs - self._run, 2)}

    def record(self, index: int) -> None:
        """Prepare replays on one batch; at most one batch's activations are held."""
        if self._tape is not None:
            self._tape.record(self._reference.data.batches[index])
            self._recorded += 1

    def errors(self, index: int, layer: Layer, weights: Mapping[str, Tensor]) -> Tensor:
        """The error of each sample of one batch with `weights`, all of `layer`, in place."""
        if self._tape is None:
            return self._reference.batch_errors(index, weights)
        share = self._tape.work(layer)
        batch = self._reference.data.batches[index]
        with swapped(self._module, weights):
            outputs = self._tape.run(batch, layer)
            if share < 1 and not self._checked:
                outputs = self._check(batch, outputs)
        self._runs, self._run = self._runs + 1, self._run + share
        return self._reference.compared(index, outputs)

    def clear(self) -> None:
        """Forget the recorded batch."""
        if self._tape is not None:
            self._tape.clear()

    def _check(self, batch: Batch, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs of a whole pass; replay is given up unless it gave the same."""
        whole = forward(self._module, batch)
        self._recorded += 1
        self._checked = True
        if len(whole) != len(outputs) or not all(torch.equal(a, b) for a, b in zip(whole, outputs, strict=True)):
            self.clear()
            self._tape = None
        return whole


def tape_for(module: nn.Module) -> Tape | None:
    """The tape that suits a model; None where only whole passes are safe."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    if isinstance(module, fx.GraphModule):
        return GraphTape(module) if is_replayable(module) else None
    return ModuleTape(module)
