from pathlib import Path

import pytest
from torch import nn

import mpq
from mpq.analyze import run
from mpq.analyze.memory import Expected, expected_memory, held_now
from mpq.analyze.prepare import prepare
from mpq.config import AnalysisSettings
from mpq.models.sources.load import from_module
from tests.models.small import bits, data, mlp

CANDIDATES = ("2", "8")


def expected(module: nn.Module, *, gradients: bool, statistics: bool) -> Expected:
    loaded, samples = from_module(module), data(64)
    prepared = prepare(loaded, samples, AnalysisSettings(candidates=CANDIDATES, quantizer="rtn", method="fisher"))
    return expected_memory(loaded, prepared, gradients=gradients, statistics=statistics)


def test_each_part_is_counted() -> None:
    found = expected(mlp(), gradients=True, statistics=True)
    batch, outputs = 8, 4 * 8 * 4
    activations = 4 * batch * (8 + 16 + 16 + 16 + 12 + 12 + 4)
    assert 8 * outputs < found.batch <= 8 * outputs + 2 * activations
    assert found.outputs == outputs * 48 // 8
    assert found.layer == 4 * 4 * 16 * 12
    weights = 2 * (8 * 16 + 16 * 12 + 12 * 4)
    moments = 8 * (8**2 + 16**2 + 12**2)
    assert 0 < found.kept - (4 * weights + 2 * weights + moments * 3 // 2) < weights  # the codes
    assert found.total == found.held + found.batch + found.outputs + found.kept + found.layer


def test_without_gradients_and_statistics_it_is_less_and_the_model_stays_as_it_was() -> None:
    module = mlp()
    before, flags = bits(module), [each.requires_grad for each in module.parameters()]
    less, more = expected(module, gradients=False, statistics=False), expected(module, gradients=True, statistics=True)
    assert less.batch == 8 * 4 * 8 * 4
    assert less.kept < more.kept
    assert (bits(module), [each.requires_grad for each in module.parameters()]) == (before, flags)


def test_the_line_names_the_parts() -> None:
    line = Expected(held=10**9, batch=2 * 10**9, outputs=3 * 10**8, kept=4 * 10**8, layer=0).line
    assert line == (
        "memory: about 3.7 GB expected at most (held now 1.0, one batch 2.0, the reference's outputs 0.3, statistics and codes 0.4, "
        "the largest layer 0.0)"
    )


def test_what_is_held_is_what_the_system_says() -> None:
    assert held_now() == 0 or 10**7 < held_now() < 10**11


def test_it_is_told_before_the_first_measurement_where_it_is_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    chosen = {"candidates": CANDIDATES, "quantizer": "rtn", "method": "measure"}

    def progress(*_: object) -> None:
        told.append("measured")

    table = mpq.analyze(mlp(), data(), tell=told.append, on_progress=progress, **chosen)  # type: ignore[arg-type]
    assert set(told) == {"measured"}
    assert table.finish is not None
    assert table.finish["cost"]["expected_memory_bytes"] > 0
    told.clear()
    monkeypatch.setattr(run, "LARGE_MEMORY", 1)
    mpq.analyze(mlp(), data(), tell=told.append, on_progress=progress, **chosen)  # type: ignore[arg-type]
    assert told[0].startswith("memory: about ")
