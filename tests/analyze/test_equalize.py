from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mpq
from mpq.activations.equalized import folded
from mpq.analyze.equalize import exponents_of
from mpq.apply.shard_job import apply_shards
from mpq.errors import ApplyError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import from_module
from mpq.records.equalization import Chain
from mpq.records.sensitivity import read_sensitivity
from tests.activations.networks import depthwise, images
from tests.models.small import bits

CHOICES: dict[str, Any] = {"candidates": ("8",), "quantizer": "rtn", "method": "measure", "metric": "relative_mse"}
SPREAD = (
    Chain("conv.1", ("1.weight", "1.bias"), ("3.weight",), (0, -6, 3, -2, 6, -5, 1, -4)),
    Chain("conv.2", ("4.weight", "4.bias"), ("6.weight",), (6, -6, 3, -2, 0, -5, 1, -4)),
)


def spread() -> nn.Module:
    """The same function as `depthwise`, with channels of very different ranges."""
    module = depthwise()
    for name, value in folded(module, SPREAD).items():
        module.state_dict()[name].copy_(value)
    return module


def samples() -> list[Tensor]:
    return list(torch.split(images(32), 4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> mpq.Sensitivity:
    """An analysis with equalized channels, read from its file."""
    path = tmp_path_factory.mktemp("made") / "t.jsonl"
    mpq.analyze(spread(), samples(), **CHOICES, activations="8", output=path)
    return read_sensitivity(path)


def held_out(table: mpq.Sensitivity, module: nn.Module) -> float:
    plan = mpq.search(table, "32bits", measurer=mpq.PlanMeasurer(module, samples(), table), trials=0).plan
    return float(plan.evidence["measured"]["held_out"])


def test_badly_spread_channels_are_equalized_and_the_error_of_the_plan_falls_a_lot(made: mpq.Sensitivity) -> None:
    module = spread()
    before = bits(module)
    assert [chain.tensor for chain in made.header.equalization] == ["conv.1", "conv.2"]
    assert any(note.startswith("equalization kept for 2 tensors: relative MSE ") for note in made.header.notes)
    plain = mpq.analyze(module, samples(), **CHOICES, activations="8", equalize=False)
    assert plain.header.equalization == ()
    assert 50 * held_out(made, module) < held_out(plain, module)
    assert bits(module) == before


def test_the_artifact_has_the_error_that_the_plan_says(made: mpq.Sensitivity, tmp_path: Path) -> None:
    module = spread()
    before, measurer = bits(module), mpq.PlanMeasurer(module, samples(), made)
    plan = mpq.search(made, "32bits", measurer=measurer, trials=0).plan
    mpq.apply(module, plan, tmp_path / "a.mpq.safetensors", recovery=False, allow_unchanged=True)
    assert bits(module) == before
    loaded = mpq.load(tmp_path / "a.mpq.safetensors", spread())
    split = fit_data(samples(), model=from_module(module), source="memory").split_as(made.header.data)
    errors = []
    for batch in split.held_out.batches:
        with torch.no_grad():
            expected, found = module(*batch.args), loaded(*batch.args)
        errors.append((found - expected).square().sum(1) / expected.square().sum(1))
    assert plan.evidence["measured"]["held_out"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)


def test_without_gain_nothing_is_scaled_and_without_activations_nothing_is_tried() -> None:
    quiet = mpq.analyze(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval(), list(torch.randn(8, 4, 4)), **CHOICES, activations="8")
    assert quiet.header.equalization == ()
    told = next(note for note in quiet.header.notes if note.startswith("equalization"))
    assert told == "equalization was left out: none of 1 tensors gains by it on calibration samples"
    plain = mpq.analyze(spread(), samples(), **CHOICES)
    assert not plain.header.equalization
    assert not any("equalization" in note for note in plain.header.notes)


def test_an_analysis_that_is_continued_keeps_its_channels(made: mpq.Sensitivity, tmp_path: Path) -> None:
    assert made.path is not None
    (tmp_path / "t.jsonl").write_bytes(made.path.read_bytes())
    again = mpq.analyze(spread(), samples(), **{**CHOICES, "candidates": ("8", "4")}, output=tmp_path / "t.jsonl")
    assert again.header.equalization == made.header.equalization
    mpq.analyze(spread(), samples(), **CHOICES, output=tmp_path / "late.jsonl")
    late = mpq.analyze(spread(), samples(), **CHOICES, activations="8", output=tmp_path / "late.jsonl")
    assert late.header.equalization == ()
    assert any(
        note.startswith("equalization was not tried: the layers of this analysis are measured without it") for note in late.header.notes
    )


def test_the_prepared_model_computes_what_the_artifact_does(made: mpq.Sensitivity, tmp_path: Path) -> None:
    plan = mpq.search(made, "32bits", trials=0, activations="off").plan
    assert plan.equalization
    mpq.apply(spread(), plan, tmp_path / "a.mpq.safetensors", recovery=False, allow_unchanged=True)
    module = spread()
    mpq.prepare(module, plan)
    with torch.no_grad():
        expected = mpq.load(tmp_path / "a.mpq.safetensors", spread())(images())
        assert torch.allclose(module(images()), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_shards_refuse_equalized_channels(made: mpq.Sensitivity, tmp_path: Path) -> None:
    plan = mpq.search(made, "32bits", trials=0, activations="off").plan
    save_file({name: tensor.contiguous() for name, tensor in spread().state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(ApplyError, match="the plan has equalized channels: leave out --shards, or analyze again with --no-equalize"):
        apply_shards(tmp_path / "w.safetensors", plan, tmp_path / "out")


@pytest.mark.parametrize(
    ("largest", "weights", "strength", "expected"),
    [
        ([1, 4, 16], [1, 1, 1], 1.0, [2, 0, -2]),
        ([1, 4, 16], [1, 1, 1], 0.5, [1, 0, -1]),
        ([1, 1, 1], [1, 16, 1], 0.5, [-1, 1, -1]),
        ([1, 0, 4], [1, 1, 0], 1.0, [0, 0, 0]),  # a channel that is always 0, and one that nobody reads
        ([1, 2.0**40], [1, 1], 1.0, [8, -8]),
        ([0, 0], [1, 1], 0.5, [0, 0]),
    ],
)
def test_exponents_follow_the_ranges(largest: list[float], weights: list[float], strength: float, expected: list[int]) -> None:
    assert exponents_of(torch.tensor(largest, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32), strength) == expected
