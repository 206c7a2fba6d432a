"""Replay of graphs: only the nodes that depend on the changed parameter run again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from mpq.data.dataset import Batch
from mpq.models.running.forward import call_errors, outputs_of
from mpq.models.running.operations import OperationCounter
from mpq.models.running.replay.tape import Tape
from mpq.records.layer import Layer


def is_replayable(module: fx.GraphModule) -> bool:
    """Whether no node of the graph changes a tensor in place."""
    for node in module.graph.nodes:
        if node.op == "call_method":
            return False
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            return False
    return True


class _Recorder(fx.Interpreter):
    """Runs a graph, starting from values that are known."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.flops: dict[fx.Node, float] = {}
        self.counter: OperationCounter | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, counting its floating-point operations when a counter is set."""
        if self.counter is None:
            return super().run_node(n)
        before = self.counter.products
        result = super().run_node(n)
        self.flops[n] = self.counter.products - before
        return result


class GraphTape(Tape):
    """The values of all nodes, for one batch."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._recorder = _Recorder(module)
        self._values: dict[fx.Node, Any] = {}
        self._unaffected: dict[str, set[fx.Node]] = {}

    def record(self, batch: Batch) -> None:
        """Run the reference on `batch` and keep the values of its nodes."""
        if not self._recorder.flops:
            with OperationCounter() as counter:
                self._recorder.counter = counter
                self._run(batch, {})
                self._recorder.counter = None
        self._run(batch, {})
        self._values = dict(self._recorder.env)

    def run(self, batch: Batch, layer: Layer) -> tuple[Tensor, ...]:
        """The outputs with `layer` changed in place by the caller."""
        kept = self._kept(layer)
        return outputs_of(self._run(batch, {node: self._values[node] for node in kept if node in self._values}), batch)

    def work(self, layer: Layer) -> float:
        """Share of a whole forward pass, in floating-point operations, that a replay for `layer` runs."""
        total = sum(self._recorder.flops.values())
        kept = self._kept(layer)
        return sum(flops for node, flops in self._recorder.flops.items() if node not in kept) / total if total else 1.0

    def clear(self) -> None:
        """Forget the recorded batch."""
        self._values = {}
        self._recorder.env = {}

    def _run(self, batch: Batch, known: dict[fx.Node, Any]) -> Any:
        with call_errors(batch), torch.no_grad():
            result = self._recorder.run(*self._inputs(batch), initial_env=dict(known), enable_io_processing=False)
            return self._module.graph.process_outputs(result)

    def _inputs(self, batch: Batch) -> list[Any]:
        """One value per placeholder: positional leaves, then keyword arguments by name."""
        names = [str(node.target) for node in self._module.graph.nodes if node.op == "placeholder"]
        positional = tree_leaves(batch.args)
        return positional + [batch.kwargs[name] for name in names[len(positional) :]]

    def _kept(self, layer: Layer) -> set[fx.Node]:
        """The nodes that do not depend on the layer; parameters themselves are always read again."""
        if layer.name not in self._unaffected:
            affected: set[fx.Node] = set()
            for node in self._module.graph.nodes:
                changed = node.op == "get_attr" and str(node.target) in layer.parameters
                if changed or any(source in affected for source in node.all_input_nodes):
                    affected.add(node)
            own = ("get_attr", "placeholder", "output")
            self._unaffected[layer.name] = {n for n in self._module.graph.nodes if n not in affected and n.op not in own}
        return self._unaffected[layer.name]
