"""Bytes allocated again after training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import mpq
from mpq.apply.contents import checked_layers
from mpq.apply.train import stored_state
from mpq.data.dataset import Data
from mpq.formats.scheme import Scheme
from mpq.models.running.fake_quantized import as_parameters
from mpq.models.running.reference import Reference
from mpq.models.running.swap import swapped
from mpq.models.sources.load import from_module
from mpq.models.sources.loaded import LoadedModel
from mpq.reallocation import Reallocated, _correlation, _task, reallocate, replanned, scored
from mpq.records.artifact_files import read_header
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.recovery.training.settings import TrainSettings
from mpq.search.run import search
from tests.models.small import data, mlp
from tests.small import schemes

SETTINGS = TrainSettings("codes", epochs=2, rate=3.0, blocks=False)
INT2, INT4, INT8 = schemes("int2-g4", "int4-g4", "int8-g4")


@dataclass(frozen=True)
class Made:
    model: LoadedModel
    given: Data
    table: Sensitivity
    plan: Plan
    artifact: Path


BAD = {"0": "int8-g4", "3": "int2-g4", "5": "int2-g4"}


def made(folder: Path, *, bad: bool) -> Made:
    """An artifact of at most 8.2 bits with scales, from 2, 4 and 8 in small groups; the bad one spends them on the first layer."""
    model, given = from_module(mlp()), data(128)
    settings = mpq.AnalysisSettings(candidates=("int2-g4", "int4-g4", "int8-g4"), quantizer="rtn", metric="relative_mse", method="measure")
    table = mpq.analyze(model, given, settings=settings, output=folder / "a.sensitivity.jsonl")
    plan = replace(search(table, "8.2bits", trials=0, pins=BAD if bad else {}, sketches=bad).plan, pinned=())
    return Made(model, given, table, plan, mpq.apply(model, plan, folder / "a.mpq.safetensors", data=given, recovery=False).path)


def again(found: Made, folder: Path, settings: TrainSettings = SETTINGS) -> Reallocated:
    return reallocate(
        found.model,
        found.plan,
        found.table,
        found.artifact,
        folder / "b.mpq.safetensors",
        data=data(96, seed=5),
        plan_data=found.given,
        settings=settings,
        folder=folder / "work",
    )


def test_a_bad_allocation_is_replaced_at_no_more_bytes(tmp_path: Path) -> None:
    before = made(tmp_path, bad=True)
    found = again(before, tmp_path)
    assert found.plan is not None
    plan, decision = found.plan, found.decision
    assert decision.kept
    assert (decision.after or 1.0) < (decision.before or 0.0)
    assert decision.line.startswith(f"Reallocation kept for {len(found.changed)} layers: relative MSE ")
    assert set(found.changed) == {name for name, scheme in plan.layers.items() if scheme != before.plan.layers[name]}
    path = tmp_path / "b.mpq.safetensors"
    assert path.stat().st_size == plan.size.file_bytes <= before.plan.size.file_bytes
    assert read_header(path).schemes == plan.layers
    sketches = read_header(path).sketches
    assert sketches is not None
    assert sketches.layers == plan.sketches
    assert plan.evidence_is_current
    recovery = plan.evidence["recovery"]
    assert (recovery["artifact"], recovery["before"], recovery["after"]) == (path.name, decision.before, decision.after)
    assert not (tmp_path / "work" / "reallocated.mpq.safetensors").exists()
    mpq.write_plan(plan, tmp_path / "b.yaml")
    assert mpq.read_plan(tmp_path / "b.yaml").layers == plan.layers
    assert torch.isfinite(mpq.load(path, mlp())(torch.randn(2, 8))).all()


def test_the_new_artifact_has_a_fingerprint_and_names_earlier_steps_where_the_old_one_does(tmp_path: Path) -> None:
    before = made(tmp_path, bad=True)
    tuned = mpq.apply(before.model, before.plan, tmp_path / "tuned.mpq.safetensors", data=before.given, reconstruct=False)
    kept = read_header(tuned.path).recovery
    assert kept
    assert again(replace(before, artifact=tuned.path), tmp_path).plan is not None
    new = read_header(tmp_path / "b.mpq.safetensors")
    assert len(new.digests) == len(new.schemes) + 1
    assert set(new.recovery) >= set(kept)


def test_the_best_allocation_stays_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(tmp_path, bad=False)
    monkeypatch.setattr("mpq.reallocation.replanned", lambda plan, *_: plan)
    found = again(before, tmp_path)
    assert (found.plan, found.retrained, found.changed) == (None, None, ())
    assert found.decision.line == "Reallocation not kept: the allocation is already the best one"
    assert not (tmp_path / "b.mpq.safetensors").exists()


def test_a_worse_allocation_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made(tmp_path, bad=False)
    bad = made(tmp_path, bad=True).plan
    (tmp_path / "b.mpq.safetensors").write_bytes(b"of an earlier run")
    monkeypatch.setattr("mpq.reallocation.replanned", lambda *_: bad)
    found = again(before, tmp_path, replace(SETTINGS, rate=1e-6))
    assert found.plan is None
    assert not found.decision.kept
    assert (tmp_path / "b.mpq.safetensors").read_bytes() == b"of an earlier run"
    assert not list((tmp_path / "work").glob("*.mpq.safetensors"))


def test_scores_are_errors_with_one_layer_requantized_and_the_others_as_trained(tmp_path: Path) -> None:
    before = made(tmp_path, bad=False)
    layers, split = checked_layers(before.plan, before.model), before.given.split_as(before.plan.data)
    state = stored_state(before.artifact, read_header(before.artifact), layers, before.model)
    task = _task(before.model, before.plan, layers, split)
    told: list[int] = []
    scores = scored(task, state, before.table, lambda done, total, _: told.append(total))
    assert set(scores) == {(layer.name, scheme) for layer in layers for scheme in before.table.header.candidates[layer.name]}
    assert told == [len(scores)] * len(scores)
    reference, module = Reference(task.module, split.calibration, task.metric), before.model.module
    wanted: Mapping[str, Tensor] = as_parameters({"3": task.variants.quantized("3", INT2)}, [task.variants.layers["3"]])
    with torch.no_grad(), swapped(module, state.values(layers)), swapped(module, wanted):
        outputs = [module(*batch.args) for batch in split.calibration.batches]
    expected = torch.cat([reference.compared(index, (output,)) for index, output in enumerate(outputs)]).mean()
    assert scores["3", INT2] == pytest.approx(float(expected))


def test_a_new_plan_spends_bytes_where_the_scores_say_and_keeps_pins(tmp_path: Path) -> None:
    before = made(tmp_path, bad=True)

    def planned(sensitive: str, plan: Plan = before.plan) -> dict[str, Scheme]:
        steps = {INT2: 4.0, INT4: 2.0, INT8: 1.0}
        scores = {
            (layer.name, scheme): 10 + (100 if layer.name == sensitive else 1) * steps.get(scheme, 0.0)
            for layer in before.table.layers
            for scheme in before.table.header.candidates[layer.name]
        }
        return replanned(plan, before.table, scores).layers

    assert planned("0") == {"0": INT8, "3": INT2, "5": INT2}
    assert planned("3") == {"0": INT4, "3": INT4, "5": INT4}
    assert planned("5")["5"] == INT8
    assert planned("5", replace(before.plan, pinned=("5",)))["5"] == INT2


def test_equal_scores_have_a_rank_correlation_of_one_and_opposite_ones_of_minus_one(tmp_path: Path) -> None:
    table = made(tmp_path, bad=False).table
    same = {key: float(values.mean()) + 3 for key, values in table.errors.items()}
    assert _correlation(table, same) == pytest.approx(1.0)
    assert _correlation(table, {key: -value for key, value in same.items()}) == pytest.approx(-1.0)
    flat = Sensitivity(table.header, {key: np.zeros(1) for key in list(table.errors)[:1]})
    assert _correlation(flat, dict.fromkeys(flat.errors, 1.0)) == 1.0
