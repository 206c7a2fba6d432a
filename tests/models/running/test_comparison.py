import math

import pytest
import torch

from mpq.data.batch import Batch
from mpq.errors import ModelError
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.comparison import Comparison, Part, by_relative_error, comparison_from
from mpq.models.running.forward import Outputs
from mpq.models.running.metrics import KLDivergence, RelativeMSE
from tests.models.running.test_choose_comparison import BATCH, Heads, X, chosen


def test_a_shape_that_changes_with_quantized_weights_names_the_output() -> None:
    comparison = Comparison([Part("boxes", "relative_mse")])
    prepared = comparison.prepare(Outputs.of({"boxes": X}))
    with pytest.raises(ModelError, match="output 'boxes': an output's shape depends on its values"):
        comparison.errors(prepared, Outputs.of({"boxes": X[:, :3]}))
    with pytest.raises(ModelError, match="returned no output 'boxes' this time"):
        comparison.errors(prepared, Outputs.of({"other": X}))


def test_a_recorded_comparison_is_the_same_again() -> None:
    found = choose_comparison(Heads(lambda x: {"logits": 3 * x, "boxes": x}).eval(), [BATCH]).comparison
    again = comparison_from(found.settings())
    assert isinstance(again, Comparison)
    assert again.parts == found.parts
    assert isinstance(comparison_from({"metric": "kl_divergence", "probabilities": True}), KLDivergence)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([Part("a", "relative_mse", 7.0)], "combined"),
        ([Part("a", "relative_mse")], "relative_mse"),
        ([Part("a", "relative_mse", 1 / 3), Part("b", "relative_mse", 2 / 3)], "relative_mse"),
        ([Part("a", "relative_mse", 1.089), Part("b", "relative_mse", 12.01)], "combined"),
        ([Part("a", "relative_mse", 0.5), Part("b", "kl_divergence", 0.5)], "combined"),
    ],
)
def test_only_a_mean_of_one_metric_has_its_name(parts: list[Part], name: str) -> None:
    assert Comparison(parts).name == name


def test_relative_errors_keep_floors_and_leave_out_what_is_the_same_for_all_samples() -> None:
    found = by_relative_error(
        Comparison([Part("a", "kl_divergence", 3.0), Part("b", "relative_mse", 2.0, floor=0.5), Part("c", "cosine", 0.0)])
    )
    assert isinstance(found, Comparison)
    assert found.parts == (Part("a", "relative_mse", 0.5), Part("b", "relative_mse", 0.5, floor=0.5))
    assert found.name == "relative_mse"


@pytest.mark.parametrize("low", [-1e4, -1e9, torch.finfo(torch.float32).min, -math.inf])
def test_suppressed_classes_change_no_divergence_and_not_the_choice_of_it(low: float) -> None:
    masked = torch.cat([X, torch.full((32, 2), low)], 1)
    parts, notes = chosen(lambda x: masked)
    assert parts == [("output", "kl_divergence")]
    assert "looks like logits of 8 classes" in notes
    moved, metric = X + 0.1 * X.square(), KLDivergence()
    expected = metric.errors(metric.prepare([X]), [moved])
    found = metric.errors(metric.prepare([masked]), [torch.cat([moved, masked[:, 6:] * 1.01], 1)])
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_a_class_that_only_the_quantized_model_suppresses_is_no_finite_error() -> None:
    broken = X.clone()
    broken[3, 2] = -math.inf
    assert not torch.isfinite(KLDivergence().errors(KLDivergence().prepare([X]), [broken])[3])


@pytest.mark.parametrize("kind", [KLDivergence, RelativeMSE])
def test_padding_counts_in_no_error_and_no_projection(kind: type[KLDivergence] | type[RelativeMSE]) -> None:
    rows = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2))
    noise = 0.1 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(5).expand(4, 5) < torch.tensor([[5], [3], [2], [1]])
    padded = torch.where(mask.unsqueeze(-1), rows + noise, torch.full_like(rows, torch.nan))
    found = kind().errors(kind().prepare([rows], mask), [padded])
    for sample, length in enumerate((5, 3, 2, 1)):
        own = rows[sample : sample + 1, :length]
        alone = kind().errors(kind().prepare([own]), [own + noise[sample : sample + 1, :length]])
        assert float(found[sample]) == pytest.approx(float(alone), rel=1e-5)
    leaf = rows.clone().requires_grad_()
    kind().project(kind().prepare([rows], mask), [leaf], torch.Generator().manual_seed(4)).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert not leaf.grad[~mask].any()
    assert leaf.grad[mask].abs().min() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_the_mean_square_of_a_projection_is_the_error(masked: bool) -> None:
    rows = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(5))
    change = 1e-3 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(6))
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool() if masked else None
    comparison = Comparison([Part("a", "kl_divergence", 2.0), Part("b", "relative_mse", 0.5)])
    outputs, moved = Outputs.of({"a": rows, "b": rows[..., :2]}), Outputs.of({"a": rows + change, "b": (rows + change)[..., :2]})
    prepared = comparison.prepare(outputs, mask)
    expected = float(comparison.errors(prepared, moved).mean())
    generator, squares = torch.Generator().manual_seed(7), []
    for _ in range(2000):
        leaf = rows.clone().requires_grad_()
        comparison.project(prepared, Outputs.of({"a": leaf, "b": leaf[..., :2]}), generator).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        squares.append(float((leaf.grad * change).sum()) ** 2)
    assert sum(squares) / len(squares) == pytest.approx(expected, rel=0.1)


def test_where_an_answer_starts_padding_is_no_class() -> None:
    mask = torch.arange(6).expand(32, 6) < 4
    found = choose_comparison(Heads(lambda x: {"start_logits": x, "end_logits": -x}).eval(), [Batch((X,), mask=mask)]).comparison
    assert [part.mask for part in found.parts] == ["classes", "classes"]
    metric = found.metrics[0]
    error = metric.errors(metric.prepare([X], mask), [X + 5 * (~mask)])
    assert float(error.abs().max()) == pytest.approx(0, abs=1e-9)
