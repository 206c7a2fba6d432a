import inspect
from dataclasses import fields

import pytest

import mpq
from mpq.choices import AnalysisChoices, SearchChoices
from mpq.config import AnalysisSettings, SearchSettings, settings_from
from mpq.errors import ConfigError
from mpq.formats.scheme import parse_scheme

PAIRS = [(AnalysisSettings, AnalysisChoices), (SearchSettings, SearchChoices)]


def analysis(own: AnalysisSettings) -> AnalysisChoices:
    """Settings as keywords: a type checker refuses this where a keyword does not take what its setting holds."""
    return {
        "candidates": own.candidates,
        "targets": own.targets,
        "ignore": own.ignore,
        "metric": own.metric,
        "outputs": own.outputs,
        "quantizer": own.quantizer,
        "method": own.method,
        "held_out": own.held_out,
        "seed": own.seed,
        "activations": own.activations,
        "equalize": own.equalize,
    }


def search(own: SearchSettings) -> SearchChoices:
    return {
        "pins": own.pins,
        "ties": own.ties,
        "min_bits": own.min_bits,
        "candidates": own.candidates,
        "costs": own.costs,
        "memory": own.memory,
        "start": own.start,
        "trials": own.trials,
        "timeout": own.timeout,
        "seed": own.seed,
        "storage": own.storage,
        "rest": own.rest,
        "activations": own.activations,
        "sketches": own.sketches,
    }


def test_the_keywords_are_the_fields_of_the_settings() -> None:
    for settings, choices in PAIRS:
        assert list(choices.__annotations__) == [each.name for each in fields(settings)]
    assert list(analysis(AnalysisSettings())) == list(AnalysisChoices.__annotations__)
    assert list(search(SearchSettings())) == list(SearchChoices.__annotations__)


def test_keywords_in_every_form_become_settings() -> None:
    one: AnalysisChoices = {"candidates": 8, "targets": "a", "ignore": ["b", "c"], "held_out": 1}
    assert settings_from(AnalysisSettings, one) == AnalysisSettings(candidates=("8",), targets=("a",), ignore=("b", "c"), held_out=1.0)
    other: SearchChoices = {"pins": {"a": "int8"}, "candidates": {"b": 8}, "ties": "auto", "timeout": None}
    assert settings_from(SearchSettings, other) == SearchSettings(
        pins={"a": parse_scheme("int8")}, candidates={"b": ("8",)}, ties=("auto",)
    )


@pytest.mark.parametrize(("function", "settings"), [(mpq.analyze, AnalysisSettings), (mpq.search, SearchSettings)])
def test_help_names_each_keyword_with_its_default_and_its_words(function: object, settings: type[AnalysisSettings]) -> None:
    assert callable(function)
    parameters, told = inspect.signature(function).parameters, inspect.getdoc(function) or ""
    words = inspect.getdoc(settings) or ""
    assert "choices" not in parameters
    assert "**choices" not in told
    for each in fields(settings):
        assert parameters[each.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[each.name].default == getattr(settings(), each.name)
        line = next(line for line in words.splitlines() if line.startswith(f"    {each.name}: "))
        assert line in told.splitlines()


def test_settings_and_keywords_together_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        mpq.search("none.jsonl", "4bits", settings=SearchSettings(), trials=3)
    assert str(error.value) == "settings and trials are both given: put trials into the settings, or leave the settings out"
