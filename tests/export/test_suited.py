from dataclasses import replace

import pytest

from mpq.config import SearchSettings
from mpq.errors import UsageError
from mpq.export.suited import suited
from mpq.records.sensitivity import Sensitivity
from tests.small import linear, table

PARTS = ("l.q_proj", "l.k_proj", "l.v_proj", "l.o_proj")
FIGURES = {"int3": 2.0, "int4": 1.0, "int4-g16": 0.9, "int4-g32": 0.8, "int8": 0.1, "fp16": 0.01}


def attention(*more: str) -> Sensitivity:
    names = (*PARTS, *more)
    return table([linear(name, 4, 64) for name in names], dict.fromkeys(names, FIGURES))


def test_only_schemes_that_the_target_stores_stay_and_what_it_fuses_is_tied() -> None:
    found = suited(SearchSettings(), attention(), "compressed-tensors")
    assert found.settings.ties == ("auto",)
    assert found.settings.candidates == dict.fromkeys(PARTS, ("int4", "int4-g32", "int8", "fp16"))
    assert found.notes == ()


def test_a_target_that_fuses_nothing_ties_nothing() -> None:
    found = suited(SearchSettings(), attention(), "onnx")
    assert found.settings.ties == ()
    assert found.settings.candidates["l.q_proj"] == ("int4", "int4-g16", "int4-g32", "int8", "fp16")


def test_what_the_user_asked_stays() -> None:
    asked = SearchSettings(ties=(("l.q_proj", "l.o_proj"), "auto"), candidates={"*o_proj": ("int4-g16", "8")}, trials=3)
    found = suited(asked, attention(), "compressed-tensors")
    assert found.settings.ties == asked.ties
    assert found.settings.candidates["l.o_proj"] == ("int8",)
    assert found.settings.trials == 3


@pytest.mark.parametrize("target", ["huggingface", "pt2"])
def test_targets_that_store_every_scheme_leave_all(target: str) -> None:
    assert suited(SearchSettings(), attention(), target).settings.candidates == dict.fromkeys(PARTS, tuple(FIGURES))


def test_a_layer_without_a_scheme_of_the_target_is_refused_with_candidates_that_it_has() -> None:
    with pytest.raises(UsageError) as error:
        suited(SearchSettings(candidates={"l.k_proj": ("3",)}), attention(), "onnx")
    assert str(error.value) == "onnx stores none of the candidates of l.k_proj, int3: analyze again, for example with --candidates 4,8,16"


def test_layers_that_a_target_keeps_in_floating_point_are_named_and_may_take_any_scheme() -> None:
    found = suited(SearchSettings(), attention("embed_tokens"), "compressed-tensors")
    assert found.settings.candidates["embed_tokens"] == tuple(FIGURES)
    assert found.notes == (
        "compressed-tensors keeps embed_tokens in floating point, so bytes that a plan saves there are not saved in the export: "
        "leave such layers out with mpq analyze --ignore",
    )


def test_executorch_goes_by_what_uses_the_weight() -> None:
    layers = [linear("a", 4, 64), *(replace(linear(name, 4, 64), operator=name) for name in ("conv", "embedding"))]
    figures = FIGURES | {"fp32": 0.0}
    found = suited(SearchSettings(), table(layers, {layer.name: figures for layer in layers}), "executorch").settings.candidates
    assert found == {
        "a": ("int4", "int4-g32", "int8", "fp32"),
        "conv": ("int8", "fp32"),
        "embedding": ("int4", "int4-g16", "int4-g32", "int8", "fp32"),
    }


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match="onnxx"):
        suited(SearchSettings(), attention(), "onnxx")
