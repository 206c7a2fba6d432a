import pytest
import torch

from mpq.models.running import logits as found
from mpq.models.running.logits import allowed_classes, by_position, centred, cross, joined, log_likelihoods, parts_of


def test_an_output_of_one_position_has_one() -> None:
    assert by_position(torch.zeros(3, 5)).shape == (3, 1, 5)
    assert by_position(torch.zeros(3, 2, 4, 5)).shape == (3, 8, 5)


def test_parts_cover_every_position_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "PIECE", 2 * 5 * 3)
    assert parts_of(torch.zeros(2, 7, 5)) == [slice(0, 3), slice(3, 6), slice(6, 9)]
    assert parts_of(torch.zeros(2, 0, 5)) == [slice(0, 0)]


def test_suppressed_classes_are_a_thousand_nats_below_the_largest() -> None:
    allowed = allowed_classes(torch.tensor([[0.0, -999.0, -1001.0], [0.0, 1.0, 2.0]]))
    assert allowed is not None
    assert allowed.tolist() == [[True, True, False], [True, True, True]]
    assert allowed_classes(torch.tensor([[0.0, -5.0]])) is None
    assert allowed_classes(torch.tensor([[0.0, torch.nan, -1e9]])) is None


def test_classes_of_all_parts_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "PIECE", 1)
    output = torch.zeros(1, 2, 2)
    some = torch.tensor([[[True, False]]])
    whole = joined([None, some], output)
    assert whole is not None
    assert whole.tolist() == [[[True, True], [True, False]]]
    assert joined([None, None], output) is None


def test_only_differences_of_allowed_classes_matter() -> None:
    values, allowed = torch.tensor([[[1.0, 3.0, -1e9]]]), torch.tensor([[[True, True, False]]])
    assert centred(values, allowed).tolist() == [[[-1.0, 1.0, 0.0]]]
    assert centred(torch.tensor([[[1.0, 3.0]]]), None).tolist() == [[[-1.0, 1.0]]]


def test_the_expected_log_probability_is_minus_the_entropy_of_equal_logits() -> None:
    equal = torch.zeros(1, 1, 4)
    assert cross(torch.full((1, 1, 4), 0.25), equal, None).item() == pytest.approx(-torch.tensor(4.0).log().item())
    allowed = torch.tensor([[[True, True, False, False]]])
    assert cross(torch.tensor([[[0.5, 0.5, 0.0, 0.0]]]), equal, allowed).item() == pytest.approx(-torch.tensor(2.0).log().item())


def test_log_likelihoods_are_of_probabilities_or_of_logits() -> None:
    shares = torch.tensor([[0.25, 0.75, 0.0]])
    assert torch.equal(log_likelihoods(shares, probabilities=True), torch.tensor([[0.25, 0.75, 1e-30]]).log())
    assert torch.allclose(log_likelihoods(shares.log(), probabilities=False), shares.log())
