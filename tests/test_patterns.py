from __future__ import annotations

import pytest

from mpq.errors import PatternError
from mpq.patterns import gathered, select

NAMES = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer10.conv1", "odd[0].weight", "odd0.weight", "head"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], []),
        (["conv1"], ["conv1"]),
        (["*.conv1"], ["layer1.0.conv1", "layer10.conv1"]),
        (["layer1.*"], ["layer1.0.conv1", "layer1.0.conv2"]),
        (["layer1.0.conv?"], ["layer1.0.conv1", "layer1.0.conv2"]),
        (["layer1.0.conv[!1]"], ["layer1.0.conv2"]),
        ([r"re:layer\d+\..*conv1"], ["layer1.0.conv1", "layer10.conv1"]),
        (["re:conv1"], ["conv1"]),
        (["head", "conv1"], ["conv1", "head"]),
        (["*", "head"], NAMES),
        (["odd[0].weight"], ["odd[0].weight"]),
    ],
    ids=str,
)
def test_patterns_pick_names_in_the_order_of_the_names(patterns: list[str], expected: list[str]) -> None:
    assert select(NAMES, patterns, option="--targets") == expected


def test_a_name_given_twice_is_picked_once() -> None:
    assert select(["a", "b", "a"], ["*"], option="--targets") == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (
            NAMES,
            "layer1.0.conv3",
            "--ignore 'layer1.0.conv3' matches nothing: the closest names are layer1.0.conv2, layer1.0.conv1, layer10.conv1",
        ),
        (NAMES, "layer1", "--ignore 'layer1' matches nothing: for everything inside it, write 'layer1.*'"),
        (["head"], "re:hea", "--ignore 're:hea' matches nothing: the only name is head"),
        ([], "*", "--ignore '*' matches nothing: there are no layers to choose from"),
        (NAMES, "re:(", "--ignore 're:(' is not a regular expression: missing ), unterminated subpattern at position 0"),
        (["Head", "tail"], "head", "--ignore 'head' matches nothing: the closest names are Head, tail"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_advice(names: list[str], pattern: str, message: str) -> None:
    with pytest.raises(PatternError) as error:
        select(names, [pattern], option="--ignore")
    assert str(error.value) == message


def test_one_idle_pattern_among_good_ones_is_refused() -> None:
    with pytest.raises(PatternError, match=r"'zzz' matches nothing"):
        select(NAMES, ["head", "zzz"], option="--targets")


def test_values_of_all_patterns_of_a_name_are_gathered() -> None:
    assert gathered(NAMES, {"*conv1": ["8"], "layer10.*": ["4", "8"]}, option="--candidates") == {
        "conv1": {"8"},
        "layer1.0.conv1": {"8"},
        "layer10.conv1": {"4", "8"},
    }
    with pytest.raises(PatternError, match=r"^--candidates 'none' matches nothing"):
        gathered(NAMES, {"none": ["8"]}, option="--candidates")
