"""A model's own activation checkpointing is off while gradients per sample are taken; blocks run again where asked for."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as private
from torch.utils.checkpoint import checkpoint

from mpq.gradients.recomputation import NotRepeatableError, kept_or_remade, recomputed, without_recomputation
from tests.models.small import inputs


class Counted(nn.Module):
    """A part under checkpointing, which counts how often it runs."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part, self.reentrant, self.runs = nn.Linear(4, 4), reentrant, 0

    def run(self, x: Tensor) -> Tensor:
        self.runs += 1
        return torch.tanh(self.part(x))

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.run(x)
        found: Tensor = checkpoint(self.run, x, use_reentrant=self.reentrant)
        return found


def gradient(reentrant: bool | None) -> tuple[Tensor, int]:
    module = Counted(reentrant)
    module(inputs(3, 4).requires_grad_()).square().sum().backward()
    assert module.part.weight.grad is not None
    return module.part.weight.grad, module.runs


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_part_runs_once_with_the_same_gradients(reentrant: bool) -> None:
    expected, _ = gradient(None)
    with without_recomputation():
        found, runs = gradient(reentrant)
    assert runs == 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_afterwards_checkpointing_works_as_before(reentrant: bool) -> None:
    with without_recomputation():
        pass
    found, runs = gradient(reentrant)
    assert runs == 2
    assert torch.allclose(found, gradient(None)[0])


def test_torchs_own_is_put_back_after_an_error() -> None:
    before: tuple[Any, ...] = private.CheckpointFunction, private._checkpoint_without_reentrant_generator
    with pytest.raises(ValueError, match=r"^no$"), without_recomputation():
        raise ValueError("no")
    assert (private.CheckpointFunction, private._checkpoint_without_reentrant_generator) == before


def test_keyword_arguments_and_several_outputs_pass_through() -> None:
    def both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, a * b

    a, b = inputs(2), inputs(2, seed=2)
    with without_recomputation():
        first = checkpoint(both, a, b, use_reentrant=True)
        second = checkpoint(both, a, b=b, use_reentrant=False)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


class Residual(nn.Module):
    """A block, which counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.runs, self.extra = nn.Linear(4, 4), 0, 0.0

    def forward(self, x: Tensor, *, scale: Tensor) -> tuple[Tensor, None]:
        self.runs += 1
        return x + torch.tanh(self.part(x)) * scale + self.extra, None


class Blocks(nn.Module):
    """Three blocks, one after another; all read a tensor that is computed before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.parts = nn.Linear(4, 4), [Residual() for _ in range(3)]
        self.blocks = nn.ModuleList(self.parts)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale(x).sigmoid()
        for block in self.blocks:
            x, _ = block(x, scale=scale)
        return x

    @property
    def runs(self) -> list[int]:
        return [block.runs for block in self.parts]


def gradients(module: nn.Module) -> list[Tensor | None]:
    found = [parameter.grad for parameter in module.parameters()]
    module.zero_grad()
    return found


def backward_twice(module: nn.Module) -> list[Tensor | None]:
    output = module(inputs(3, 4)).square().sum()
    output.backward(retain_graph=True)
    first = gradients(module)
    output.backward()
    return first + gradients(module)


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    return len(one) == len(other) and all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_blocks_run_again_in_each_backward_pass_with_the_same_gradients_to_the_bit() -> None:
    module = Blocks()
    expected = backward_twice(module)
    assert module.runs == [1, 1, 1]
    with recomputed(module.parts):
        found = backward_twice(module)
    assert module.runs == [4, 4, 4]
    assert same(expected, found)
    assert same(backward_twice(module), expected)
    assert module.runs == [5, 5, 5]


def test_without_gradients_nothing_runs_again_and_outputs_are_the_same() -> None:
    module = Blocks()
    expected = module(inputs(3, 4))
    with recomputed(module.parts), torch.no_grad():
        assert torch.equal(module(inputs(3, 4)), expected)
    assert module.runs == [2, 2, 2]


def alive(shape: tuple[int, ...]) -> int:
    gc.collect()
    return len({each.data_ptr() for each in gc.get_objects() if type(each) is Tensor and each.shape == shape})


def test_of_a_block_only_its_inputs_are_in_memory() -> None:
    kept: list[Callable[[], Tensor]] = []

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            wide = self.part(x).expand(50, 4) * 2
            kept.append(kept_or_remade(wide.detach()))
            made: Tensor = wide.square().sum(0)
            return made

    torch.manual_seed(0)
    blocks = [Wide(), Wide()]
    module = nn.Sequential(*blocks)
    with recomputed(blocks):
        output = module(inputs(4))
        assert alive((50, 4)) == 0
        assert torch.equal(kept[0](), blocks[0].part(inputs(4)).expand(50, 4) * 2)
        output.sum().backward()
    assert len(kept) == 2 + 3  # the second runs' own are not asked for; the first block ran again for each of the two who asked


@pytest.mark.parametrize("change", ["state", "input"])
def test_a_block_that_gives_another_output_the_second_time_is_refused(change: str) -> None:
    module = Blocks()
    with recomputed(module.parts):
        x = inputs(3, 4)
        output = module(x).sum()
        if change == "state":
            module.parts[1].extra = 1.0
        else:
            x.add_(1)
        with pytest.raises(NotRepeatableError, match=r"^a block of the model gives another output when it runs again on the same input$"):
            output.backward()


def test_outside_of_blocks_a_held_tensor_is_kept() -> None:
    x = inputs(3)
    assert kept_or_remade(x)() is x


def test_hooks_and_a_forward_of_its_own_are_those_of_before() -> None:
    module, seen = Blocks(), []
    module.parts[0].register_forward_hook(lambda *_: seen.append(1))
    own = module.parts[1].forward
    module.parts[1].__dict__["forward"] = own
    with recomputed(module.parts):
        module(inputs(3, 4))
        assert module.parts[1].forward is not own
    assert seen == [1]
    assert module.parts[1].__dict__["forward"] is own
    assert "forward" not in module.parts[0].__dict__
