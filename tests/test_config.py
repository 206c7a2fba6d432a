from pathlib import Path
from typing import Any

import pytest

from mpq.config import AnalysisSettings, DataSettings, SearchSettings, read_config, settings_from
from mpq.errors import ConfigError, SchemeError
from mpq.formats.scheme import Scheme, parse_scheme


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to(text: str) -> Path:
        (tmp_path / "c.yaml").write_text(text)
        return tmp_path / "c.yaml"

    return to


def test_none_stands_for_the_default() -> None:
    assert settings_from(AnalysisSettings, {"method": None, "seed": None}) == AnalysisSettings()
    assert settings_from(SearchSettings, {}) == SearchSettings()


@pytest.mark.parametrize(
    ("kind", "choices", "expected"),
    [
        (AnalysisSettings, {"candidates": 8}, {"candidates": ("8",)}),
        (AnalysisSettings, {"candidates": "2..8"}, {"candidates": ("2..8",)}),
        (AnalysisSettings, {"candidates": [4, "int8"]}, {"candidates": ("4", "int8")}),
        (AnalysisSettings, {"held_out": 0.5, "seed": 3}, {"held_out": 0.5, "seed": 3}),
        (SearchSettings, {"pins": {"a": "int8", "b": Scheme("int4")}}, {"pins": {"a": Scheme("int8"), "b": Scheme("int4")}}),
        (SearchSettings, {"ties": [["a", "b"], "auto"]}, {"ties": (("a", "b"), "auto")}),
        (SearchSettings, {"min_bits": {"head": "8"}}, {"min_bits": {"head": 8}}),
        (SearchSettings, {"costs": {"c.csv": 5}}, {"costs": {"c.csv": 5.0}}),
        (SearchSettings, {"candidates": {"head": 8, "x*": ["4", 8]}}, {"candidates": {"head": ("8",), "x*": ("4", "8")}}),
        (SearchSettings, {"timeout": 3}, {"timeout": 3.0}),
        (DataSettings, {"num_samples": 8}, {"num_samples": 8}),
    ],
)
def test_values_are_taken_as_they_are_written(kind: Any, choices: dict[str, Any], expected: dict[str, Any]) -> None:
    assert settings_from(kind, choices) == kind(**expected)


@pytest.mark.parametrize(
    ("kind", "choices", "reason"),
    [
        (SearchSettings, {"trial": 3}, "'trial' is not a setting: use activations, candidates, costs, "),
        (SearchSettings, {"trials": "3"}, "trials is '3': give a number"),
        (SearchSettings, {"trials": True}, "trials is True: give a number"),
        (SearchSettings, {"trials": -1}, "trials is -1: give 0 or more"),
        (SearchSettings, {"timeout": float("nan")}, "timeout is nan: give 0 or more"),
        (SearchSettings, {"pins": ["a"]}, "pins is ['a']: give a mapping such as conv1: 8"),
        (SearchSettings, {"min_bits": {"a": "few"}}, "min_bits of a is 'few': give a number"),
        (SearchSettings, {"costs": {"c.csv": None}}, "costs of c.csv is None: give a number"),
        (AnalysisSettings, {"metric": 3}, "metric is 3: give text"),
        (AnalysisSettings, {"held_out": "half"}, "held_out is 'half': give a number"),
    ],
)
def test_what_is_no_setting_or_of_the_wrong_kind_is_refused(kind: Any, choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings_from(kind, choices)
    assert str(error.value).startswith(reason)


def test_a_section_is_read_and_another_is_empty(write: Any) -> None:
    path = write("analyze: {method: weight}\n")
    assert read_config(path, "analyze") == {"method": "weight"}
    assert read_config(path, "search") == {}


def test_names_may_have_dashes_but_not_both(write: Any) -> None:
    assert read_config(write("analyze: {held-out: 0.5}\n"), "analyze") == {"held_out": 0.5}
    with pytest.raises(ConfigError, match=r"gives a setting twice, with '-' and with '_': remove one of them$"):
        read_config(write("analyze: {held-out: 0.5, held_out: 0.5}\n"), "analyze")


def test_pins_become_schemes_and_a_wrong_one_is_named_with_its_line(write: Any) -> None:
    assert read_config(write("search: {pins: {head: int8-g32}}\n"), "search") == {"pins": {"head": parse_scheme("int8-g32")}}
    with pytest.raises(SchemeError, match=r"c.yaml, line 3: "):
        read_config(write("search:\n  pins:\n    head: int9\n"), "search")


@pytest.mark.parametrize("text", ["- a\n", "text\n", "", "3\n"])
def test_what_is_not_made_of_sections_is_refused(write: Any, text: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as error:
        read_config(path, "analyze")
    assert str(error.value) == f"{path} is not a configuration: write sections such as 'analyze:' with settings below them"


@pytest.mark.parametrize("text", ["search: {best: 1}\n", "best: {}\n", "search: {trials: few}\n", "a: [\n"])
def test_a_mistake_in_any_section_is_refused(write: Any, text: str) -> None:
    with pytest.raises(ConfigError):
        read_config(write(text), "analyze")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: No such file or directory; name a YAML file with --config$"):
        read_config(tmp_path / "none.yaml", "analyze")
