"""Graphs are replayed from the values of nodes that do not depend on the changed layer."""

import torch
from torch import Tensor, fx, nn

from mpq.data.batch import Batch
from mpq.models.layers.discover import discover
from mpq.models.running.forward import forward
from mpq.models.running.replay.graph import GraphTape, is_replayable
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer
from tests.models.small import inputs, mlp

BATCH = Batch((inputs(8, 8),))


def graph(module: nn.Module, *example: Tensor, **named: Tensor) -> fx.GraphModule:
    return torch.export.export(module, example, named).module(check_guards=False)


def layers_by_name(module: nn.Module, batch: Batch) -> dict[str, Layer]:
    return {layer.name: layer for layer in discover(module, [batch]).layers}


def test_a_replay_gives_the_outputs_of_a_whole_pass_bit_for_bit() -> None:
    module = graph(mlp(), *BATCH.args)
    tape = GraphTape(module)
    tape.record(BATCH)
    for layer in layers_by_name(module, BATCH).values():
        weight = module.get_parameter(layer.parameters[0]).detach()
        with swapped(module, {layer.parameters[0]: weight * 1.5}):
            (found,), (expected,) = tape.run(BATCH, layer), forward(module, BATCH)
        assert torch.equal(found, expected)


def test_the_work_is_the_share_of_what_depends_on_the_layer() -> None:
    module = graph(mlp(), *BATCH.args)
    tape = GraphTape(module)
    layers = layers_by_name(module, BATCH)
    assert tape.work(layers["0"]) == 1.0
    tape.record(BATCH)
    whole = 8 * 16 + 16 * 12 + 12 * 4
    assert [tape.work(layers[name]) for name in ("0", "3", "5")] == [1.0, (16 * 12 + 12 * 4) / whole, 12 * 4 / whole]


def test_a_new_batch_replaces_the_old_one() -> None:
    module = graph(mlp(), *BATCH.args)
    tape, layer = GraphTape(module), layers_by_name(module, BATCH)["5"]
    other = Batch((inputs(8, 8, seed=2),))
    for batch in (BATCH, other):
        tape.record(batch)
        (found,) = tape.run(batch, layer)
        assert torch.equal(found, forward(module, batch)[0])


def test_after_clearing_everything_runs_again() -> None:
    module = graph(mlp(), *BATCH.args)
    tape, layer = GraphTape(module), layers_by_name(module, BATCH)["5"]
    tape.record(BATCH)
    tape.clear()
    other = Batch((inputs(8, 8, seed=2),))
    assert torch.equal(tape.run(other, layer)[0], forward(module, other)[0])


def test_keyword_arguments_are_given_by_name() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, a: Tensor, *, c: Tensor, b: Tensor) -> Tensor:
            result: Tensor = self.first(a) + self.second(b) - c
            return result

    a, b, c = inputs(8, 4), inputs(8, 4, seed=2), inputs(8, 3, seed=3)
    module = graph(Sum().eval(), a, c=c, b=b)
    batch = Batch((a,), {"b": b, "c": c})
    tape = GraphTape(module)
    tape.record(batch)
    assert torch.equal(tape.run(batch, layers_by_name(module, batch)["second"])[0], forward(module, batch)[0])


def test_graphs_that_change_tensors_in_place_are_not_replayed() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y.mul_(2)
            return y

    assert is_replayable(graph(mlp(), *BATCH.args))
    assert not is_replayable(graph(InPlace(), inputs(2, 2)))
    assert not is_replayable(fx.symbolic_trace(InPlace()))
