from collections.abc import Mapping

import numpy as np
import pytest

from mpq.budget import Budget
from mpq.config import SearchSettings
from mpq.errors import ConfigError
from mpq.formats.activations import is_integer_product
from mpq.formats.scheme import Scheme
from mpq.records.activations import ActivationGroup, Groups, RoundedTensor, header_bytes
from mpq.records.measured_activations import MeasuredGroup
from mpq.records.sensitivity import Errors, Sensitivity
from mpq.search.activations import best_groups, chosen_groups, reserved_bytes
from mpq.search.quality import held_out_limit
from mpq.search.run import search
from mpq.search.smallest import search_smallest, search_within
from tests.search.measuring import FakeMeasurer
from tests.small import linear, schemes, table


def measured(name: str, error: float, work: int, scheme: str = "a8", layers: tuple[str, ...] | None = None) -> MeasuredGroup:
    tensor = RoundedTensor((f"linear.{ord(name[0]) - ord('a')}",), *((0.5, 3) if scheme == "a8" else ()))
    return MeasuredGroup(name, ActivationGroup(scheme, (tensor,)), (name,) if layers is None else layers, work, (error, error))


def made(**errors: float) -> Sensitivity:
    """Layers a to d: int8 at a tenth of the error of int4; groups of tensors with the given errors."""
    layers = [linear(name, 8, 16) for name in "abcd"]
    found = table(layers, {layer.name: {"int4": 1.0, "int8": 0.1, "int8-g8": 0.2} for layer in layers})
    for name, error in errors.items():
        found.activations[name, "a8"] = measured(name, error, 100)
    return found


class Rounding(FakeMeasurer):
    """Adds the errors of groups."""

    rounded = 0

    def held_out_rounded(self, plan: Mapping[str, Scheme], groups: Groups) -> Errors:
        self.rounded += 1
        added = sum(self.table.activations[name, group.scheme].mean for name, group in groups.items())
        return self.held_out(plan) + np.float64(added)


def test_only_one_scale_per_row_is_multiplied_as_integers() -> None:
    texts = schemes("int8", "int4", "int8-g8", "int8-asym", "nl4", "fp16")
    assert [is_integer_product(each) for each in texts] == [True, True, False, False, False, False]


def test_a_group_has_the_scheme_with_the_lower_error_and_broken_ones_are_left_out() -> None:
    found = made(a=0.2, b=0.3)
    found.activations["a", "a8d"] = measured("a", 0.01, 100, "a8d")
    found.activations["c", "a8"] = MeasuredGroup("c", measured("c", 0, 1).group, ("c",), 1, (None, 1.0))
    assert {name: each.group.scheme for name, each in best_groups(found).items()} == {"a": "a8d", "b": "a8"}


def test_groups_are_chosen_by_error_per_multiplication_and_only_where_weights_are_integers() -> None:
    found = made(a=0.2, b=0.3, c=0.1)
    found.activations["d", "a8"] = measured("d", 0.25, 1000)
    found.activations["e", "a8"] = measured("e", 0.01, 0, layers=())
    plan = dict(zip("abcd", schemes("int8", "int8-g8", "int4", "int8"), strict=True))
    assert [each.name for each in chosen_groups(found, plan, "all")] == ["e", "d", "c", "a"]
    assert [each.name for each in chosen_groups(found, plan, "0.3")] == ["e", "d"]
    assert chosen_groups(found, plan, "off") == []


def test_a_search_puts_groups_into_its_plan_and_measures_the_whole() -> None:
    found, measurer = made(a=0.2, b=0.3), Rounding(made(a=0.2, b=0.3))
    result = search(found, "8.5bits", measurer=measurer, trials=0)
    plan = result.plan
    assert list(plan.activations) == ["a", "b"]
    assert plan.evidence_is_current
    facts, whole = plan.evidence["activations"], plan.evidence["measured"]
    assert facts["predicted"] == 0.5
    assert facts["share_of_work"] == 1.0
    assert whole["held_out"] == pytest.approx(facts["weights_alone"] + 0.5, rel=1e-4)
    bare = search(found, "8.5bits", measurer=measurer, trials=0, activations="off").plan
    assert bare.activations == {}
    assert bare.layers == plan.layers
    assert plan.size.file_bytes - bare.size.file_bytes in range(header_bytes(plan.activations) - 7, header_bytes(plan.activations) + 8)


def test_a_budget_on_the_file_has_room_for_the_groups() -> None:
    found = made(a=0.2, b=0.3)
    assert reserved_bytes(found, "all") == header_bytes({name: measured(name, 0, 1).group for name in "ab"})
    limit = search(found, "31bits", scope="file", trials=0, activations="off").plan.size.file_bytes
    kept = search(found, f"{limit}B", scope="file", trials=0)
    assert kept.plan.activations
    assert kept.plan.size.file_bytes <= limit


def test_a_limit_of_the_error_takes_as_many_groups_as_it_allows_with_few_measurements() -> None:
    errors = dict.fromkeys("abcd", 0.1)
    found = made(**errors)
    measurer = Rounding(found)
    alone = float(measurer.held_out(dict.fromkeys("abcd", schemes("int8")[0])).mean())
    limits = [held_out_limit(alone + 0.85)]
    result = search_within(found, Budget("9bits"), limits, measurer=measurer, settings=SearchSettings(trials=0))
    assert result.plan.evidence["measured"]["held_out"] <= alone + 0.85
    assert 1 <= len(result.plan.activations) <= 4
    assert measurer.rounded <= 3
    small = search_smallest(found, [held_out_limit(1e9)], measurer=measurer, trials=0)
    assert len(small.plan.activations) == 4


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="activations is 'some': use all, off, or the largest error"):
        search(made(), "8.5bits", trials=0, activations="some")
