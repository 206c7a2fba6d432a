import json
import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.analyze import memory
from mpq.analyze.methods import fisher
from mpq.data.dataset import Data, data_from_batches
from mpq.gradients import recomputation
from mpq.gradients.per_sample import NotSamplewiseError
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.models.small import Experts, Tied, UpAndDown, data, inputs, mlp

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn", "method": "fisher"}


def analyzed(module: nn.Module, samples: Data, **choices: Any) -> Sensitivity:
    return mpq.analyze(module, samples, **(CHOICES | choices))


class Convolutions(nn.Module):
    """With a stride, groups, dilation and one dim; the first result is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.grouped = nn.Conv2d(4, 6, 2, groups=2, dilation=2)
        self.line = nn.Conv1d(6, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.line(self.grouped(torch.relu_(self.first(x))).flatten(2))
        return made


class Transposed(nn.Module):
    """A weight [inputs, outputs] under addmm on flattened positions, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5) / 2)
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, 6), self.weight).view(*x.shape[:-1], 5)


class Routed(nn.Module):
    """Positions that a gate picks, of all samples together, go through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.some = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        made = self.all(x).reshape(-1, 6)
        picked = made.sum(-1).argsort()[: len(made) // 2]
        result: Tensor = made.index_add(0, picked, self.some(made[picked])).view_as(x)
        return result


def tokens(samples: int) -> Tensor:
    return torch.randint(0, 11, (samples, 5), generator=torch.Generator().manual_seed(2))


TOGETHER: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (mlp, inputs(12, 8)),
    "positions": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5)), inputs(12, 3, 6)),
    "tied": (Tied, tokens(12)),
    "conv": (Convolutions, inputs(12, 2, 12, 12)),
    "addmm": (Transposed, inputs(12, 3, 6)),
}
ALONE: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "transposed conv": (UpAndDown, inputs(12, 2, 6, 6)),
    "einsum": (Experts, inputs(12, 6)),
    "routed": (Routed, inputs(12, 4, 6)),
}


def both(case: tuple[Callable[[], nn.Module], Tensor]) -> tuple[Sensitivity, Sensitivity]:
    torch.manual_seed(0)
    build, given = case
    module, samples = build().eval(), data_from_batches(list(torch.split(given, 8)))
    return analyzed(module, samples), analyzed(module, samples.rebatch(1))


@pytest.mark.parametrize("kind", [*TOGETHER, *ALONE])
def test_a_sample_in_a_batch_has_the_figures_that_it_has_alone(kind: str) -> None:
    found, alone = both((TOGETHER | ALONE)[kind])
    assert found.products.keys() == alone.products.keys()
    for key, products in alone.products.items():
        assert np.allclose(found.products[key], products, rtol=1e-3, atol=1e-5 * max(1e-9, float(np.abs(products).max()))), key
        assert np.allclose(found.rows[key], alone.rows[key], rtol=2e-3, atol=1e-6 * max(1e-9, float(alone.rows[key].max()))), key
        assert len(found.errors[key]) == 9


@pytest.mark.parametrize("kind", TOGETHER)
def test_known_ops_run_a_batch_at_once_and_three_samples_before_to_check_it(kind: str) -> None:
    found, alone = both(TOGETHER[kind])
    assert found.finish is not None
    assert alone.finish is not None
    assert (found.finish["cost"]["forward_passes"], found.finish["cost"]["backward_passes"]) == (12, 21)
    assert (alone.finish["cost"]["forward_passes"], alone.finish["cost"]["backward_passes"]) == (9, 18)


def test_gradients_of_a_few_samples_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = both(TOGETHER["conv"])
    monkeypatch.setattr("mpq.gradients.per_sample._GRADIENT_VALUES", 1)
    parts, _ = both(TOGETHER["conv"])
    assert all(np.allclose(parts.products[key], products, rtol=1e-3) for key, products in whole.products.items())


@pytest.mark.parametrize("together", [True, False])
def test_blocks_that_cannot_run_again_keep_what_the_backward_passes_need(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3))).eval()

    if not together:
        monkeypatch.setattr(fisher, "project_batch", refused)
    whole = analyzed(blocks(), data())
    monkeypatch.setattr(memory, "RECOMPUTE_BYTES", 0)
    sums = count()
    monkeypatch.setattr(recomputation, "_sum_of", lambda _: float(next(sums)))
    found = analyzed(blocks(), data())
    assert found.finish is not None
    assert found.finish["notes"][0] == (
        "a block gives a different output on a second run, so no block is recomputed, and backward passes take their full memory"
    )
    assert all(np.array_equal(found.errors[pair], errors) for pair, errors in whole.errors.items())


def refused(*_: Any, **__: Any) -> None:
    raise NotSamplewiseError("not here")


def test_a_batch_that_cannot_be_cut_has_one_figure_for_all_its_samples() -> None:
    found = analyzed(mlp(), Data(**{**vars(data(24)), "fixed_batch": 8}))
    assert all(len(errors) == 16 and len(set(errors.tolist())) == 2 for errors in found.errors.values())


def test_small_errors_are_those_that_are_measured() -> None:
    module, samples = mlp(), data(512, batch_size=64)
    found, measured = (analyzed(module, samples, candidates=("8",), method=method) for method in ("fisher", "measure"))
    for key in measured.errors:
        assert found.mean(*key) == pytest.approx(measured.mean(*key), rel=0.25)


def test_the_model_is_left_as_it_was() -> None:
    module = mlp()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    analyzed(module, data())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())


def blend_of(path: Path) -> float:
    (share,) = [record["blend"] for record in map(json.loads, path.read_text().splitlines()) if "blend" in record]
    return float(share)


def test_errors_blend_rows_and_squares_and_are_read_again_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    found = analyzed(mlp(), data(64), output=path)
    share = blend_of(path)
    again = read_sensitivity(path)
    assert again.scales == found.scales
    for key, errors in again.errors.items():
        squares = np.square(found.products[key]).reshape(len(errors), -1).mean(1)
        assert np.allclose(errors, (share * squares + (1 - share) * found.rows[key]) * found.scales.get(key, 1.0))
        assert errors.tolist() == found.errors[key].tolist()


def test_squares_count_where_few_directions_of_the_output_matter_and_rows_where_many_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    few, many = (nn.Sequential(nn.Linear(32, 64), nn.Linear(64, outputs)).eval() for outputs in (1, 256))
    for name, module in (("few", few), ("many", many)):
        analyzed(module, data(48, 32), output=tmp_path / name, metric="relative_mse", candidates=("3", "4", "5"))
    assert blend_of(tmp_path / "many") < blend_of(tmp_path / "few")


def test_figures_from_thirty_samples_are_near_the_measured_ones() -> None:
    module, samples = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 128)).eval(), data(40, 64)
    found, measured = (analyzed(module, samples, candidates=("4", "5", "6"), method=method) for method in ("fisher", "measure"))
    assert max(abs(math.log(found.mean(*key) / measured.mean(*key))) for key in measured.errors) < 0.35
