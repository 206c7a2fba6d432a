import pytest
import torch
from torch import nn

from mpq.activations.trace import trace
from tests.activations.networks import batches, images, layers_of, residual


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("form", ["module", "in place", "export", "script"])
def test_every_form_of_a_model_has_the_same_readers(form: str) -> None:
    module = residual(inplace=form == "in place")
    layers = layers_of(module, images())
    if form == "export":
        module = torch.export.export(module, (images(),)).module()
    if form == "script":
        module = torch.jit.trace(module, images())  # type: ignore[no-untyped-call]
    found = trace(module, batches(images())[0], layers)
    assert dict(found.counts) == {"conv": 4, "add": 1, "cat": 1, "average": 1, "linear": 1}
    assert found.layers == {"conv.0": "first", "conv.1": "second", "conv.2": "left", "conv.3": "right", "linear.0": "head"}
    assert [source.readers for source in found.sources if source.readers] == [
        ["conv.0"],
        ["conv.1", "add.0.1"],
        ["add.0.0"],
        ["conv.2", "conv.3"],
        ["cat.0.0"],
        ["cat.0.1"],
        ["average.0"],
        ["linear.0"],
    ]
    assert found.work["linear.0"] == 4 * 5 * 3
    assert found.work["conv.1"] == 4 * 36 * 4 * 36


def test_maximum_pooling_and_views_pass_a_tensor_on() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    found = trace(module, batches(images())[0], layers_of(module, images()))
    (source,) = [each for each in found.sources if "linear.0" in each.readers]
    assert (source.operation, source.kind) == ("relu", "fused")


def test_a_product_of_two_data_tensors_reads_no_integers() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            return y @ y.T  # type: ignore[no-any-return]

    module, x = Scores().eval(), torch.ones(2, 3)
    found = trace(module, batches(x)[0], layers_of(module, x))
    assert [source.readers for source in found.sources if source.readers] == [["linear.0"]]
    assert found.counts["linear"] == 2


def test_a_concatenation_of_one_tensor_passes_it_on() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.cat([self.first(x)], 1))  # type: ignore[no-any-return]

    module, x = Joined().eval(), torch.ones(2, 3)
    found = trace(module, batches(x)[0], layers_of(module, x))
    assert found.counts == {"linear": 2}
    assert [(source.operation, source.readers) for source in found.sources] == [
        ("input", ["linear.0"]),
        ("addmm", ["linear.1"]),
        ("addmm", []),
    ]
