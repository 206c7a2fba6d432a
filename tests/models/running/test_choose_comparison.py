"""Which outputs are compared, and how, where the user did not say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import ModelError, UsageError
from mpq.models.running.choose_comparison import INTERMEDIATE, choose_comparison, compared_by_default
from mpq.models.running.forward import Outputs, forward
from mpq.models.running.metrics import RelativeMSE

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))


BATCH = Batch((X,))


class Heads(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor, **_: Any) -> Any:
        return self.make(x)


class Features(Heads):
    """Like `Heads`, and takes exactly six features, as a linear layer does."""

    def forward(self, x: Tensor, **_: Any) -> Any:
        if x.shape[-1] != 6:
            raise ValueError("mat1 and mat2 shapes cannot be multiplied")
        return self.make(x)


def chosen(make: Any, **options: Any) -> tuple[list[tuple[str, str]], str]:
    found = choose_comparison(Features(make).eval(), [BATCH], **options)
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
    with pytest.raises(UsageError, match=r"no output is named 'scores': the model returns logits, boxes.0, boxes.1, extra"):
        chosen(make, outputs=["scores"])
    with pytest.raises(UsageError, match="the weight in 'logits=-1' is not a positive number"):
        chosen(make, outputs=["logits=-1"])


def test_an_output_whose_rows_are_not_samples_is_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"output 'boxes' has shape \[7, 4\] for 32 samples.*choose others with --outputs \(logits\)"):
        chosen(lambda x: {"logits": 3 * x, "boxes": x[:7, :4]})


def test_a_silent_sample_does_not_outweigh_a_thousand() -> None:
    loud = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
    values = torch.cat([loud, torch.zeros(1, 8)])
    found = choose_comparison(Heads(lambda x: values).eval(), [Batch((torch.zeros(1001, 1),))], metric="relative_mse")
    assert "1 of 1001 samples have an output close to zero" in found.notes[-1]
    errors = found.comparison.errors(found.comparison.prepare([values]), [values + 0.01])
    assert float(errors[-1]) < float(errors[:-1].sum()) / 2
    assert float(errors[:-1].mean()) == pytest.approx(float(RelativeMSE().errors((loud,), [loud + 0.01]).mean()), rel=0.05)


def test_an_embedding_with_as_many_values_as_positions_is_not_masked() -> None:
    mask = torch.arange(6).expand(32, 6) < 4
    pooled = choose_comparison(Heads(lambda x: torch.ones(len(x), 6) * X.sum(1, keepdim=True)).eval(), [Batch((X,), mask=mask)])
    scores = choose_comparison(Heads(lambda x: 2 * x).eval(), [Batch((X,), mask=mask)], metric="relative_mse")
    assert [found.comparison.parts[0].mask for found in (pooled, scores)] == [None, "positions"]


def test_one_output_is_compared_as_it_is_and_the_reason_is_said() -> None:
    found = choose_comparison(Features(lambda x: 3 * x).eval(), [BATCH])
    (part,) = found.comparison.parts
    assert (part.output, part.metric, part.weight, part.floor) == ("output", "kl_divergence", 1.0, 1e-30)
    assert found.notes == ("metric kl_divergence: the output looks like logits of 6 classes; use --metric relative_mse if it is not",)


def test_a_metric_that_was_asked_for_is_used_for_every_output() -> None:
    parts, notes = chosen(lambda x: {"logits": 3 * x, "boxes": x}, metric="cosine")
    assert parts == [("logits", "cosine"), ("boxes", "cosine")]
    assert notes.startswith("metric cosine of output 'logits': as asked | metric cosine of output 'boxes': as asked | ")


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="kl_divergence"):
        chosen(lambda x: x, metric="distance")


@pytest.mark.parametrize("text", ["logits=0", "logits=inf", "logits=nan", "logits=x"])
def test_a_weight_is_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError) as error:
        chosen(lambda x: {"logits": x}, outputs=[text])
    assert str(error.value) == f"the weight in '{text}' is not a positive number: write for example logits=2"


def test_the_shares_of_several_outputs_are_said() -> None:
    _, notes = chosen(lambda x: {"a_logits": 3 * x, "b_logits": x}, outputs=["a_logits=3", "b_logits"])
    assert "each output's error is divided by the output's spread: a_logits 75%, kl_divergence times " in notes
    assert ", b_logits 25%, kl_divergence times " in notes


def test_an_output_that_is_the_same_for_all_samples_is_not_compared_and_named() -> None:
    found = choose_comparison(Heads(lambda x: {"logits": 3 * x, "bias": torch.ones_like(x)}).eval(), [BATCH])
    assert [part.weight > 0 for part in found.comparison.parts] == [True, False]
    assert found.notes[-1] == "bias: the same for all samples, so not compared"
    assert found.notes[-2].startswith("each output's error is divided by the output's spread: logits 100%, kl_divergence times ")


def test_a_tensor_that_is_returned_twice_counts_once() -> None:
    def twice(x: Tensor) -> Any:
        boxes = x[:, :4] + 1
        return {"boxes": boxes, "sizes": x[:, 4:] + 2, "detections": [boxes]}

    parts, notes = chosen(twice)
    assert parts == [("boxes", "relative_mse"), ("sizes", "relative_mse")]
    assert "boxes 50%" in notes
    assert "sizes 50%" in notes
    assert "output 'detections.0' is the same tensor as 'boxes', so it counts once" in notes
    assert "not compared" not in notes
    assert chosen(twice, outputs=["detections"])[0] == [("detections.0", "kl_divergence")]


def test_a_list_with_one_value_per_sample_is_refused_as_such() -> None:
    expected = (
        "output '0.boxes' belongs to a list with one value for each of 32 samples: wrap the model to return one tensor for all samples"
    )
    with pytest.raises(ModelError, match=expected):
        chosen(lambda x: [{"boxes": row[None], "scores": row[:1]} for row in x])
    with pytest.raises(ModelError, match=r"output 'found\.0\.boxes' belongs to a list"):
        chosen(lambda x: {"logits": x, "found": [{"boxes": row[None]} for row in x]})


def test_outputs_that_say_nothing_of_their_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="every output is the same for all samples, so no error can be measured"):
        choose_comparison(Heads(lambda x: {"a": torch.ones_like(x), "b": torch.zeros_like(x)}).eval(), [BATCH])
    with pytest.raises(ModelError, match="output 'output' is zero for every sample, so no error can be measured: give other data"):
        choose_comparison(Heads(torch.zeros_like).eval(), [BATCH], metric="relative_mse")


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ({"loss": (), "logits": (4, 3), "hidden_states.0": (4, 2)}, ["logits"]),
        ({"last_hidden_state": (4, 3), "pooler_output": (4, 2)}, ["last_hidden_state"]),
        ({"attentions.0": (4, 3), "attentions.1": (4, 3)}, ["attentions.0", "attentions.1"]),
        ({"decoder_last_hidden_state": (4, 3), "boxes": (4, 4), "scores": (4, 2)}, ["boxes", "scores"]),
        ({"loss": ()}, ["loss"]),
    ],
)
def test_outputs_that_others_are_made_of_count_only_where_there_are_no_others(shapes: dict[str, tuple[int, ...]], names: list[str]) -> None:
    assert compared_by_default({name: torch.zeros(shape) for name, shape in shapes.items()}) == names
    assert "pooler_output" in INTERMEDIATE


def test_an_output_without_rows_is_refused_where_there_is_no_other() -> None:
    with pytest.raises(ModelError) as error:
        chosen(lambda x: x.sum(), outputs=["output"])
    expected = "output 'output' has shape [] for 32 samples, so its rows are not samples; it cannot be compared: "
    assert str(error.value) == f"{expected}wrap the model to return an earlier tensor, or give a metric of your own"


def test_a_mask_holds_for_positions_if_the_output_has_fewer_for_shorter_samples() -> None:
    class Scores(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids * 2.0

    mask = torch.arange(6).expand(32, 6) < 4
    batch = Batch((torch.arange(192).reshape(32, 6),), mask=mask)
    assert choose_comparison(Scores().eval(), [batch], metric="relative_mse").comparison.parts[0].mask == "positions"


def test_infinite_values_that_masks_leave_are_named_and_count_in_no_error_floor_or_spread() -> None:
    def masked(x: Tensor) -> Any:
        hidden = x.masked_fill(BATCH.args[0] < 0, torch.inf)
        return {"distances": hidden.abs(), "boxes": x[:, :4] + 1}

    heads = Heads(masked).eval()
    comparison, notes = choose_comparison(heads, [BATCH])
    share = f"{100 * float((BATCH.args[0] < 0).float().mean()):.3g}%"
    assert [note for note in notes if "infinite" in note] == [
        f"{share} of the values of output 'distances' are infinite and are left out of every error. That is right for masks; "
        "if the model overflows instead, convert it to bf16 or fp32."
    ]
    assert all(0 < part.weight < 100 for part in comparison.parts)
    prepared = comparison.prepare(forward(heads, BATCH), None)
    assert comparison.errors(prepared, forward(heads, BATCH)).tolist() == [0.0] * BATCH.size
    with pytest.raises(ModelError, match="output 'output' is zero or infinite for every sample"):
        choose_comparison(Heads(lambda x: torch.full_like(x, torch.inf)).eval(), [BATCH], metric="relative_mse")


def test_outputs_without_values_are_left_out_and_named() -> None:
    parts, notes = chosen(lambda x: {"aux": x[:, :0], "score": x[:, :4], "none": torch.zeros(0), "found": torch.zeros(0, 4)})
    assert parts == [("score", "kl_divergence")]
    assert "outputs not compared: aux [32, 0], found [0, 4], none [0] without values" in notes
    assert "close to zero" not in notes
    with pytest.raises(ModelError) as error:
        chosen(lambda x: {"aux": x[:, :0], "score": x}, outputs=["aux"])
    assert str(error.value) == "aux [32, 0] without values, so nothing can be compared: choose others with --outputs (score)"
    with pytest.raises(ModelError, match=r"output \[32, 0\] without values, so nothing can be compared: wrap the model"):
        chosen(lambda x: x[:, :0])


def test_detections_that_only_the_first_batch_has_none_of_are_refused() -> None:
    heads = Heads(lambda x: {"boxes": x[x[:, 0] > 0], "score": x}).eval()
    with pytest.raises(ModelError, match=r"output 'boxes' has shape \[0, 6\] for 32 samples, so its rows are not samples"):
        choose_comparison(heads, [Batch((-X.abs(),)), BATCH])


def test_samples_without_a_direction_are_named_for_the_cosine() -> None:
    def silent(x: Tensor) -> Tensor:
        return x * (torch.arange(len(x)) >= 2)[:, None]

    _, notes = chosen(silent, metric="cosine")
    told = "output 'output' is all zeros or infinities in 2 of 32 samples, where the cosine is undefined; they count as distance 0"
    assert notes == f"metric cosine: as asked | {told}"
    assert chosen(lambda x: x, metric="cosine")[1] == "metric cosine: as asked"
    with pytest.raises(ModelError, match="output 'output' is zero for every sample, so no error can be measured: give other data"):
        chosen(torch.zeros_like, metric="cosine")
