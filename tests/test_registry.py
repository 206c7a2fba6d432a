"""Every part is found by its name, and what lists parts asks their registry."""

from typing import Any

import pytest

from mpq.analyze.methods.registry import METHODS
from mpq.config import AnalysisSettings
from mpq.errors import UsageError
from mpq.export.registry import TARGETS
from mpq.models.running.metric_registry import AGREEMENTS, EVALUATED, FIGURES, METRICS
from mpq.registry import Registry, either
from mpq.schemas import schema
from mpq.tensors.quantizers.registry import QUANTIZERS

REGISTRIES: dict[str, Registry[Any]] = {"quantizer": QUANTIZERS, "metric": METRICS, "method": METHODS, "target": TARGETS}
PARTS = [(noun, name) for noun, registry in REGISTRIES.items() for name in registry]


@pytest.mark.parametrize(("noun", "name"), PARTS)
def test_each_part_is_found_by_its_name_and_knows_it(noun: str, name: str) -> None:
    kind = REGISTRIES[noun].kind(name)
    assert isinstance(kind, type)
    assert getattr(kind, "name", name) == name
    assert REGISTRIES[noun][name]


@pytest.mark.parametrize("noun", REGISTRIES)
def test_an_unknown_name_is_refused_with_the_known_ones(noun: str) -> None:
    with pytest.raises(UsageError) as caught:
        REGISTRIES[noun].kind("best")
    also = "auto, " if noun == "method" else ""
    assert str(caught.value) == f"'best' is not a {noun}: use one of {also}{', '.join(REGISTRIES[noun])}"


def test_names_make_a_choice() -> None:
    assert [either(dict.fromkeys(names, "")) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]


def test_the_settings_schema_lists_what_the_registries_hold() -> None:
    settings = schema("config")["properties"]["analyze"]["properties"]
    assert settings["metric"]["enum"] == ["auto", *METRICS]
    assert settings["quantizer"]["examples"] == ["auto", *QUANTIZERS]
    assert settings["method"]["examples"] == ["auto", *METHODS]


def test_defaults_are_names_that_exist() -> None:
    default = AnalysisSettings()
    for value, registry in ((default.metric, METRICS), (default.quantizer, QUANTIZERS), (default.method, METHODS)):
        assert value == "auto" or value in registry


def test_the_budgets_schema_lists_every_figure_of_an_evaluation() -> None:
    assert schema("budgets")["properties"]["budgets"]["items"]["properties"]["metric"]["enum"] == list(FIGURES)


def test_evaluated_metrics_are_metrics_and_agreements_are_figures() -> None:
    assert set(EVALUATED) <= set(METRICS)
    assert set(AGREEMENTS) < set(FIGURES)
    assert len(set(FIGURES)) == len(FIGURES)
