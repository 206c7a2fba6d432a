from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.errors import ModelError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import from_module

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


class Cell(nn.Module):
    """A recurrent cell that keeps its state, zero at first, or starts from a learned one."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRUCell(4, 6), nn.Linear(6, 3)
        self.state: Tensor
        self.register_buffer("state", torch.ones(1, 6) if learned else torch.zeros(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        found = self.rnn(x, self.state.expand(len(x), -1))
        self.state = found.detach().mean(0, keepdim=True)
        scores: Tensor = self.head(found)
        return scores


def analyzed(module: nn.Module, **choices: Any) -> mpq.Sensitivity:
    data = fit_data([X[:8], X[8:]], model=from_module(module), source="memory")
    return mpq.analyze(module, data, candidates=("2", "8"), quantizer="rtn", method="measure", **choices)


def test_weights_of_a_state_that_is_zero_are_left_as_they_are_and_named() -> None:
    torch.manual_seed(0)
    table = analyzed(Cell(learned=False).eval())
    assert [layer.name for layer in table.layers] == ["rnn.weight_ih", "head"]
    (note,) = [note for note in table.header.notes if note.startswith("no effect on the outputs of a single call, so left unquantized")]
    assert note.endswith(": rnn.weight_hh")
    assert all(errors.max() > 0 for errors in table.errors.values())


def test_weights_of_a_state_that_is_not_zero_are_searched() -> None:
    torch.manual_seed(0)
    table = analyzed(Cell(learned=True).eval())
    assert sorted(layer.name for layer in table.layers) == ["head", "rnn.weight_hh", "rnn.weight_ih"]


def test_nothing_left_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match=r"no layers left to search: no effect on the outputs of a single call.*: rnn\.weight_hh"):
        analyzed(Cell(learned=False).eval(), targets=("rnn.weight_hh",))


def test_a_weight_that_is_divided_by_its_norm_has_an_effect() -> None:
    torch.manual_seed(0)
    normed = nn.utils.spectral_norm(nn.Linear(4, 6))
    table = analyzed(nn.Sequential(normed, nn.Linear(6, 3)).eval(), metric="relative_mse")
    assert [layer.name for layer in table.layers] == ["0.weight_orig", "1"]
