"""What every method of analysis promises, and what it works with."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from mpq.analyze.methods.base import Context, finite
from mpq.analyze.methods.registry import METHODS, method_named
from mpq.formats.scheme import Scheme
from mpq.records.sensitivity import Sensitivity
from tests.analyze.making import context_of
from tests.models.small import bits, data, mlp, up_and_down

INT2 = Scheme("int2")


def figures(table: Sensitivity) -> dict[Any, list[float]]:
    return {key: errors.tolist() for key, errors in table.errors.items()}


def read_again(context: Context, saved: Sequence[Mapping[str, Any]]) -> Sensitivity:
    table = Sensitivity(context.prepared.header)
    for record in saved:
        table.read(record)
    return table


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_it_finds_a_finite_figure_for_every_pair(self, name: str) -> None:
        context = context_of(up_and_down(), data(16, 2, 6, 6), [])
        method_named(name).run(context)
        assert context.table.missing == []
        assert all(len(errors) and min(errors) >= 0 and all(map(math.isfinite, errors)) for errors in figures(context.table).values())
        for layer in context.table.layers:
            assert context.table.mean(layer.name, INT2) > context.table.mean(layer.name, Scheme("int8")) > 0

    def test_what_it_saves_gives_the_same_table_when_it_is_read(self, name: str) -> None:
        saved: list[dict[str, Any]] = []
        context = context_of(mlp(), data(), saved)
        method_named(name).run(context)
        assert figures(read_again(context, saved)) == figures(context.table)

    def test_it_finds_nothing_again(self, name: str) -> None:
        saved: list[dict[str, Any]] = []
        context = context_of(mlp(), data(), saved)
        method_named(name).run(context)
        before = list(saved)
        method_named(name).run(context)
        assert saved == before

    def test_half_a_table_is_completed_to_the_same_figures(self, name: str) -> None:
        saved: list[dict[str, Any]] = []
        whole = context_of(mlp(), data(), saved)
        method_named(name).run(whole)
        more: list[dict[str, Any]] = []
        half = context_of(mlp(), data(), more)
        lines = [record for record in saved if "layer" in record]
        half.record(lines[: len(lines) // 2])
        method_named(name).run(half)
        again = [(one["layer"], one["scheme"], one["first"]) for one in more if "layer" in one]
        assert len(set(again)) == len(again)
        found = figures(half.table)
        assert found.keys() == whole.table.errors.keys()
        assert all(found[key] == pytest.approx(errors, rel=1e-4) for key, errors in figures(whole.table).items())

    def test_it_leaves_the_model_as_it_was(self, name: str) -> None:
        module = mlp()
        before = bits(module)
        method_named(name).run(context_of(module, data(), []))
        assert bits(module) == before
        assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())

    def test_its_progress_is_counted_up_to_the_total(self, name: str) -> None:
        told: list[tuple[bool, int, int]] = []
        progress = lambda done, total, what: told.append((what.startswith("quantizing"), done, total))  # noqa: E731
        method_named(name).run(context_of(mlp(), data(), [], on_progress=progress))
        for stage in (True, False):
            counts = [(done, total) for quantizing, done, total in told if quantizing == stage]
            assert [done for done, _ in counts] == sorted({done for done, _ in counts})
            assert not counts or counts[-1][0] == counts[-1][1]
        assert [quantizing for quantizing, _, _ in told] == sorted((quantizing for quantizing, _, _ in told), reverse=True)

    def test_an_unchanged_layer_has_no_error(self, name: str) -> None:
        module = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3)).eval()
        with torch.no_grad():
            module.get_parameter("0.weight").copy_(torch.tensor([-1.0, 1.0]).repeat(4, 4))  # the grid of int2 holds both
        context = context_of(module, data(), [], candidates=("int2",))
        method_named(name).run(context)
        assert context.table.mean("0", INT2) == 0
        assert context.table.mean("1", INT2) > 1e-4


def test_a_record_is_saved_before_the_table_knows_it() -> None:
    context = context_of(mlp(), data(), [])
    order: list[int] = []
    context.save = lambda records: order.append(context.table.count("0", INT2))
    context.record([{"layer": "0", "scheme": "int2", "first": 0, "errors": [1.0, 2.0]}])
    assert order == [0]
    assert context.table.errors["0", INT2].tolist() == [1.0, 2.0]


def test_what_cannot_be_saved_is_not_in_the_table() -> None:
    context = context_of(mlp(), data(), [])

    def full(_: object) -> None:
        raise OSError("no space")

    context.save = full
    with pytest.raises(OSError, match="no space"):
        context.record([{"layer": "0", "scheme": "int2", "first": 0, "errors": [1.0]}])
    assert context.table.errors == {}


def test_figures_of_a_record_have_six_digits_and_none_where_they_are_not_finite() -> None:
    given = torch.tensor([1 / 3, 2e-9 / 3, 0.0, -123456.789, math.nan, math.inf, -math.inf], dtype=torch.float64)
    assert finite(given) == [0.333333, 6.66667e-10, 0.0, -123457.0, None, None, None]
    assert finite(torch.zeros(0)) == []
