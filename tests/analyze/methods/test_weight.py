import torch
from torch import nn

from mpq.analyze.methods.weight import WeightOnly
from mpq.data.dataset import Data, data_from_batches
from mpq.formats.scheme import Scheme
from tests.analyze.making import context_of
from tests.models.small import data, tied


def found(module: nn.Module, samples: Data, *candidates: str) -> dict[tuple[str, Scheme], list[float]]:
    context = context_of(module, samples, [], candidates=candidates, method="weight")
    WeightOnly().run(context)
    return {key: errors.tolist() for key, errors in context.table.errors.items()}


def linear(*rows: list[float]) -> nn.Module:
    module = nn.Linear(8, len(rows), bias=False).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return module


def test_a_figure_is_the_squared_error_of_the_weights_over_their_square() -> None:
    module = linear([4, 1, 1, 0, 0, 0, 0, -4], [1, 1, 1, 1, 1, 1, 1, 1])  # int2 has the levels -s, 0 and s: the two ones become zeros
    assert found(module, data(), "int2") == {("weight", Scheme("int2")): [0.047619]}  # 2 / (34 + 8), in six digits


def test_weights_of_zero_have_no_error() -> None:
    assert found(linear([0] * 8), data(), "int2", "int4") == {("weight", Scheme(name)): [0.0] for name in ("int2", "int4")}


def test_the_scale_of_the_weights_and_the_samples_do_not_matter() -> None:
    row = [4.0, 1, 1, 0, 0, 0, 0, -4]
    other = data(40, seed=9, batch_size=5)
    assert found(linear(row), data(), "int2") == found(linear([1024 * value for value in row]), other, "int2")


def test_a_table_with_two_uses_is_one_weight() -> None:
    tokens = torch.randint(0, 11, (8, 5), generator=torch.Generator().manual_seed(0))
    assert {name for name, _ in found(tied(), data_from_batches([tokens]), "int4")} == {"embedding", "body"}


def test_the_model_is_never_run() -> None:
    module = linear([1, 2, 3, 4, 5, 6, 7, 8])
    context = context_of(module, data(), [], candidates=("int2",), method="weight")
    module.register_forward_hook(lambda *_: (_ for _ in ()).throw(AssertionError("it was run")))
    WeightOnly().run(context)
    assert context.table.missing == []
