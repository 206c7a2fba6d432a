import pytest
import torch
from torch import Tensor

from mpq.errors import UsageError
from mpq.models.running import logits
from mpq.models.running.comparison import metric_named
from mpq.models.running.metric_registry import METRICS
from mpq.models.running.metrics import CosineDistance, KLDivergence, Metric, RelativeMSE, has_direction
from tests.models.small import inputs


def errors(metric: Metric, reference: list[Tensor], outputs: list[Tensor]) -> Tensor:
    return metric.errors(metric.prepare(reference), outputs)


def kl(reference: Tensor, output: Tensor) -> Tensor:
    """In float64, by its definition, mean over positions."""
    p, q = torch.log_softmax(reference.double(), -1), torch.log_softmax(output.double(), -1)
    by_position = (p.exp() * (p - q)).sum(-1)
    return by_position.reshape(len(by_position), -1).mean(-1)


@pytest.mark.parametrize("shape", [(6, 10), (6, 7, 10), (6, 2, 3, 10)])
@pytest.mark.parametrize("noise", [1e-2, 0.3, 3.0])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_kl_divergence_is_that_of_float64(shape: tuple[int, ...], noise: float, offset: float) -> None:
    reference = 4 * inputs(*shape)
    output = reference + noise * inputs(*shape, seed=2)
    found = errors(KLDivergence(), [reference + offset], [output - offset])
    assert found.dtype == torch.float64
    tolerance = 2e-6 if offset == 0 else 3e-4  # adding the offset itself rounds the logits
    assert torch.allclose(found, kl(reference, output), rtol=1e-4 if offset == 0 else 1e-2, atol=tolerance)


def test_kl_divergence_of_probabilities_is_that_of_their_logits() -> None:
    reference, output = inputs(6, 10), inputs(6, 10, seed=2)
    found = errors(KLDivergence(probabilities=True), [reference.softmax(-1)], [output.softmax(-1)])
    assert torch.allclose(found, kl(reference, output), rtol=1e-4, atol=1e-6)
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert errors(KLDivergence(probabilities=True), [certain], [certain]).abs().item() < 1e-6


def test_kl_divergence_of_thousands_of_classes_and_16_bits_stays_near_float64() -> None:
    reference = (5 * inputs(4, 20_000)).bfloat16()
    output = (reference + 0.1 * inputs(4, 20_000, seed=2)).bfloat16()
    assert torch.allclose(errors(KLDivergence(), [reference], [output]), kl(reference, output), rtol=1e-3, atol=5e-6)


@pytest.mark.parametrize("suppressed", [False, True])
@pytest.mark.parametrize("over_positions", [False, True])
@pytest.mark.parametrize("piece", [1, 3 * 10 * 4])
def test_a_few_positions_at_a_time_give_the_same_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, piece: int, over_positions: bool, suppressed: bool
) -> None:
    reference, output = inputs(3, 10, 10), inputs(3, 10, 10, seed=2)
    mask = torch.arange(10).expand(3, 10) < torch.tensor([[10], [7], [2]])
    if suppressed:
        reference[1, 8, 3] = -torch.inf
    metric = KLDivergence(over_positions=over_positions)
    expected = metric.prepare([reference], mask)
    errors = metric.errors(expected, [output])
    monkeypatch.setattr(logits, "PIECE", piece)
    found = metric.prepare([reference], mask)
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(metric.errors(found, [output]), errors)


def test_only_the_first_output_counts_for_logits() -> None:
    reference, other = inputs(6, 10), inputs(6, 3)
    assert torch.equal(
        errors(KLDivergence(), [reference, other], [reference * 2, other * 9]), errors(KLDivergence(), [reference], [reference * 2])
    )


def test_relative_mse_is_that_of_float64_mean_over_outputs() -> None:
    reference, output = [inputs(5, 4, 3), inputs(5, 7) * 1e3], [inputs(5, 4, 3, seed=2), inputs(5, 7, seed=3)]
    shares = [
        (o.double() - r.double()).square().reshape(5, -1).sum(-1) / r.double().square().reshape(5, -1).sum(-1)
        for r, o in zip(reference, output, strict=True)
    ]
    assert torch.allclose(errors(metric_named("relative_mse"), reference, output), torch.stack(shares).mean(0), rtol=1e-6)


def test_top1_is_the_share_of_positions_that_changed() -> None:
    reference = torch.eye(4).expand(2, 4, 4)
    output = reference.clone()
    output[1, 0] = torch.tensor([0.0, 0.0, 2.0, 0.0])
    assert errors(metric_named("top1"), [reference], [output]).tolist() == [0.0, 0.25]


def test_cosine_is_the_distance_of_all_outputs_together() -> None:
    reference, output = [inputs(5, 4), inputs(5, 7)], [inputs(5, 4, seed=2), inputs(5, 7, seed=3)]
    a, b = torch.cat(reference, 1).double(), torch.cat(output, 1).double()
    expected = 1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    assert torch.allclose(errors(metric_named("cosine"), reference, output), expected)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 50.0])
def test_equal_outputs_have_no_error(name: str, scale: float) -> None:
    outputs = [scale * inputs(16, 5, 100)]
    found = errors(metric_named(name), outputs, outputs)
    assert found.shape == (16,)
    assert found.abs().max().item() < (1e-15 if name == "cosine" else 1e-300)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_output_that_is_not_finite_is_no_finite_error_and_the_other_samples_keep_theirs(name: str, bad: float) -> None:
    reference, output = inputs(4, 10), inputs(4, 10, seed=2)
    expected = errors(metric_named(name), [reference], [output])
    output[2, 3] = bad
    found = errors(metric_named(name), [reference], [output])
    assert not torch.isfinite(found[2])
    kept = [0, 1, 3]
    assert torch.allclose(found[kept], expected[kept])


@pytest.mark.parametrize("name", METRICS)
def test_outputs_are_not_changed_by_measuring(name: str) -> None:
    reference, output = inputs(4, 10), inputs(4, 10, seed=2)
    errors(metric_named(name), [reference], [output])
    assert torch.equal(reference, inputs(4, 10))
    assert torch.equal(output, inputs(4, 10, seed=2))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        metric_named("bleu")
    assert str(error.value) == f"'bleu' is not a metric: use one of {', '.join(METRICS)}"


@pytest.mark.parametrize("metric", [RelativeMSE(), CosineDistance()])
def test_values_that_are_infinite_in_both_models_count_in_no_error(metric: RelativeMSE | CosineDistance) -> None:
    reference, found = (
        torch.tensor([[3.0, 4.0, torch.inf], [1.0, -torch.inf, 2.0]]),
        torch.tensor([[3.0, 3.0, torch.inf], [1.0, -torch.inf, 2.0]]),
    )
    prepared = metric.prepare([reference])
    errors = metric.errors(prepared, [found])
    plain = metric.errors(metric.prepare([torch.tensor([[3.0, 4.0]])]), [torch.tensor([[3.0, 3.0]])])
    torch.testing.assert_close(errors, torch.tensor([float(plain[0]), 0.0], dtype=torch.float64))
    assert not bool(torch.isfinite(metric.errors(prepared, [torch.zeros(2, 3)])).any())  # not infinite any more
    assert bool(torch.isnan(metric.errors(metric.prepare([reference * torch.nan]), [found])).all())


def test_small_outputs_have_their_cosine_and_those_without_a_direction_none() -> None:
    reference = torch.tensor([[1e-20, 0.0], [0.0, 0.0], [torch.inf, 0.0], [1.0, 0.0], [0.0, 0.0]])
    found = torch.tensor([[1e-20, 1e-20], [1.0, 2.0], [torch.inf, 3.0], [0.0, 0.0], [torch.inf, 0.0]])
    expected = torch.tensor([1 - 0.5**0.5, 0.0, 0.0, 1.0, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(errors(CosineDistance(), [reference], [found]), expected, equal_nan=True, rtol=1e-12, atol=1e-15)
    assert has_direction(reference).tolist() == [True, False, False, True, False]
    assert errors(CosineDistance(), [torch.zeros(3, 0)], [torch.zeros(3, 0)]).tolist() == [0.0] * 3
