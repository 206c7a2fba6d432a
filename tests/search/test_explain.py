from pathlib import Path

import pytest

from mpq.errors import PatternError
from mpq.search.explain import explain
from mpq.search.run import search
from tests.small import linear, random_table, table


def test_at_an_exact_corner_no_alternative_is_better() -> None:
    found = table(
        [linear("a", 8, 64), linear("b", 8, 64)],
        {"a": {"int4": 1.0, "int8": 0.0}, "b": {"int4": 0.1, "int8": 0.0}},
    )
    plan = search(found, "6.3bits").plan
    of_a, of_b = explain(plan, "a", table=found), explain(plan, "b", table=found)
    assert (str(plan.layers["a"]), str(plan.layers["b"])) == ("int8", "int4")
    assert of_a.price == pytest.approx(0.1 / 256)
    assert [each.loss for each in of_a.alternatives] == pytest.approx([0.9, 0.0])
    assert [each.loss for each in of_b.alternatives] == pytest.approx([0.0, 0.0])


def test_the_needed_error_is_where_the_choice_would_turn() -> None:
    found = table(
        [linear("a", 8, 64), linear("b", 8, 64)],
        {"a": {"int4": 1.0, "int8": 0.0}, "b": {"int4": 0.1, "int8": 0.0}},
    )
    alternative = explain(search(found, "6.3bits").plan, "a", table=found).alternatives[0]
    assert alternative.needed == pytest.approx(0.1)


def test_an_alternative_that_no_error_makes_worth_its_bytes_says_so() -> None:
    found = random_table(1)
    plan = search(found, "4.2bits").plan
    cheapest = next(name for name, scheme in plan.layers.items() if scheme.bits == 2)
    largest = explain(plan, cheapest, table=found).alternatives[-1]
    assert largest.needed is None
    assert largest.loss > 0


def test_the_sizes_at_which_the_scheme_changes_are_told() -> None:
    found = table([linear("a", 8, 64)], {"a": {"int4": 1.0, "int8": 0.5, "fp16": 0.0}})
    told = explain(search(found, "8.3bits").plan, "a", table=found)
    assert told.smaller is not None
    assert told.larger is not None
    assert (str(told.smaller.scheme), str(told.larger.scheme)) == ("int4", "fp16")


def test_tied_layers_are_explained_together() -> None:
    found = table(
        [linear("q", 8, 64), linear("k", 8, 64)],
        {"q": {"int4": 1.0, "int8": 0.0}, "k": {"int4": 0.1, "int8": 0.0}},
    )
    told = explain(search(found, "4.5bits", ties=[["q", "k"]]).plan, "k", table=found)
    assert told.tied == ("q",)
    assert told.chosen is not None
    assert (told.chosen.bytes, told.chosen.error) == (2 * (256 + 16), 1.1)


def test_a_pinned_layer_still_shows_its_alternatives() -> None:
    found = random_table(2)
    name = found.layers[0].name
    told = explain(search(found, "7bits", pins={name: "int8"}).plan, name, table=found)
    assert told.pinned
    assert len(told.alternatives) == 5


def test_a_scheme_written_by_hand_was_not_chosen() -> None:
    found = random_table(3)
    plan = search(found, "5bits").plan
    from mpq.formats.scheme import parse_scheme

    name = found.layers[0].name
    assert explain(plan.with_layers({**plan.layers, name: parse_scheme("int3")}), name, table=found).chosen is None


def test_an_unknown_layer_is_refused_with_the_closest_names() -> None:
    found = random_table(1, count=2)
    with pytest.raises(PatternError, match=r"the plan has no layer 'blocks.0.z'; did you mean blocks.0.q or blocks.0.k\?"):
        explain(search(found, "5bits").plan, "blocks.0.z", table=found)


def test_other_costs_are_told_and_what_breaks_their_limit(tmp_path: Path) -> None:
    found = table(
        [linear("a", 8, 64), linear("b", 8, 64)],
        {"a": {"int4": 1.0, "int8": 0.0}, "b": {"int4": 0.5, "int8": 0.0}},
    )
    (tmp_path / "heat.csv").write_text("layer,scheme,heat\na,int4,3\na,int8,1\nb,int4,1\nb,int8,5\n")
    plan = search(found, "16bits", costs={str(tmp_path / "heat.csv"): 4}, memory="1728B").plan
    assert {name: str(scheme) for name, scheme in plan.layers.items()} == {"a": "int8", "b": "int4"}
    of_b = explain(plan, "b", table=found, costs=[tmp_path / "heat.csv"]).alternatives
    assert [each.beside["heat"] for each in of_b] == [1, 5]
    assert [each.over for each in of_b] == [(), ("heat", "memory_bytes")]
    assert [each.over for each in explain(plan, "a", table=found, costs=[tmp_path / "heat.csv"]).alternatives] == [(), ()]
    untold = explain(plan, "b", table=found).alternatives
    assert [set(each.beside) for each in untold] == [{"memory_bytes"}] * 2
