import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Batch, data_from_batches
from mpq.errors import DataError, NumericsError
from mpq.models.sources.load import from_module
from tests.models.small import inputs, mlp, tied, up_and_down


def changed(module: nn.Module, seed: int = 3) -> nn.Module:
    """A copy with noise on every matrix."""
    made, generator = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


X, LABELS = inputs(20, 8), torch.arange(20) % 4


def outputs(module: nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(x)
    return found.double()


def test_a_classifier_is_compared_with_its_reference_and_with_the_labels() -> None:
    before, after = mlp(), changed(mlp())
    found = mpq.evaluate(before, after, [(X[:12], LABELS[:12]), (X[12:], LABELS[12:])])
    names = ["kl_divergence", "kl_q95", "kl_max", "top1_agreement", "relative_mse", "cosine_similarity", "accuracy", "loss"]
    assert [figure.name for figure in found.figures] == names
    p, q = torch.log_softmax(outputs(before), -1), torch.log_softmax(outputs(after), -1)
    kl = (p.exp() * (p - q)).sum(-1)
    assert found["kl_divergence"].quantized == pytest.approx(kl.mean().item(), rel=1e-3)
    assert found["kl_divergence"].stderr == pytest.approx(kl.std().item() / math.sqrt(20), rel=1e-3)
    assert found["kl_q95"].quantized == pytest.approx(torch.quantile(kl, 0.95).item(), rel=1e-3)
    assert found["kl_max"].quantized == pytest.approx(kl.max().item(), rel=1e-3)
    same = (outputs(before).argmax(-1) == outputs(after).argmax(-1)).double().mean().item()
    assert found["top1_agreement"].quantized == pytest.approx(same)
    for part, logs, module in (("reference", p, before), ("quantized", q, after)):
        right = (outputs(module).argmax(-1) == LABELS).double().mean().item()
        assert getattr(found["accuracy"], part) == pytest.approx(right)
        assert getattr(found["loss"], part) == pytest.approx(-logs.gather(-1, LABELS[:, None]).mean().item(), rel=1e-5)
    assert (found.samples, found.source) == (20, "memory")


def test_a_model_equals_itself() -> None:
    found = mpq.evaluate(mlp(), mlp(), [X])
    exact = {figure.name: figure.quantized for figure in found.figures}
    assert exact.pop("top1_agreement") == 1.0
    assert exact.pop("cosine_similarity") == pytest.approx(1.0)
    assert set(exact) == {"kl_divergence", "kl_q95", "kl_max", "relative_mse"}
    assert not any(exact.values())


def test_a_language_model_is_scored_on_its_own_next_tokens() -> None:
    tokens = torch.randint(0, 11, (6, 7), generator=torch.Generator().manual_seed(0))
    before, after = tied(), changed(tied())
    found = mpq.evaluate(before, after, [tokens])
    logs = torch.log_softmax(outputs(after, tokens)[:, :-1], -1)
    loss = -logs.gather(-1, tokens[:, 1:, None]).mean().item()
    assert found["loss"].quantized == pytest.approx(loss, rel=1e-5)
    assert found["perplexity"].quantized == pytest.approx(math.exp(loss), rel=1e-5)
    right = (logs.argmax(-1) == tokens[:, 1:]).double().mean().item()
    assert found["accuracy"].quantized == pytest.approx(right)


def test_ignored_labels_are_not_counted() -> None:
    labels = LABELS.clone()
    labels[5:] = -100
    data = data_from_batches([Batch((X,), {}, labels)])
    found, expected = mpq.evaluate(mlp(), changed(mlp()), data), mpq.evaluate(mlp(), changed(mlp()), [(X[:5], LABELS[:5])])
    for name in ("accuracy", "loss"):
        assert found[name].quantized == pytest.approx(expected[name].quantized)


class Taught(nn.Module):
    """Gives its logits only together with labels, like T5, whose decoder reads them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        before = torch.cat([tokens[:, :1], labels[:, :-1].clamp(min=0)], 1)
        logits = self.head(self.words(before) + self.words(tokens).mean(1, keepdim=True))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


@pytest.mark.parametrize("by_name", [True, False])
def test_labels_that_the_model_takes_as_an_input_say_which_positions_count(by_name: bool) -> None:
    before, after = Taught().eval(), changed(Taught().eval())
    tokens, labels = torch.arange(60).reshape(12, 5) % 8, torch.arange(48).reshape(12, 4) % 7
    labels[::2, 2:] = -100
    found = mpq.evaluate(before, after, [{"tokens": tokens, "labels": labels} if by_name else (tokens, labels)])
    kept = labels != -100
    with torch.no_grad():
        p, q = (torch.log_softmax(one(tokens, labels)["logits"].double(), -1) for one in (before, after))
        losses = [float(one(tokens, labels)["loss"]) for one in (before, after)]
    kl = (p.exp() * (p - q)).sum(-1)
    expected = ((kl * kept).sum(1) / kept.sum(1)).mean().item()
    assert found["kl_divergence"].quantized == pytest.approx(expected, rel=1e-3)
    assert [found["loss"].reference, found["loss"].quantized] == pytest.approx(losses, rel=1e-5)


def test_probabilities_are_scored_as_probabilities() -> None:
    before, after = (nn.Sequential(module, nn.Softmax(-1)).eval() for module in (mlp(), changed(mlp())))
    found, logits = mpq.evaluate(before, after, [(X, LABELS)]), mpq.evaluate(mlp(), changed(mlp()), [(X, LABELS)])
    for name in ("kl_divergence", "loss"):
        assert found[name].quantized == pytest.approx(logits[name].quantized, rel=1e-3)


def test_outputs_that_are_no_logits_have_distances_only() -> None:
    x = inputs(6, 2, 6, 6)
    found = mpq.evaluate(up_and_down(), changed(up_and_down()), [x])
    assert [figure.name for figure in found.figures] == ["relative_mse", "cosine_similarity"]
    a, b = outputs(up_and_down(), x).flatten(1), outputs(changed(up_and_down()), x).flatten(1)
    share = (a - b).square().sum(-1) / a.square().sum(-1)
    assert found["relative_mse"].quantized == pytest.approx(share.mean().item(), rel=1e-4)
    assert found["cosine_similarity"].quantized == pytest.approx(torch.cosine_similarity(a, b).mean().item(), rel=1e-5)


class Boxes(nn.Module):
    """Boxes, one score, and an output that is the same for all samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.boxes, self.score = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"boxes": 5 * self.boxes(x) + 9, "score": self.score(x), "anchors": self.score.weight.expand(len(x), 8)}


def test_several_outputs_are_also_compared_together_each_divided_by_its_spread() -> None:
    before, after = Boxes().eval(), changed(Boxes()).eval()
    found = mpq.evaluate(before, after, [X])
    combined, relative = [], []
    for name in ("boxes", "score"):
        with torch.no_grad():
            a, b = before(X)[name].double(), after(X)[name].double()
        power = a.square().sum(-1)
        power = power.clamp(min=0.01 * power.quantile(0.75).item())
        relative.append(((a - b).square().sum(-1) / power).mean().item())
        spread = ((a - a.mean(0)).square().sum(-1) / power).mean().item()
        combined.append(0.5 * relative[-1] / spread)
        assert found[f"{name}.relative_mse"].quantized == pytest.approx(relative[-1], rel=1e-4)
    assert found["combined"].quantized == pytest.approx(sum(combined), rel=1e-4)
    assert found["relative_mse"].quantized == pytest.approx(sum(relative) / 2, rel=1e-4)
    names = [figure.name for figure in found.figures]
    assert "boxes.cosine_similarity" in names
    assert "score.cosine_similarity" not in names  # of single values it is 1 or -1
    assert found["cosine_similarity"].quantized == found["boxes.cosine_similarity"].quantized


class Listed(Boxes):
    """The same boxes and scores as a list with a dict for each sample."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:  # type: ignore[override]
        found = super().forward(x)
        return [{"boxes": found["boxes"][row], "score": found["score"][row]} for row in range(len(x))]


class Inner(Boxes):
    """The same, with a list of boxes for each sample within a dict."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        found = super().forward(x)
        return {"boxes": list(found["boxes"]), "score": found["score"]}


def test_a_list_with_one_value_for_each_sample_is_compared_like_tensors_with_one_row_for_each() -> None:
    tensors = mpq.evaluate(Boxes().eval(), changed(Boxes()).eval(), [X], outputs=["boxes", "score"])
    for kind, data in itertools.product((Listed, Inner), ([X], list(torch.split(X, 3)))):
        found = mpq.evaluate(kind().eval(), changed(kind()).eval(), data)
        for figure in found.figures:
            assert figure.quantized == pytest.approx(tensors[figure.name].quantized, rel=1e-5)
        assert "combined" in {figure.name for figure in found.figures}


class Gated(nn.Module):
    """One output is zero for samples whose first value is negative, and one has no values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.linear(x).abs()
        return {"gated": found.where(x[:, :1] >= 0, 0.0), "plain": found, "empty": found[:, :0]}


def test_samples_without_a_direction_are_left_out_of_the_cosine_and_counted() -> None:
    before, after = Gated().eval(), changed(Gated()).eval()
    found = mpq.evaluate(before, after, [X])
    missing = int((X[:, 0] < 0).sum())
    assert 0 < missing < 20
    with torch.no_grad():
        plain = torch.cosine_similarity(before(X)["plain"].double(), after(X)["plain"].double())
    gated = plain[X[:, 0] >= 0]
    assert found["gated.cosine_similarity"].quantized == pytest.approx(gated.mean().item(), rel=1e-6)
    assert found["gated.cosine_similarity"].stderr == pytest.approx((gated.std() / len(gated) ** 0.5).item(), rel=1e-4)
    assert found["cosine_similarity"].quantized == pytest.approx(plain.mean().item(), rel=1e-6)
    told = f"output 'gated' is all zeros or infinities in {missing} of 20 samples, where the cosine is undefined; they are left out"
    assert found.notes == (told,)
    assert found.to_dict()["notes"] == list(found.notes)
    assert not {name for name in (figure.name for figure in found.figures) if name.startswith("empty")}


def test_batches_make_no_difference() -> None:
    whole, parts = (mpq.evaluate(mlp(), changed(mlp()), list(torch.split(X, size))) for size in (20, 3))
    for one, other in zip(whole.figures, parts.figures, strict=True):
        assert one.quantized == pytest.approx(other.quantized, rel=1e-4)


def test_progress_is_told_after_each_batch() -> None:
    calls: list[tuple[int, int, str]] = []
    data = data_from_batches(list(torch.split(X, 8)))
    mpq.evaluate(from_module(mlp()), mlp(), data, on_progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "evaluate"), (2, 3, "evaluate"), (3, 3, "evaluate")]


def test_an_output_that_is_not_finite_is_refused() -> None:
    broken = mlp()
    with torch.no_grad():
        broken.get_parameter("5.bias").fill_(float("inf"))
    with pytest.raises(NumericsError) as error:
        mpq.evaluate(mlp(), broken, [X])
    assert str(error.value) == "the quantized model gives NaN or infinity on this data: check the data's scale"


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"float32 \[\d+, 9\]"):
        mpq.evaluate(mlp(), mlp(), data_from_batches([inputs(4, 9)]))


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_data_on_which_the_reference_is_nearly_certain_is_told(scale: float) -> None:
    sharp = mlp()
    with torch.no_grad():
        last = [module for module in sharp.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.mul_(scale)
    found = mpq.evaluate(sharp, sharp, [X])
    assert (found.caution is not None) == (scale > 1)
    if found.caution is not None:
        assert found.caution.endswith("divergences on other data will be larger; evaluate on validation data")
        assert found.to_dict()["caution"] == found.caution
    else:
        assert "caution" not in found.to_dict()
