"""Eager modules are replayed by the recorded outputs of submodules that finished before the changed layer."""

from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.layers.discover import discover
from mpq.models.running.forward import forward
from mpq.models.running.replay.modules import ModuleTape
from mpq.models.running.swap import swapped
from mpq.records.layer import Layer
from tests.models.small import inputs, mlp

BATCH = Batch((inputs(8, 8),))


class Counting(nn.Module):
    """A linear layer that counts its calls."""

    def __init__(self, rows: int = 8, columns: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(rows, columns)
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        result: Tensor = self.linear(x)
        return result


class Chain(nn.Module):
    """Three counting layers, joined by a function."""

    def __init__(self, join: Any = lambda parts, x: parts[2](parts[1](parts[0](x)))) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts, self.join = nn.ModuleList(Counting() for _ in range(3)), join

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.join(self.parts, x)
        return result

    def counts(self) -> list[int]:
        found = [len(part.calls) for part in self.parts]  # type: ignore[arg-type]
        for part in self.parts:
            part.calls.clear()  # type: ignore[operator, union-attr]
        return found


def layers_of(module: nn.Module) -> list[Layer]:
    return list(discover(module, [BATCH]).layers)


def recorded(module: nn.Module) -> ModuleTape:
    tape = ModuleTape(module)
    tape.record(BATCH)
    return tape


def test_only_what_comes_with_or_after_the_layer_runs_again() -> None:
    module = Chain().eval()
    layers = layers_of(module)
    tape = recorded(module)
    module.counts()
    counted = []
    for layer in layers:
        (found,) = tape.run(BATCH, layer)
        counted.append(module.counts())
        assert torch.equal(found, forward(module, BATCH)[0])
        module.counts()
    assert counted == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert [round(tape.work(layer), 6) for layer in layers] == [1.0, round(2 / 3, 6), round(1 / 3, 6)]


def test_a_replay_with_a_changed_layer_gives_the_outputs_of_a_whole_pass_bit_for_bit() -> None:
    module = mlp()
    tape = recorded(module)
    for layer in layers_of(module):
        weight = module.get_parameter(layer.parameters[0]).detach()
        with swapped(module, {layer.parameters[0]: weight * 1.5}):
            assert torch.equal(tape.run(BATCH, layer)[0], forward(module, BATCH)[0])


def test_a_module_that_is_called_twice_always_runs() -> None:
    module = Chain(lambda parts, x: parts[1](parts[0](parts[0](x)))).eval()
    layer = next(layer for layer in layers_of(module) if layer.name.startswith("parts.1"))
    tape = recorded(module)
    module.counts()
    assert torch.equal(tape.run(BATCH, layer)[0], forward(module, BATCH)[0])
    assert module.counts()[0] == 4


def test_an_output_that_is_changed_in_place_afterwards_is_made_again() -> None:
    module = Chain(lambda parts, x: parts[2](parts[1](parts[0](x).relu_()))).eval()
    layer = layers_of(module)[-1]
    tape = recorded(module)
    module.counts()
    assert torch.equal(tape.run(BATCH, layer)[0], forward(module, BATCH)[0])
    assert module.counts() == [2, 1, 2]  # of both passes together: only the second is recorded


def test_a_layer_whose_module_never_ran_is_run_whole() -> None:
    module = Chain().eval()
    tape = recorded(module)
    unknown = Layer("x", ("x.weight",), (8, 8), (0,), "float32", consumers=("x",))
    assert tape.work(unknown) == 1.0
    assert torch.equal(tape.run(BATCH, unknown)[0], forward(module, BATCH)[0])


def test_after_clearing_everything_runs_again() -> None:
    module = Chain().eval()
    layer = layers_of(module)[-1]
    tape = recorded(module)
    tape.clear()
    assert tape.work(layer) == 1.0
    module.counts()
    tape.run(BATCH, layer)
    assert module.counts() == [1, 1, 1]


def test_a_forward_of_its_own_is_put_back() -> None:
    module = Chain().eval()
    first: Any = module.parts[0]
    own = first.forward
    first.forward = own
    layer = layers_of(module)[-1]
    tape = recorded(module)
    tape.run(BATCH, layer)
    assert first.__dict__["forward"] is own
    assert "forward" not in module.parts[1].__dict__


def test_outputs_in_containers_of_which_a_caller_takes_parts_are_not_spoiled() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = Pair(), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            found = self.body(x)
            result: Tensor = self.head(found.pop() + found.pop())
            return result

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.linear(x), x]

    module = Listed().eval()
    tape, layer = recorded(module), layers_of(module)[-1]
    expected = forward(module, BATCH)[0]
    assert [torch.equal(tape.run(BATCH, layer)[0], expected) for _ in range(2)] == [True, True]
