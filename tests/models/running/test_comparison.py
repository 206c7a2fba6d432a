import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import ModelError, UsageError
from mpq.models.running.choose_comparison import choose_comparison
from mpq.models.running.comparison import Comparison, Part, comparison_from
from mpq.models.running.forward import Outputs, forward
from mpq.models.running.metrics import KLDivergence, RelativeMSE

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
BATCH = Batch((X,))


class Heads(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor, **_: Any) -> Any:
        return self.make(x)


def chosen(make: Any, **options: Any) -> tuple[list[tuple[str, str]], str]:
    found = choose_comparison(Heads(make).eval(), [BATCH], **options)
    return [(part.output, part.metric) for part in found.comparison.parts], " | ".join(found.notes)


def test_every_output_counts_by_its_own_metric_and_an_equal_share_of_its_spread() -> None:
    found = choose_comparison(Heads(lambda x: {"logits": 3 * x, "pred_boxes": x[:, :4] + 1}).eval(), [BATCH]).comparison
    assert [(part.output, part.metric) for part in found.parts] == [("logits", "kl_divergence"), ("pred_boxes", "relative_mse")]
    outputs = forward(Heads(lambda x: {"logits": 3 * x, "pred_boxes": x[:, :4] + 1}).eval(), BATCH)
    prepared = found.prepare(outputs)
    blind = Outputs.of({"logits": torch.softmax(3 * X, -1).mean(0).log().expand(32, 6), "pred_boxes": (X[:, :4] + 1).mean(0).expand(32, 4)})
    assert found.errors_by_part(prepared, blind).mean(1).tolist() == pytest.approx([0.5, 0.5], rel=1e-4)
    assert float(found.errors(prepared, outputs).abs().max()) == 0


def test_what_other_outputs_are_made_of_is_left_out_and_named() -> None:
    parts, notes = chosen(lambda x: {"logits": 3 * x, "hidden_states": (x, x), "encoder_last_hidden_state": x})
    assert parts == [("logits", "kl_divergence")]
    assert "outputs not compared: hidden_states.0, hidden_states.1, encoder_last_hidden_state" in notes
    parts, notes = chosen(lambda x: {"last_hidden_state": x.unsqueeze(1), "pooler_output": x.tanh()})
    assert parts == [("last_hidden_state", "relative_mse")]
    assert "outputs not compared: pooler_output" in notes


def test_complex_outputs_are_never_taken_for_logits_and_whole_numbers_are_named() -> None:
    parts, notes = chosen(lambda x: {"logits": 3 * x, "spectrum": torch.fft.fft(x), "ids": x.argmax(-1)})
    assert parts == [("logits", "kl_divergence"), ("spectrum", "relative_mse")]
    assert "metric relative_mse of output 'spectrum': complex numbers, compared by their real and imaginary parts" in notes
    assert "outputs not compared: ids (whole numbers or booleans)" in notes
    assert chosen(lambda x: torch.complex(x, x))[0] == [("output", "relative_mse")]


def test_outputs_are_chosen_by_name_glob_and_weight() -> None:
    make = lambda x: {"logits": 3 * x, "boxes": (x, 2 * x), "extra": x}  # noqa: E731
    assert [name for name, _ in chosen(make, outputs=["boxes", "lo*"])[0]] == ["boxes.0", "boxes.1", "logits"]
    found = choose_comparison(Heads(make).eval(), [BATCH], outputs=["boxes.0=3", "boxes.1"]).comparison
    assert found.parts[0].weight == pytest.approx(3 * found.parts[1].weight, rel=1e-4)
    with pytest.raises(UsageError, match=r"no output is called 'scores': the model returns logits, boxes.0, boxes.1, extra"):
        chosen(make, outputs=["scores"])
    with pytest.raises(UsageError, match="the weight in 'logits=-1' is not a positive number"):
        chosen(make, outputs=["logits=-1"])


def test_an_output_whose_rows_are_not_samples_is_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"output 'boxes' has shape \[7, 4\] for 32 samples.*choose others with --outputs \(logits\)"):
        chosen(lambda x: {"logits": 3 * x, "boxes": x[:7, :4]})


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


def test_a_silent_sample_does_not_outweigh_a_thousand() -> None:
    loud = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
    values = torch.cat([loud, torch.zeros(1, 8)])
    found = choose_comparison(Heads(lambda x: values).eval(), [Batch((torch.zeros(1001, 1),))], metric="relative_mse")
    assert "1 of 1001 samples have an output of nearly zero" in found.notes[-1]
    errors = found.comparison.errors(found.comparison.prepare([values]), [values + 0.01])
    assert float(errors[-1]) < float(errors[:-1].sum()) / 2
    assert float(errors[:-1].mean()) == pytest.approx(float(RelativeMSE().errors((loud,), [loud + 0.01]).mean()), rel=0.05)


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


def test_an_embedding_with_as_many_values_as_positions_is_not_masked() -> None:
    mask = torch.arange(6).expand(32, 6) < 4
    pooled = choose_comparison(Heads(lambda x: torch.ones(len(x), 6) * X.sum(1, keepdim=True)).eval(), [Batch((X,), mask=mask)])
    scores = choose_comparison(Heads(lambda x: 2 * x).eval(), [Batch((X,), mask=mask)], metric="relative_mse")
    assert [found.comparison.parts[0].mask for found in (pooled, scores)] == [None, "positions"]


def test_where_an_answer_starts_padding_is_no_class() -> None:
    mask = torch.arange(6).expand(32, 6) < 4
    found = choose_comparison(Heads(lambda x: {"start_logits": x, "end_logits": -x}).eval(), [Batch((X,), mask=mask)]).comparison
    assert [part.mask for part in found.parts] == ["classes", "classes"]
    metric = found.metrics[0]
    error = metric.errors(metric.prepare([X], mask), [X + 5 * (~mask)])
    assert float(error.abs().max()) == pytest.approx(0, abs=1e-9)
