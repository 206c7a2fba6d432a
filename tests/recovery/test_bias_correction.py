import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import data_from_batches
from mpq.recovery.bias_correction import correctable, corrections
from tests.models.small import bits, saved_and_loaded


def images(samples: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(samples, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + 0.5


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    module(images(256))  # statistics of its own
    return module.eval()


def halved(module: nn.Module, *names: str) -> dict[str, Tensor]:
    """Weights that are off by much."""
    return {name: module.state_dict()[name] * 0.5 for name in names}


def test_a_bias_takes_up_the_mean_shift_of_its_layer() -> None:
    torch.manual_seed(0)
    module, inputs = nn.Linear(3, 5).eval(), torch.randn(40, 3) + 1
    found = corrections(module, halved(module, "weight"), data_from_batches(list(torch.split(inputs, 16))))
    assert list(found) == ["bias"]
    torch.testing.assert_close(found["bias"], module.bias.detach() + (inputs @ module.weight.detach().T * 0.5).mean(0))


def test_batch_norm_statistics_follow_their_inputs() -> None:
    module = convolutional()
    found = corrections(module, halved(module, "0.weight"), data_from_batches([images()]))
    state = module.state_dict()
    halves_mean = state["1.running_mean"] / 2
    torch.testing.assert_close(found["1.running_mean"], halves_mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found["1.running_var"], state["1.running_var"] / 4, rtol=1e-3, atol=1e-5)


def test_later_layers_are_corrected_after_earlier_ones() -> None:
    """Half of the weights under corrected statistics give the reference's own values, so nothing is left for the head's bias."""
    module = convolutional()
    found = corrections(module, halved(module, "0.weight"), data_from_batches([images()]))
    torch.testing.assert_close(found["4.bias"], module.state_dict()["4.bias"], rtol=0, atol=1e-3)


def test_unchanged_weights_leave_everything_as_it_is() -> None:
    module = convolutional()
    found = corrections(module, {"0.weight": module.state_dict()["0.weight"].clone()}, data_from_batches([images()]))
    assert set(found) == {"1.running_mean", "1.running_var", "4.bias"}
    for name, value in found.items():
        torch.testing.assert_close(value, module.state_dict()[name])


@pytest.mark.parametrize("kind", ["exported", "traced", "loaded"])
def test_programs_are_corrected_like_modules(kind: str) -> None:
    module = convolutional()
    other: nn.Module
    if kind == "exported":
        other = torch.export.export(module, (images(),)).module(check_guards=False)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, (images(),))  # type: ignore[no-untyped-call]
            other = saved_and_loaded(traced) if kind == "loaded" else traced
    data = data_from_batches([images()])
    expected = corrections(module, halved(module, "0.weight"), data)
    found = corrections(other, halved(other, "0.weight"), data)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_module_is_left_as_it_was() -> None:
    module = convolutional()
    before = bits(module)
    corrections(module, halved(module, "0.weight", "4.weight"), data_from_batches([images()]))
    assert bits(module) == before


def test_a_model_without_biases_has_nothing_to_correct() -> None:
    module = nn.Linear(3, 5, bias=False).eval()
    assert corrections(module, halved(module, "weight"), data_from_batches([torch.randn(4, 3)])) == {}


class Routed(nn.Module):
    """Which rows reach the second layer depends on the first one's sign."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.one, self.other = nn.Linear(3, 1), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x)[:, 0] > 0
        found: Tensor = self.other(x)
        found[chosen] = self.one(x[chosen])
        return found


def test_a_bias_that_met_other_rows_is_left_alone() -> None:
    torch.manual_seed(0)
    module = Routed().eval()
    changed = copy.deepcopy(module.state_dict())
    found = corrections(module, {"gate.weight": -2 * changed["gate.weight"]}, data_from_batches([torch.randn(33, 3)]))
    assert set(found) == {"gate.bias", "other.bias"}


def test_statistics_keep_their_dtype() -> None:
    module = convolutional().to(torch.bfloat16)
    found = corrections(module, halved(module, "0.weight"), data_from_batches([images().bfloat16()]))
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(8, 4), True),
        (nn.Linear(8, 4, bias=False), False),
        (nn.Sequential(nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4)), True),
        (nn.Sequential(nn.Linear(8, 4, bias=False), nn.LayerNorm(4)), False),
    ],
)
def test_models_without_biases_and_statistics_have_nothing_to_correct(module: nn.Module, expected: bool) -> None:
    assert correctable(module.eval(), data_from_batches([torch.randn(4, 8)])) == expected
