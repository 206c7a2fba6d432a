from typing import Any

import pytest

from mpq.errors import ConfigError, FormatError, SchemeError
from mpq.formats.matrix import Matrix
from mpq.formats.scheme import parse_scheme
from mpq.limits import LAYER_WEIGHTS
from mpq.reading.documents import Document, yaml_document
from mpq.reading.validate import validated
from mpq.records.facts import DataFacts, LayerFacts, NamedLayerFacts, RestFacts, layers_in, scheme_in
from mpq.records.layer import Layer

DOCUMENT = Document({}, "t.jsonl, line 1", remedy="run `mpq analyze` again")


def facts(shape: list[int], axes: list[int]) -> LayerFacts:
    return LayerFacts(["a.weight"], shape, axes, "float16")


def refused(*found: tuple[str, LayerFacts]) -> str:
    with pytest.raises(FormatError) as caught:
        layers_in(DOCUMENT, ((name, each, ("layers", name)) for name, each in found))
    return str(caught.value)


def test_layers_keep_their_order_and_what_a_file_says_of_them() -> None:
    named = NamedLayerFacts(
        ["b.weight", "tied"], [3, 8, 2], [1], "bfloat16", name="b", candidates=["int4"], operator="conv", consumers=["m"]
    )
    found = layers_in(DOCUMENT, [("b", named, ()), ("a", facts([4, 2], [0]), ())])
    assert found == (
        Layer("b", ("b.weight", "tied"), (3, 8, 2), (1,), "bfloat16", "conv", ("m",)),
        Layer("a", ("a.weight",), (4, 2), (0,), "float16"),
    )
    assert layers_in(DOCUMENT, []) == ()


def test_a_name_twice_is_refused() -> None:
    assert (
        refused(("a", facts([2], [0])), ("a", facts([3], [0]))) == "t.jsonl, line 1: the layer 'a' appears twice; run `mpq analyze` again"
    )


@pytest.mark.parametrize("axes", [[2], [0, 0], [0, 31]])
def test_axes_beyond_the_shape_or_given_twice_are_refused(axes: list[int]) -> None:
    assert refused(("a", facts([2, 3], axes))) == f"t.jsonl, line 1: the axes of layer 'a' are {axes} of 2; run `mpq analyze` again"


def test_layers_keep_their_groups() -> None:
    (layer,) = layers_in(DOCUMENT, [("a", LayerFacts(["a.weight"], [4, 3, 2], [1], "float16", 2), ())])
    assert layer == Layer("a", ("a.weight",), (4, 3, 2), (1,), "float16", groups=2)


@pytest.mark.parametrize(("shape", "axes", "groups"), [([4, 3, 2], [1], 3), ([4, 3, 2], [0, 1], 2), ([4, 3], [1], 2)])
def test_groups_that_a_shape_cannot_have_are_refused(shape: list[int], axes: list[int], groups: int) -> None:
    made = LayerFacts(["a.weight"], shape, axes, "float16", groups)
    assert refused(("a", made)) == f"t.jsonl, line 1: layer 'a' of shape {shape} cannot have {groups} groups; run `mpq analyze` again"


def test_rows_alike_are_those_of_a_table() -> None:
    (layer,) = layers_in(DOCUMENT, [("a", LayerFacts(["a.weight"], [9, 4], [0], "float16", alike=5), ())])
    assert layer == Layer("a", ("a.weight",), (9, 4), (0,), "float16", alike=5)
    assert (layer.matrix, layer.to_dict()["alike"]) == (Matrix(9, 4, 5), 5)
    for shape, axes, alike in (([9, 4], [0], 1), ([9, 4], [0], 10), ([9, 4], [1], 3), ([9, 4, 2], [0], 3)):
        made = LayerFacts(["a.weight"], shape, axes, "float16", alike=alike)
        assert (
            refused(("a", made)) == f"t.jsonl, line 1: layer 'a' of shape {shape} cannot have {alike} rows alike; run `mpq analyze` again"
        )


def test_more_weights_than_any_model_has_are_refused_where_they_come_to_be_too_many() -> None:
    half = facts([LAYER_WEIGHTS // 2], [0])
    assert len(layers_in(DOCUMENT, [("a", half, ()), ("b", half, ())])) == 2
    assert refused(("a", half), ("b", half), ("c", facts([1], [0]))).startswith(
        "t.jsonl, line 1: with layer 'c' the layers have more than 281,474"
    )


def test_a_scheme_is_read_or_refused_with_its_line() -> None:
    document = yaml_document("layers:\n  a: int4-g32\n  b: int9\n", name="plan.yaml", error=FormatError, remedy="edit it")
    assert scheme_in(document, "int4-g32", "layers", "a") == parse_scheme("int4-g32")
    with pytest.raises(FormatError, match=r"^plan\.yaml, line 3: unknown scheme 'int9'"):
        scheme_in(document, "int9", "layers", "b")
    with pytest.raises(SchemeError, match=r"^plan\.yaml, line 3: unknown scheme 'int9'"):
        scheme_in(document, "int9", "layers", "b", error=SchemeError)


DATA: dict[str, Any] = {"source": "d.pt", "sha256": "b" * 64, "held_out": 0.25, "seed": 0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"held_out": 1.0}, "held_out is 1.0: give a number, less than 1"),
        ({"held_out": -0.1}, "held_out is -0.1: give a number of 0 or more"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number of 1 or more"),
        ({"parts": [4, 0]}, "parts[1] is 0: give a whole number of 1 or more"),
        ({"samples": {"calibration": 3}}, "samples lacks the key 'held_out'"),
        ({"seed": "0"}, "seed is '0': give a whole number"),
    ],
)
def test_facts_of_data_out_of_range_are_refused_with_the_place(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Document(DATA | change, "", ConfigError, "fix it"), DataFacts)
    assert str(caught.value) == f"{reason}; fix it"


def test_the_rest_knows_no_other_key() -> None:
    right = {"header_bytes": 1, "data_bytes": 2, "weights": 3, "original_bytes": 4}
    assert validated(Document(right, ""), RestFacts) == RestFacts(1, 2, 3, 4)
    with pytest.raises(
        FormatError, match=r"^it has the unknown key 'weight': use header_bytes, data_bytes, weights, original_bytes, dtype; "
    ):
        validated(Document(right | {"weight": 3}, ""), RestFacts)
