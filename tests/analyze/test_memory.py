from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpq
from mpq.analyze import memory, run
from mpq.analyze.memory import Expected, activations_of, expected_memory
from mpq.analyze.prepare import prepare
from mpq.config import AnalysisSettings
from mpq.models.memory.offload import Offload
from mpq.models.sources.load import from_module
from tests.models.small import bits, data, mlp

CANDIDATES = ("2", "8")


def expected(module: nn.Module, *, gradients: bool, statistics: bool) -> Expected:
    loaded, samples = from_module(module), data(64)
    prepared = prepare(loaded, samples, AnalysisSettings(candidates=CANDIDATES, quantizer="rtn", method="fisher"))
    return expected_memory(
        loaded, prepared, activations_of(loaded, prepared, gradients=gradients), gradients=gradients, statistics=statistics
    )


def test_each_part_is_counted() -> None:
    module = mlp()
    found = expected(module, gradients=True, statistics=False)
    batch, outputs, weights = 8, 4 * 8 * 4, 8 * 16 + 16 * 12 + 12 * 4
    activations = 4 * batch * (8 + 16 + 2 + 16 + 12)
    codes = found.kept - 2 * 2 * weights
    assert 2 * weights / 8 + weights < codes < 2 * (2 * weights / 8 + weights)  # with scales
    assert (found.batch, found.outputs, found.layer) == (activations + 3 * outputs, 0, 4 * 4 * 16 * 12)
    assert found.total == found.held + found.batch + found.outputs + found.kept + found.layer


def test_the_step_that_needs_most_counts() -> None:
    module = nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 4)).eval()
    without, moments = (expected(module, gradients=False, statistics=each) for each in (False, True))
    weights, outputs = 8 * 200 + 200 * 4, 4 * 8 * 4
    codes = without.kept - 4 * weights - 4 * 2 * weights
    assert (without.batch, without.outputs, without.layer) == (3 * outputs, outputs * 48 // 8, 4 * 8 * 200)  # a plan is measured
    assert moments.kept == codes + 8 * (8**2 + 200**2) * 3 // 2  # statistics are collected
    assert (moments.batch, moments.outputs, moments.layer) == (0, 0, 4 * 4 * 8 * 200)


def test_without_gradients_and_statistics_it_is_less_and_the_model_stays_as_it_was() -> None:
    module = mlp()
    before, flags = bits(module), [each.requires_grad for each in module.parameters()]
    less, more = expected(module, gradients=False, statistics=False), expected(module, gradients=True, statistics=True)
    assert less.batch == 3 * 4 * 8 * 4
    assert less.kept < more.kept
    assert (bits(module), [each.requires_grad for each in module.parameters()]) == (before, flags)


def blocks(seen: list[bool] | None = None) -> nn.Module:
    """Three blocks of two layers; `seen` gets a value for each call of the first layer: whether gradients are wanted."""
    torch.manual_seed(0)
    layers = [(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(3)]
    layers[0][0].register_forward_pre_hook(lambda *_: None if seen is None else seen.append(torch.is_grad_enabled()))
    return nn.Sequential(*(nn.Sequential(first, nn.Tanh(), second, nn.Tanh()) for first, second in layers)).eval()


def test_beyond_a_limit_blocks_run_again_and_every_figure_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: Any = {"candidates": CANDIDATES, "quantizer": "rtn", "method": "fisher"}
    once, again = list[bool](), list[bool]()
    whole = mpq.analyze(blocks(once), data(64), **chosen)
    monkeypatch.setattr(memory, "RECOMPUTE_BYTES", 0)
    parts = mpq.analyze(blocks(again), data(64), **chosen)
    assert sum(again) > sum(once) + 2 * 6  # each of six batches again for each draw
    assert (parts.errors.keys(), parts.blend) == (whole.errors.keys(), whole.blend)
    assert all(np.array_equal(parts.errors[pair], errors) for pair, errors in whole.errors.items())


def test_what_is_saved_is_all_of_a_pass_or_the_inputs_of_blocks_and_the_largest_block(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = from_module(blocks())
    prepared = prepare(loaded, data(64), AnalysisSettings(candidates=CANDIDATES, quantizer="rtn", method="fisher"))
    whole = activations_of(loaded, prepared, gradients=True)
    assert (whole.saved, whole.outputs, whole.blocks) == (4 * 8 * 3 * (8 + 16) + 4 * 8 * 8, 4 * 8 * 8, ())
    monkeypatch.setattr(memory, "RECOMPUTE_BYTES", whole.saved - 1)
    parts = activations_of(loaded, prepared, gradients=True)
    assert [id(block) for block in parts.blocks] == [id(block) for block in loaded.module.children()]
    assert parts.saved == 4 * 8 * (3 * 8 + 8 + 16 + 8)


@pytest.mark.parametrize(
    ("gradients", "limit", "offloaded", "passes"),
    [(False, 1 << 30, False, 1), (True, 1 << 30, False, 1), (True, 0, False, 3), (True, 0, True, 2)],
)
def test_no_pass_is_run_whose_figures_are_not_used(
    gradients: bool, limit: int, offloaded: bool, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[bool]()
    loaded = from_module(blocks(seen))
    prepared = prepare(loaded, data(64), AnalysisSettings(candidates=CANDIDATES, quantizer="rtn", method="fisher"))
    monkeypatch.setattr(memory, "RECOMPUTE_BYTES", limit)
    seen.clear()
    found = activations_of(replace(loaded, offload=Offload(tmp_path) if offloaded else None), prepared, gradients=gradients)
    assert (len(seen), found.outputs, len(found.blocks)) == (passes, 4 * 8 * 8, 0 if limit else 3)


def test_blocks_that_would_keep_more_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RECOMPUTE_BYTES", 0)
    loaded = from_module(mlp())
    prepared = prepare(loaded, data(64), AnalysisSettings(candidates=CANDIDATES, quantizer="rtn", method="fisher"))
    assert activations_of(loaded, prepared, gradients=True).blocks == ()


def test_the_line_names_the_parts() -> None:
    line = Expected(held=10**9, batch=2 * 10**9, outputs=3 * 10**8, kept=4 * 10**8, layer=0).line
    assert line == (
        "memory: about 3.7 GB expected at most (held now 1.0, one batch 2.0, the reference's outputs 0.3, statistics and codes 0.4, "
        "the largest layer 0.0)"
    )


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
