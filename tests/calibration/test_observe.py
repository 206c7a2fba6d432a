import math

import pytest
import torch

from mpq.calibration.observe import Observer, certainty, samples_in, some
from tests.monitor.conftest import model


def test_entropy_and_margin_are_those_of_the_answer() -> None:
    entropy, margin = certainty(torch.tensor([[0.0, 0.0], [20.0, 0.0], [-torch.inf, 0.0]]))
    assert entropy.tolist() == pytest.approx([math.log(2), 0.0, 0.0], abs=1e-6)
    assert margin.tolist() == pytest.approx([0.0, 1.0, 1.0])
    observer = Observer(model())
    observer.see(((torch.ones(2, 3),), {}), torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    assert observer.sketches["output entropy"].values == 2
    assert observer.sketches["output margin"].maximum == pytest.approx(1.0)


def test_probabilities_are_not_normalized_again() -> None:
    entropy, margin = certainty(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    assert entropy.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)
    assert margin.tolist() == pytest.approx([0.0, 1.0])


def test_padding_is_in_no_sketch_and_no_prediction() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    outputs = torch.zeros(2, 3, 4)
    outputs[0, 1, 2] = outputs[0, 2, 3] = 50.0  # the second is padding
    module = torch.nn.Sequential(torch.nn.Linear(4, 4))
    observer = Observer(module, ["0"])
    inputs = ((), {"input_ids": torch.ones(2, 3, dtype=torch.int64), "attention_mask": mask})
    with observer.hooked(inputs):
        module[0](outputs)
    observer.see(inputs, outputs)
    assert {name: sketch.values for name, sketch in observer.sketches.items()} == {
        "0.input": 12,
        "output": 12,
        "output entropy": 3,
        "output margin": 3,
    }
    assert observer.row["prediction"] == 2


def test_hooks_are_there_within_the_calls_alone() -> None:
    module = model()
    observer = Observer(module, ["2", "nowhere"])
    inputs = torch.ones(3, 16)
    with observer.hooked(((inputs,), {})):
        module(inputs)
    module(inputs)
    assert list(observer.sketches) == ["2.input"]
    assert (observer.sketches["2.input"].values, observer.sketches["2.input"].samples) == (48, 3)


def test_whole_numbers_are_not_sketched() -> None:
    observer = Observer(model())
    observer.see(((torch.ones(2, 3, dtype=torch.int64),), {}), torch.ones(3))
    assert list(observer.sketches) == ["output"]
    assert observer.sketches["output"].samples == 2


def test_samples_are_the_rows_of_the_first_tensor() -> None:
    assert samples_in(((), {"scale": torch.tensor(2.0), "x": torch.ones(5, 3)})) == 5
    assert samples_in((3,)) == 1


@pytest.mark.parametrize("shape", [(1, 256, 288), (4, 3, 64, 64), (100_000,), (1, 4096)])
def test_a_part_of_a_large_tensor_has_every_channel_alike(shape: tuple[int, ...]) -> None:
    channels = torch.arange(shape[-1]).expand(shape)
    found = some(channels)
    assert min(4096, math.prod(shape)) * 0.4 <= len(found) <= 4096
    if shape[-1] <= 1024:
        counts = found.long().bincount(minlength=shape[-1])
        assert counts.max() - counts.min() <= 1


def test_a_call_that_fails_does_not_count() -> None:
    module = model()
    observer = Observer(module, ["2"])
    handles = observer.attach(((torch.ones(3, 16),), {}))
    module(torch.ones(3, 16))  # whose result is never seen
    for handle in handles:
        handle.remove()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), observer.hooked(((torch.ones(4, 9),), {})):
        module[2](torch.ones(4, 9))
    assert not observer.sketches
    observer.attach(((torch.ones(2, 16),), {}))
    observer.see(((torch.ones(2, 16),), {}), torch.ones(2, 4))
    assert {name: sketch.values for name, sketch in observer.sketches.items()}["input"] == 32
    assert "2.input" not in observer.sketches


def test_values_are_those_of_the_call_even_if_they_are_changed_in_place_later() -> None:
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU(inplace=True))
    observer = Observer(module, ["0"])
    inputs = torch.full((2, 3), -1.0)
    with observer.hooked(((inputs,), {})):
        module(inputs)
    assert float(inputs.max()) == 0.0
    assert observer.sketches["0.input"].maximum == -1.0
