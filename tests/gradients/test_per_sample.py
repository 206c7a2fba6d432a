"""What one projection gives for one sample, for all samples of a batch by one backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpq.data.batch import Batch
from mpq.gradients import per_sample
from mpq.gradients.per_sample import NotSamplewiseError, project_batch, row_products
from mpq.gradients.projections import project
from mpq.gradients.weight_changes import Piece
from mpq.models.layers.discover import discover
from mpq.models.running.comparison import Comparison, Part
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE
from mpq.records.layer import Layer
from mpq.tensors.matrix import to_matrix
from tests.models.layers.discovering import Lambda, weight
from tests.models.small import inputs, mlp, tied

Products = dict[tuple[int, str], Tensor]
"""By draw and layer, [changes, samples, rows]."""


def changes_of(layer: Layer) -> Tensor:
    """Two changes, the same for the same layer."""
    return inputs(2, *layer.matrix, seed=sum(map(ord, layer.name)))


def pieces(changes: Tensor) -> list[Piece]:
    """The first row, then all others."""
    return [(rows, changes[:, rows]) for rows in (slice(0, 1), slice(1, changes.shape[1]))]


def by_batch(module: nn.Module, batch: Batch, metric: Metric, draws: int = 2, blocks: Sequence[nn.Module] = ()) -> Products:
    found: Products = {}
    project_batch(
        module,
        discover(module, [batch]).layers,
        batch,
        metric,
        seeds=range(10, 10 + batch.size),
        draws=draws,
        changes=lambda layer: pieces(changes_of(layer)),
        receive=lambda draw: lambda layer, rows: found.__setitem__((draw, layer.name), rows),
        blocks=blocks,
    )
    return found


def one_by_one(module: nn.Module, batch: Batch, metric: Metric, draws: int = 2) -> Products:
    layers, parts = discover(module, [batch]).layers, dict[tuple[int, str], list[Tensor]]()

    def take(draw: int, layer: Layer, gradient: Tensor) -> None:
        rows = (changes_of(layer) * to_matrix(gradient, layer.axes, layer.groups)).sum(-1)
        parts.setdefault((draw, layer.name), []).append(rows)

    for sample in range(batch.size):
        project(
            module,
            layers,
            batch.select([sample]),
            metric,
            draws=draws,
            seed=10 + sample,
            receive=lambda draw: lambda layer, gradient: take(draw, layer, gradient),
        )
    return {key: torch.stack(rows, 1) for key, rows in parts.items()}


def convolution(**options: Any) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 6, 3, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)).eval()

    return made


def twice() -> nn.Module:
    torch.manual_seed(0)
    linear = nn.Linear(8, 8)
    return nn.Sequential(linear, nn.Tanh(), linear, nn.Tanh(), nn.Linear(8, 3)).eval()


def added() -> nn.Module:
    torch.manual_seed(0)
    return Lambda(lambda m, x: torch.addmm(m.bias, x, m.weight), weight=weight(8, 6), bias=weight(6)).eval()


def padded_words() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 8, padding_idx=0), nn.Tanh(), nn.Linear(8, 5)).eval()


IDS = torch.randint(0, 11, (5, 4), generator=torch.Generator().manual_seed(0))
IMAGES = inputs(5, 4, 7, 7)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (mlp, inputs(5, 8)),
    "linear over positions": (mlp, inputs(5, 3, 8)),
    "the same layer twice": (twice, inputs(5, 8)),
    "tied lookup and product": (tied, IDS),
    "lookup with padding": (padded_words, IDS),
    "convolution": (convolution(), IMAGES),
    "strided, padded, dilated convolution": (convolution(stride=2, padding=2, dilation=2), IMAGES),
    "grouped convolution": (convolution(groups=2), IMAGES),
    "addmm": (added, inputs(5, 8)),
}


@pytest.mark.parametrize("metric", [KLDivergence(), RelativeMSE()], ids=lambda metric: metric.name)
@pytest.mark.parametrize("case", CASES)
def test_all_samples_together_give_what_each_gives_alone(case: str, metric: Metric) -> None:
    build, x = CASES[case]
    batch = Batch((x,))
    found, expected = by_batch(build(), batch, metric), one_by_one(build(), batch, metric)
    assert found.keys() == expected.keys()
    for key, rows in expected.items():
        assert torch.allclose(found[key], rows, rtol=1e-3, atol=1e-5 * float(rows.abs().max())), key


def test_exported_programs_give_the_same() -> None:
    x = inputs(5, 8)
    module = torch.export.export(mlp(), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)).module(check_guards=False)
    found, expected = (by_batch(one, Batch((x,)), RelativeMSE()) for one in (module, mlp()))
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[key], rows, rtol=1e-3, atol=1e-6) for key, rows in expected.items())


def test_a_few_samples_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    build, x = CASES["grouped convolution"]
    whole = by_batch(build(), Batch((x,)), RelativeMSE())
    monkeypatch.setattr(per_sample, "_GRADIENT_VALUES", 1)
    parts = by_batch(build(), Batch((x,)), RelativeMSE())
    assert all(torch.allclose(parts[key], rows, rtol=1e-4, atol=1e-7) for key, rows in whole.items())


@pytest.mark.parametrize("case", CASES)
def test_with_blocks_that_run_again_the_products_are_the_same_to_the_bit(case: str) -> None:
    build, x = CASES[case]
    module, batch = build(), Batch((x,))
    whole = by_batch(module, batch, RelativeMSE())
    parts = by_batch(module, batch, RelativeMSE(), blocks=list(module.children()))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[key], rows) for key, rows in whole.items())


def test_padding_and_several_outputs_count_as_in_the_metric() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(8, 5), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": self.a(x), "b": self.b(x), "unused": x}

    mask = torch.arange(3).expand(5, 3) < torch.tensor([[3], [1], [2], [3], [1]])
    batch = Batch((inputs(5, 3, 8),), mask=mask)
    metric = Comparison([Part("a", "kl_divergence", 2.0), Part("b", "relative_mse")])
    found, expected = by_batch(Two().eval(), batch, metric), one_by_one(Two().eval(), batch, metric)
    assert found.keys() == expected.keys() == {(draw, name) for draw in (0, 1) for name in "ab"}
    assert all(torch.allclose(found[key], rows, rtol=1e-3, atol=1e-5) for key, rows in expected.items())


REFUSED: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "an unknown op": (lambda: Lambda(lambda m, x: torch.einsum("bi,oi->bo", x, m.weight), weight=weight(6, 8)), inputs(5, 8)),
    "a weight that is changed first": (lambda: Lambda(lambda m, x: functional.linear(x, m.weight * 2), weight=weight(6, 8)), inputs(5, 8)),
    "samples on another axis": (
        lambda: Lambda(lambda m, x: functional.linear(x.mT, m.weight).T[:5], weight=weight(6, 5)),
        inputs(5, 8),
    ),
    "a transposed convolution": (lambda: nn.ConvTranspose2d(4, 6, 3), IMAGES),
    "padding by name": (lambda: nn.Conv2d(4, 6, 3, padding="same"), IMAGES),
    "a renormalised lookup": (lambda: nn.Embedding(11, 8, scale_grad_by_freq=True), IDS),
    "scaled addmm": (
        lambda: Lambda(lambda m, x: torch.addmm(m.bias, x, m.weight, alpha=2), weight=weight(8, 6), bias=weight(6)),
        inputs(5, 8),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_use_whose_gradient_per_sample_is_not_known_is_refused(case: str) -> None:
    build, x = REFUSED[case]
    with pytest.raises(NotSamplewiseError):
        by_batch(build().eval(), Batch((x,)), RelativeMSE())


def test_the_model_and_its_gradients_are_as_they_were() -> None:
    module = mlp()
    kept = module.get_parameter("0.weight").grad = torch.ones(16, 8)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    by_batch(module, Batch((inputs(5, 8),)), RelativeMSE())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.get_parameter("0.weight").grad is kept
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_products_of_rows_are_inner_products() -> None:
    gradients, changes = inputs(3, 4, 5), inputs(2, 4, 5, seed=2)
    found = row_products(gradients, changes)
    assert found.shape == (2, 3, 4)
    assert torch.allclose(found, torch.einsum("grc,krc->kgr", gradients, changes), atol=1e-6)
