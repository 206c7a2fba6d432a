"""Samples added to an analysis that exists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mpq
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import MismatchError
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.models.small import inputs, mlp

CHOICES: dict[str, Any] = {"candidates": ("2", "3"), "quantizer": "rtn", "method": "measure"}
ALL = inputs(60, 8)


def samples(count: int, *, ordered: bool = False, batch_size: int = 8) -> Data:
    return replace(data_from_batches(list(torch.split(ALL[:count], batch_size))), ordered=ordered)


def analyzed(path: Path | None, data: Data, **choices: Any) -> Sensitivity:
    return mpq.analyze(mlp(), data, output=path, **(CHOICES | choices))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()[1:]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("method", ["measure", "fisher"])
def test_figures_of_samples_that_were_there_are_kept_and_only_new_ones_measured(tmp_path: Path, method: str, ordered: bool) -> None:
    path = tmp_path / "t.jsonl"
    before = analyzed(path, samples(20, ordered=ordered), method=method)
    kept = lines(path)
    after = analyzed(path, samples(36, ordered=ordered), method=method)
    assert lines(path)[: len(kept)] == kept
    assert after.finished
    assert after.header.data["samples"] == {"calibration": 27, "held_out": 9}
    for key, errors in before.errors.items():
        figures, grown = (before.products, after.products) if method == "fisher" else (before.errors, after.errors)
        assert len(errors) == 15
        assert grown[key][: len(figures[key])].tolist() == figures[key].tolist()
        assert len(after.errors[key]) == 27


def test_new_figures_are_those_of_an_analysis_of_the_added_samples_alone(tmp_path: Path) -> None:
    analyzed(tmp_path / "t.jsonl", samples(20))
    after = analyzed(tmp_path / "t.jsonl", samples(36))
    added = analyzed(None, data_from_batches([ALL[20:36]]))
    for key, errors in added.errors.items():
        assert np.allclose(after.errors[key][15:], errors, rtol=1e-3, atol=1e-6)


def test_no_sample_changes_sides_when_others_are_added() -> None:
    first, grown = samples(20).split(0.25, 0), samples(60).split(0.25, 0, [20, 30, 10])
    for before, after in zip(first, grown, strict=True):
        assert after.first(before.samples).sha256 == before.sha256
    assert (grown[0].samples, grown[1].samples) == (44, 16)


def test_samples_are_added_again_and_again_and_one_at_a_time(tmp_path: Path) -> None:
    for count in (20, 36, 37):
        found = analyzed(tmp_path / "t.jsonl", samples(count))
    assert found.header.data["parts"] == [20, 16, 1]
    assert found.header.data["samples"] == {"calibration": 28, "held_out": 9}
    assert "1 samples added to 36: the earlier samples keep their values" in " ".join(found.header.notes)


def test_an_analysis_killed_after_samples_were_added_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    analyzed(path, samples(20))
    kept = len(path.read_bytes().splitlines())
    whole = analyzed(path, samples(36))
    for cut in (kept, kept + 2):
        content = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(content[:cut]))
        assert not read_sensitivity(path).finished
        again = analyzed(path, samples(36))
        assert again.finished
        assert all(again.errors[key].tolist() == errors.tolist() for key, errors in whole.errors.items())


def test_codes_stay_those_of_the_first_samples(tmp_path: Path) -> None:
    plain = analyzed(tmp_path / "t.jsonl", samples(20), quantizer="gptq")
    grown = analyzed(tmp_path / "t.jsonl", samples(60), quantizer="gptq")
    measurer = mpq.PlanMeasurer(mlp(), samples(60), grown)
    layer = plain.layers[1].name
    scheme = plain.header.candidates[layer][0]
    single = measurer.calibration({layer: scheme})
    assert np.allclose(single[:15], plain.errors[layer, scheme], rtol=1e-3, atol=1e-6)
    assert np.allclose(single, grown.errors[layer, scheme], rtol=1e-3, atol=1e-6)


def test_a_plan_of_a_grown_analysis_is_applied_with_the_same_split(tmp_path: Path) -> None:
    analyzed(tmp_path / "t.jsonl", samples(20), quantizer="gptq")
    grown = analyzed(tmp_path / "t.jsonl", samples(60), quantizer="gptq")
    plan = mpq.search(grown, "4bits").plan
    assert plan.data["parts"] == [20, 40]
    assert mpq.apply(mlp(), plan, tmp_path / "a.mpq.safetensors", data=samples(60)).file_bytes == plan.size.file_bytes


def test_samples_spread_over_a_file_are_added_to_and_never_mixed_with_the_first_ones(tmp_path: Path) -> None:
    torch.save(ALL, tmp_path / "data.pt")
    path, model = tmp_path / "t.jsonl", mlp()

    def read(count: int | None, *, spread: bool = True) -> Data:
        return mpq.load_data(tmp_path / "data.pt", model=model, num_samples=count, spread=spread)

    before = analyzed(path, read(20))
    assert before.header.data["spread"]
    with pytest.raises(MismatchError, match="holds an analysis with another data"):
        analyzed(path, read(20, spread=False))
    for count, parts in ((36, [20, 16]), (None, [20, 16, 24])):
        after = analyzed(path, read(count))
        assert (after.header.data["parts"], after.header.data["spread"]) == (parts, True)
        assert all(after.errors[key][:15].tolist() == errors.tolist() for key, errors in before.errors.items())
    plan = mpq.search(after, "4bits").plan
    assert (plan.data["parts"], plan.data["spread"]) == ([20, 16, 24], True)
    assert mpq.apply(model, plan, tmp_path / "a.mpq.safetensors", data=read(None)).file_bytes == plan.size.file_bytes
    first = analyzed(tmp_path / "first.jsonl", read(20, spread=False))
    assert not first.header.data["spread"]
    with pytest.raises(MismatchError, match="holds an analysis with another data"):
        analyzed(tmp_path / "first.jsonl", read(36))


@pytest.mark.parametrize("data", [data_from_batches([inputs(36, 8, seed=5)]), samples(12)])
def test_other_samples_and_fewer_samples_are_refused(tmp_path: Path, data: Data) -> None:
    analyzed(tmp_path / "t.jsonl", samples(20))
    with pytest.raises(MismatchError, match="holds an analysis with another data"):
        analyzed(tmp_path / "t.jsonl", data)
