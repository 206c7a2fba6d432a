"""Batches of samples that a model accepts: which axis counts them, and how many go at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import DataError
from mpq.models.inputs.fit_samples import Fit, Reading, example_batch, fit_samples, is_graph
from mpq.models.sources.loaded import LoadedModel
from tests.models.inputs.test_find_samples import Graph, graph
from tests.models.inputs.test_fit_to_model import exported, in_memory

FREE = Reading(None, None, known_rows=False, seeded=False)
LINEAR = in_memory(nn.Linear(3, 2).eval())


def fit(model: LoadedModel, *batches: Batch, how: Reading = FREE, batch_size: int | None = None, note: str = "", cast: Any = None) -> Fit:
    return fit_samples(batches, cast or (lambda batch: batch), note, model=model, how=how, batch_size=batch_size)


def sizes(found: Fit) -> list[int]:
    return [batch.size for batch in found.batches]


def test_rows_are_regrouped_to_the_size_that_was_asked_for() -> None:
    found = fit(LINEAR, Batch((torch.ones(10, 3),)), batch_size=4, note="a remark")
    assert (sizes(found), found.fixed_batch, found.notes) == ([4, 4, 2], None, ("a remark",))


@pytest.mark.parametrize(
    ("content", "module", "size"),
    [
        (torch.zeros(100, 3), nn.Linear(3, 2), 64),
        (torch.zeros(20, 5, dtype=torch.int64), nn.Embedding(4, 2), 8),
        (torch.zeros(9, 1_000_000), nn.Flatten(), 8),
    ],
)
def test_the_default_size_depends_on_what_a_sample_is(content: Tensor, module: nn.Module, size: int) -> None:
    assert sizes(fit(in_memory(module.eval()), Batch((content,))))[0] == size


def test_several_batches_keep_the_size_of_the_largest() -> None:
    assert sizes(fit(LINEAR, Batch((torch.ones(5, 3),)), Batch((torch.ones(2, 3),)))) == [5, 2]


def test_the_cast_reaches_every_batch() -> None:
    found = fit(LINEAR, Batch((torch.ones(4, 3).double(),)), cast=lambda batch: batch.in_dtype(torch.float32), batch_size=2)
    assert [batch.args[0].dtype for batch in found.batches] == [torch.float32] * 2


def test_integer_labels_become_int64() -> None:
    found = fit(LINEAR, Batch((torch.ones(2, 3),), labels=torch.tensor([0, 1], dtype=torch.int16)))
    assert found.batches[0].labels is not None
    assert found.batches[0].labels.dtype == torch.int64


def test_a_program_of_one_size_gets_whole_batches_of_it() -> None:
    found = fit(exported(3), Batch((torch.randn(8, 3, 8, 8),)))
    assert (sizes(found), found.fixed_batch) == ([3, 3], 3)
    assert found.notes == ("the model takes exactly 3 per batch, so the last 2 are dropped",)
    with pytest.raises(DataError, match=r"^the model takes exactly 8 samples per batch, and there are 3: give at least 8$"):
        fit(exported(8), Batch((torch.randn(3, 3, 8, 8),)))


def test_what_no_model_accepts_is_refused_with_the_models_reason() -> None:
    with pytest.raises(DataError, match=r"^the model does not accept a batch of float32 \[1, 7\]"):
        fit(LINEAR, Batch((torch.ones(4, 7),)))


def test_rows_that_depend_on_each_other_are_one_sample() -> None:
    nodes, edges = graph(6)
    found = fit(in_memory(Graph().eval()), Batch((nodes, edges)))
    assert [batch.whole for batch in found.batches] == [True]
    assert found.notes[-1].startswith("one batch is one sample: ")


def test_batches_that_were_given_as_samples_stay_so() -> None:
    found = fit(LINEAR, Batch((torch.ones(4, 3),), whole=True))
    assert found.notes == ("one batch is one sample: as it was given",)
    asked = fit(LINEAR, Batch((torch.ones(4, 3),), whole=True), how=Reading("none", None, known_rows=False, seeded=False))
    assert asked.notes == ("one batch is one sample: as asked",)


def test_samples_that_are_rows_for_certain_are_never_arranged_otherwise() -> None:
    class TimeFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(0)

    batch = Batch((torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)),))
    free = fit(in_memory(TimeFirst().eval()), batch)
    assert (free.batches[0].axis, free.batches[0].size) == (1, 4)
    known = fit(in_memory(TimeFirst().eval()), batch, how=Reading(None, None, known_rows=True, seeded=False))
    assert known.batches[0].whole


def test_a_model_may_write_into_its_inputs() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x += 1
            return x * 2

    content = torch.ones(4, 3)
    fit(in_memory(Writes().eval()), Batch((content,), whole=True))
    assert torch.equal(content, torch.ones(4, 3))


def test_shapes_beyond_the_first_are_tried_too() -> None:
    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] > 4:
                raise ValueError("too long")
            return x

    rows = Reading(0, None, known_rows=False, seeded=False)
    with pytest.raises(DataError, match="too long"):
        fit(in_memory(Narrow().eval()), Batch((torch.ones(2, 3),)), Batch((torch.ones(2, 6),)), how=rows)


def test_recorded_programs_are_graphs_and_python_modules_are_not() -> None:
    assert is_graph(exported(1))
    assert is_graph(LoadedModel(torch.fx.symbolic_trace(nn.Linear(2, 2)), "memory", "0"))
    assert is_graph(LoadedModel(nn.Linear(2, 2), "torchscript", "0"))
    assert not is_graph(LINEAR)


def test_example_inputs_are_a_batch() -> None:
    model = LoadedModel(nn.Linear(2, 2), "export", "0", example_inputs=((torch.ones(3, 2),), {"y": torch.ones(3)}))
    found = example_batch(model)
    assert (found.size, list(found.kwargs)) == (3, ["y"])
