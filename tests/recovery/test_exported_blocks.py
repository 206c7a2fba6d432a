"""Blocks of exported programs."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import data_from_batches
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.habits import _KNOWN, Habits, habits_of
from mpq.models.running.metrics import RelativeMSE
from mpq.models.running.swap import swapped
from mpq.recovery.base import Limits, State, Task
from mpq.recovery.blocks import blocks_of, call_of, output_of
from mpq.recovery.exported_blocks import Divided, divided
from mpq.recovery.reconstruction import Reconstruction
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import bits
from tests.recovery.test_blocks import Stacked


class Basic(nn.Module):
    """A residual block whose activation overwrites its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second, self.act = nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        return cast("Tensor", self.act(self.second(self.act(self.norm(self.first(values)))) + values))


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 4, 1)
        self.stages = nn.Sequential(nn.Sequential(Basic(4), Basic(4)), nn.Sequential(Basic(4)))
        self.head = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, values: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.stages(self.stem(values)).mean((-2, -1))))


def exported(module: nn.Module, *args: Tensor) -> nn.Module:
    module.eval()
    shapes = tuple({0: torch.export.Dim.AUTO} for _ in args)
    program = torch.export.export(module, args, dynamic_shapes=shapes).module(check_guards=False)
    for part in program.modules():
        part.training = False
    return program


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_a_divided_program_computes_the_same_with_the_same_tensors() -> None:
    program, batch = exported(Maps(), images(3)), Batch((images(5),))
    layers = discover(program, [batch]).layers
    names, code = list(program.state_dict()), program.code
    found = divided(program, layers)
    assert isinstance(found, Divided)
    assert torch.equal(found(images(5)), program(images(5)))
    assert sorted(found.state_dict()) == sorted(names)
    assert all(found.get_parameter(name) is parameter for name, parameter in program.named_parameters())
    assert all(found.get_buffer(name) is buffer for name, buffer in program.named_buffers())
    assert (list(program.state_dict()), program.code) == (names, code)
    assert not any(part.training for part in found.modules())


def test_blocks_are_those_of_the_module_with_the_same_inputs_and_outputs() -> None:
    module, batch = Maps().eval(), Batch((images(5),))
    program = exported(Maps(), images(3))
    layers = discover(program, [batch]).layers
    found = divided(program, layers)
    assert found is not None
    blocks, own = blocks_of(found, layers, batch), blocks_of(module, discover(module, [batch]).layers, batch)
    assert [block.name for block in blocks] == [block.name for block in own] == ["stages.0", "stages.1"]
    assert [[layer.name for layer in block.layers] for block in blocks] == [[layer.name for layer in block.layers] for block in own]
    assert [block.channels for block in blocks] == [1, 1]
    for block, other in zip(blocks, own, strict=True):
        assert torch.equal(output_of(found, block, batch), output_of(module, other, batch))
        call = call_of(found, block, batch)
        assert torch.equal(call.args[0], call_of(module, other, batch).args[0])
        assert torch.equal(call.output(block.module), output_of(module, other, batch))


def test_a_swap_under_the_old_names_reaches_the_blocks() -> None:
    program = exported(Maps(), images(3))
    found = divided(program, discover(program, [Batch((images(3),))]).layers)
    assert found is not None
    name, before = "stages.1.0.first.weight", program(images(4))
    with swapped(found, {name: torch.zeros(4, 4, 3, 3)}):
        changed = program(images(4))
        assert torch.equal(found(images(4)), changed)
    assert not torch.equal(changed, before)
    assert torch.equal(program(images(4)), before)


def test_children_of_a_list_with_keywords_and_two_outputs_are_blocks() -> None:
    class Pairs(Stacked):
        def forward(self, values: Tensor) -> Tensor:
            first = values = self.stem(values)
            for part in self.parts:
                values, _ = part(values + 0, factor=2.0)
            return cast("Tensor", self.head(values + first))

    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    program, module, batch = exported(Pairs(), values), Pairs().eval(), Batch((values,))
    layers = discover(program, [batch]).layers
    found = divided(program, layers)
    assert found is not None
    assert [block.name for block in blocks_of(found, layers, batch)] == ["parts.0", "parts.1", "parts.2"]
    assert torch.equal(found(values), module(values))


def test_a_module_that_is_called_twice_or_most_of_the_model_is_no_block() -> None:
    shared = nn.Linear(4, 4)
    program = exported(nn.Sequential(shared, nn.Linear(4, 4), shared, nn.Linear(4, 4)), torch.randn(2, 4))
    batch = Batch((torch.randn(3, 4),))
    layers = discover(program, [batch]).layers
    found = divided(program, layers)
    assert found is not None
    assert [block.name for block in blocks_of(found, layers, batch)] == ["1", "3"]
    alone = exported(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4))
    assert divided(alone, discover(alone, [batch]).layers) is None


def test_other_modules_are_left_alone() -> None:
    module = Maps().eval()
    assert divided(module, discover(module, [Batch((images(3),))]).layers) is None


def test_calls_take_the_same_care() -> None:
    program = exported(Maps(), images(3))
    habits = Habits(changes_inputs=True)
    _KNOWN[program] = habits
    found = divided(program, discover(program, [Batch((images(3),))]).layers)
    assert found is not None
    assert habits_of(found) is habits


@pytest.mark.parametrize("scheme", ["int3", "int2-g12"])
def test_reconstruction_of_a_program_is_that_of_the_module(scheme: str) -> None:
    given = data_from_batches(list(torch.split(images(64), 16)))
    proposals = []
    for module in (Maps().eval(), exported(Maps(), images(3))):
        variants = Variants(module, discover(module, given.batches[:1]).layers, quantizer_named("rtn"))
        state = State({name: variants.quantized(name, parse_scheme(scheme)) for name in variants.layers})
        before = bits(module)
        proposals.append(Reconstruction().propose(Task(variants, given, RelativeMSE(), 0, Limits(1e15, 60)), state))
        assert bits(module) == before
    plain, found = proposals
    assert found.details == plain.details
    assert found.details["kept"] == 2
    assert found.weights.keys() == plain.weights.keys()
    assert all(torch.equal(weight.dequantize(), plain.weights[name].dequantize()) for name, weight in found.weights.items())
