import pytest
import torch

from mpq.monitor.observe import Observer
from tests.monitor.conftest import model


def test_entropy_and_margin_are_those_of_the_answer() -> None:
    observer = Observer(model())
    observer.see((torch.ones(2, 3),), torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    entropy, margin = observer.sketches["output entropy"], observer.sketches["output margin"]
    assert [entropy.minimum, entropy.maximum] == pytest.approx([0.0, 0.6931472], abs=1e-6)
    assert [margin.minimum, margin.maximum] == pytest.approx([0.0, 1.0])


def test_hooks_are_there_within_the_calls_alone() -> None:
    module = model()
    observer = Observer(module, ["2", "nowhere"])
    with observer.hooked():
        module(torch.ones(1, 16))
    module(torch.ones(1, 16))
    assert list(observer.sketches) == ["2.input"]
    assert observer.sketches["2.input"].calls == 1


def test_whole_numbers_are_not_sketched() -> None:
    observer = Observer(model())
    observer.see((torch.ones(2, 3, dtype=torch.int64),), torch.ones(3))
    assert list(observer.sketches) == ["output"]
