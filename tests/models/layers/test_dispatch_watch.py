"""Which weights reach which op, and how."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.models.layers.dispatch_watch import Use, Watch, is_norm, named, written
from tests.models.layers.discovering import IDS, IMAGES, Lambda, X, weight

ADD = torch.ops.aten.add.Tensor


def uses(module: nn.Module, *inputs: Any) -> dict[str, list[tuple[str, tuple[int, ...], bool, list[str]]]]:
    """By parameter name: operator, output axes, whether it meets data, and the consumers of each use."""
    parameters = dict(module.eval().named_parameters())
    watch = Watch(module, list(parameters.values()))
    with torch.no_grad(), watch.active():
        module(*inputs)
    brief = {
        number: [(use.operator, use.axes, use.on_data, list(use.consumers)) for use in kept.values()] for number, kept in watch.uses.items()
    }
    return {name: brief.get(number, []) for number, name in enumerate(parameters)}


def test_each_weight_has_its_op_its_axes_and_its_module() -> None:
    found = uses(nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6)), X)
    assert found == {
        "0.weight": [("linear", (0,), True, ["0"])],
        "0.bias": [("other", (), True, ["0"])],
        "1.weight": [("norm", (), True, ["1"])],
        "1.bias": [("norm", (), True, ["1"])],
    }


def test_a_weight_that_is_used_twice_alike_has_one_use_with_both_modules() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.b(self.a(x))
            return result

    assert uses(Shared(), X) == {"a.weight": [("linear", (0,), True, ["a", "b"])]}


def test_different_uses_of_one_weight_are_kept_apart_in_their_order() -> None:
    module = Lambda(lambda m, ids: torch.nn.functional.embedding(ids, m.weight) @ m.weight.T, weight=weight(7, 8))
    assert [(operator, axes) for operator, axes, *_ in uses(module, IDS)["weight"]] == [("embedding", (0,)), ("linear", (0,))]


@pytest.mark.parametrize(
    "made",
    [
        lambda w: w.clone(),
        lambda w: w.double().float(),
        lambda w: w.T.contiguous().T,
        lambda w: w * 2,
        lambda w: torch.cat([w[:3], w[3:]]),
        lambda w: torch.stack([w, w])[1],
        lambda w: w / w.norm(),
    ],
)
def test_copies_and_values_made_of_the_weight_alone_are_followed(made: Any) -> None:
    module = Lambda(lambda m, x: x @ made(m.weight).T, weight=weight(6, 8))
    kept = [use for use in uses(module, X)["weight"] if use[2]]
    assert {(operator, axes) for operator, axes, *_ in kept} == {("linear", (0,))}


def test_an_op_that_combines_a_weight_with_state_only_is_not_on_data() -> None:
    module = Lambda(lambda m, x: x * (m.weight @ m.other).sum(), weight=weight(6, 8), other=weight(8, 6))
    assert [on_data for _, _, on_data, _ in uses(module, X)["weight"]] == [False]


def test_data_that_overwrites_a_copy_ends_the_trail() -> None:
    def overwrite(module: Any, x: Tensor) -> Tensor:
        scratch = module.weight.clone()
        scratch.copy_(x[0, :, :6].mT @ x[0])
        result: Tensor = x @ scratch.T
        return result

    assert uses(Lambda(overwrite, weight=weight(6, 8)), X)["weight"] == []


def test_a_convolution_of_groups_and_a_transposed_one() -> None:
    assert uses(nn.Conv2d(4, 6, 3, groups=2, bias=False), IMAGES)["weight"] == [("conv", (0,), True, [])]
    assert uses(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, bias=False)), IMAGES)["0.weight"] == [("conv", (1,), True, ["0"])]


def test_uses_on_data_are_the_heavier_ones() -> None:
    ranked = sorted(
        [Use("other", (0,), True), Use("linear", (0,), False), Use("conv", (0,), True), Use("linear", (0,), True)], key=lambda u: u.rank
    )
    assert [(use.operator, use.on_data) for use in ranked] == [("linear", True), ("conv", True), ("other", True), ("linear", False)]


@pytest.mark.parametrize(
    ("module", "norm"),
    [
        (nn.LayerNorm(3), True),
        (nn.BatchNorm2d(3), True),
        (nn.RMSNorm(3), True),
        (nn.Linear(3, 3), False),
        (type("NormalInit", (nn.Module,), {})(), False),
    ],
)
def test_a_norm_is_known_by_the_name_of_its_class(module: nn.Module, norm: bool) -> None:
    assert is_norm(module) == norm


def test_arguments_have_the_names_of_the_schema() -> None:
    a, b = torch.ones(2), torch.ones(2)
    assert named(ADD, (a, b), {"alpha": 2}) == {"self": a, "other": b, "alpha": 2}


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "names"),
    [
        (torch.ops.aten.add.Tensor, ("a", "b"), {}, []),
        (torch.ops.aten.add_.Tensor, ("a", "b"), {}, ["a"]),
        (torch.ops.aten.add.out, ("a", "b"), {"out": "c"}, ["c"]),
        (torch.ops.aten._foreach_add_.Scalar, (["a", "b"], 1), {}, ["a", "b"]),
        (torch.ops.aten.copy_.default, ("a", "b"), {}, ["a"]),
        (torch.ops.aten.view.default, ("a", [2]), {}, []),
    ],
)
def test_the_tensors_that_an_op_writes_to_are_known_by_its_schema(op: Any, args: Any, kwargs: Any, names: list[str]) -> None:
    tensors = {name: torch.ones(2) for name in "abc"}

    def given(value: Any) -> Any:
        return (
            [given(one) for one in value]
            if isinstance(value, (list, tuple))
            else tensors.get(value, value)
            if isinstance(value, str)
            else value
        )

    found = written(op, named(op, tuple(map(given, args)), {key: given(value) for key, value in kwargs.items()}))
    assert [next(name for name, tensor in tensors.items() if tensor is one) for one in found] == names


def test_nothing_is_left_behind_when_the_model_fails() -> None:
    def fail(_: Any, x: Tensor) -> Tensor:
        raise ValueError("no")

    module = Lambda(fail, weight=weight(6, 8))
    watch = Watch(module, list(module.parameters()))
    with pytest.raises(ValueError, match=r"^no$"), watch.active():
        module(X)
    with watch.active():
        nn.Linear(8, 6)(X)
    assert watch.uses == {}
