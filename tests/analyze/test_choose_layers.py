from typing import Any

import pytest

from mpq.analyze.choose_layers import chosen_layers, tied_notes
from mpq.config import AnalysisSettings
from mpq.errors import ModelError, PatternError
from mpq.models.layers.discover import Discovery
from mpq.records.layer import Layer
from tests.small import linear

TIED = Layer("embed", ("embed.weight", "lm_head.weight"), (8, 4), (0,), "float32", "linear")
MODEL = Discovery((TIED, linear("a.q", 4, 4), linear("a.k", 4, 4)), (linear("idle", 4, 4),), (), {"lm_head.weight": "embed.weight"})


def names(**patterns: Any) -> list[str]:
    return [layer.name for layer in chosen_layers(MODEL, AnalysisSettings(**patterns))]


def notes(**patterns: Any) -> list[str]:
    return tied_notes(MODEL, AnalysisSettings(**patterns))


def test_all_reached_layers_are_searched() -> None:
    assert names() == ["embed", "a.q", "a.k"]
    assert notes() == []


@pytest.mark.parametrize("pattern", ["lm_head", "lm_*", "re:.*head"])
def test_a_tied_head_is_left_out_by_its_own_name_and_that_is_said(pattern: str) -> None:
    assert names(ignore=(pattern,)) == ["a.q", "a.k"]
    said = "--ignore lm_head: it is tied to embed (one tensor with two names), so both are left unquantized"
    assert notes(ignore=(pattern,)) == [said]


def test_a_tied_head_is_searched_by_its_own_name() -> None:
    assert names(targets=("lm_head", "a.q")) == ["embed", "a.q"]
    assert notes(targets=("lm_head", "a.q")) == ["--targets lm_head: it is tied to embed (one tensor with two names), so both are searched"]


def test_nothing_is_said_where_both_names_or_only_the_first_are_picked() -> None:
    assert names(ignore=("embed",)) == names(ignore=("embed", "lm_head")) == ["a.q", "a.k"]
    assert notes(ignore=("embed",)) == notes(ignore=("*e*",)) == []


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(PatternError, match="--ignore 'head' matches nothing: the closest names are lm_head"):
        names(ignore=("head",))


def test_a_search_without_layers_is_refused() -> None:
    with pytest.raises(PatternError, match="no layers left to search: widen --targets or narrow --ignore"):
        names(targets=("idle",))
    with pytest.raises(ModelError, match="no layers left to search"):
        chosen_layers(Discovery((), (), (), {}), AnalysisSettings())
