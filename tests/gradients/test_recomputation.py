"""Activation checkpointing is off while gradients per sample are taken."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as private
from torch.utils.checkpoint import checkpoint

from mpq.gradients.recomputation import without_recomputation
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
