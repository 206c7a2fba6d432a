import torch
from torch import Tensor, nn

from mpq.activations.calibrate import calibrate
from tests.activations.networks import batches, images, layers_of, residual


def test_one_pass_gives_each_tensor_its_histogram() -> None:
    module, first, second = residual(), images(), images(3, seed=2)
    found, notes = calibrate(module, batches(first, second), layers_of(module, first))
    assert notes == []
    by_name = {each.candidate.name: each for each in found}
    assert by_name["first"].histograms[0].values == 7 * 72
    both = torch.cat([first, second])
    assert by_name["first"].histograms[0].high == float(both.max())
    with torch.no_grad():
        relu = module.norm(module.first(both)).relu()  # type: ignore[operator]
    assert by_name["second"].histograms[0].high == float(relu.max())
    assert by_name["second"].histograms[0].values == relu.numel()  # read twice, counted once


def test_constant_and_broken_tensors_stay_in_floating_point() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x * 0) + self.c(x / (x - 1)).nan_to_num()  # type: ignore[no-any-return]

    module, x = Odd().eval(), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found, notes = calibrate(module, batches(x), layers_of(module, x))
    assert [each.candidate.name for each in found] == ["a"]
    assert notes == [
        "activations of b stay in floating point: a tensor is 0 everywhere on the calibration data",
        "activations of c stay in floating point: 1 values are NaN or infinite on the calibration data",
    ]


def test_outliers_are_told() -> None:
    module, x = nn.Linear(2, 2).eval(), torch.full((2000, 2), 0.1)
    x[:, 0] = torch.linspace(-1, 1, 2000)
    x[0, 1] = 100.0
    _, notes = calibrate(module, batches(x), layers_of(module, x))
    assert len(notes) == 1
    assert "times the 99.9th percentile, so few of the 256 levels are left for the others" in notes[0]


def test_a_model_that_runs_other_operators_for_other_batches_keeps_floating_point() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.a(x)) if float(x.sum()) > 0 else self.a(x)  # type: ignore[no-any-return]

    module, x = Branches().eval(), torch.ones(2, 2)
    found, notes = calibrate(module, batches(x, -x), layers_of(module, x))
    assert found == []
    assert notes == [
        "activations: the model runs other operators from batch to batch, so its tensors cannot be told apart and stay in floating point"
    ]
