"""Layers whose measured error is far above what gradients say, where the way of a gradient is cut."""

import pytest

from mpq.analyze.methods.compare_gradients import misjudged
from mpq.data.dataset import data_from_batches
from mpq.formats.scheme import Scheme
from mpq.models.running.reference import Reference
from tests.analyze.making import context_of
from tests.analyze.methods.test_blind_layers import Halfway, X
from tests.models.small import data, mlp

INT2, INT8 = Scheme("int2"), Scheme("int8")


@pytest.mark.parametrize(
    ("times", "names"),
    [(0.2, ["a", "b"]), (0.3, ["a", "b"]), (0.34, []), (1.0, []), (2.9, []), (0.0, [])],
)
def test_an_error_of_more_than_three_times_what_gradients_say_is_named(times: float, names: list[str]) -> None:
    context = context_of(Halfway().eval(), data_from_batches([X]), [], metric="relative_mse")
    asked: list[int] = []
    samples = context.prepared.calibration.spread(32)

    def errors_of(count: int) -> dict[tuple[str, Scheme], float]:
        asked.append(count)
        return {(name, INT2): times * measured[name] for name in "ab"}

    reference = Reference(context.model.module, samples, context.prepared.metric)
    measured = {name: float(reference.errors(context.variants.weights({name: INT2})).mean()) for name in "ab"}
    assert misjudged(context, errors_of) == names
    assert asked == [samples.samples]


@pytest.mark.parametrize(("fine", "names"), [(1.0, []), (5.0, ["a", "b"])])
def test_an_error_of_under_a_third_must_be_so_for_the_finest_scheme_too(fine: float, names: list[str]) -> None:
    context = context_of(Halfway().eval(), data_from_batches([X]), [], metric="relative_mse")
    reference = Reference(context.model.module, context.prepared.calibration.spread(32), context.prepared.metric)

    def error(name: str, scheme: Scheme) -> float:
        return float(reference.errors(context.variants.weights({name: scheme})).mean())

    times = {INT2: 5.0, INT8: fine}
    expected = {(name, scheme): factor * error(name, scheme) for name in "ab" for scheme, factor in times.items()}
    assert misjudged(context, lambda _: expected) == names


def test_a_layer_without_a_gradient_is_left_to_others() -> None:
    context = context_of(Halfway().eval(), data_from_batches([X]), [], metric="relative_mse")
    assert misjudged(context, lambda _: {}) == []
    assert misjudged(context, lambda _: {("a", INT8): 1e-12}) == []  # the coarsest scheme is compared


def test_where_no_gradient_is_cut_nothing_is_asked() -> None:
    context = context_of(mlp(), data(24), [], metric="relative_mse")

    def errors_of(_: int) -> dict[tuple[str, Scheme], float]:
        raise AssertionError("asked")

    assert misjudged(context, errors_of) == []
