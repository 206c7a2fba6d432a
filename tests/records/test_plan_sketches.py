from dataclasses import replace
from pathlib import Path

import pytest

from mpq.budget import Budget
from mpq.errors import ApplyError, FormatError
from mpq.records.plan import plan_to_yaml, read_plan, write_plan
from mpq.records.plan_sketches import as_in_artifact, with_sketches
from mpq.records.sketch import Sketch
from mpq.records.stored_sketches import StoredSketches, sketch_bytes
from tests.apply.making import in_memory, plan_of
from tests.records.test_artifact import FACTS

PLAN = replace(plan_of(in_memory("mlp"), "mlp"), budget=Budget("16bits"))


def test_sketches_are_counted_in_the_file_and_not_in_the_layers() -> None:
    found = with_sketches(PLAN, True)
    assert found.sketches == ("0", "3", "5")
    assert 0 <= found.size.file_bytes - PLAN.size.file_bytes - sketch_bytes(("0", "3", "5")) + 7 < 15
    assert found.size.layer_bytes == PLAN.size.layer_bytes
    assert with_sketches(found, False) == with_sketches(PLAN, None) == with_sketches(PLAN, False) == PLAN
    edited = replace(found, sketches=("5",))
    assert with_sketches(edited, True) == with_sketches(edited, None) == edited


def test_a_budget_on_the_file_without_room_for_them_says_so() -> None:
    tight = replace(PLAN, budget=Budget(f"{PLAN.size.file_bytes + 100}B", "file"))
    more = with_sketches(PLAN, True).size.file_bytes - PLAN.size.file_bytes
    with pytest.raises(ApplyError, match=f"sketches take {more:,} bytes, and the plan's budget .* leaves 100: leave out --sketches, or"):
        with_sketches(tight, True)
    roomy = replace(PLAN, budget=Budget(f"{PLAN.size.file_bytes + more}B", "file"))
    assert with_sketches(roomy, True).sketches is not None


def test_a_plan_takes_over_what_its_artifact_has() -> None:
    assert as_in_artifact(with_sketches(PLAN, True), FACTS).sketches is None
    stored = StoredSketches(("5",), ((Sketch(), 0.0),) * 5)
    assert as_in_artifact(PLAN, replace(FACTS, sketches=stored)).sketches == ("5",)


def test_a_plan_with_sketches_reads_back_and_is_of_version_4(tmp_path: Path) -> None:
    for layers in (("0", "5"), ()):
        write_plan(replace(PLAN, sketches=layers), tmp_path / "plan.yaml")
        assert read_plan(tmp_path / "plan.yaml").sketches == layers
    assert "mpq_plan: 4\n" in plan_to_yaml(replace(PLAN, sketches=()))
    assert "sketches" not in plan_to_yaml(PLAN)


@pytest.mark.parametrize(("names", "reason"), [(["0", "x"], "sketches names 'x', which is not among"), (["0", "0"], "names a layer twice")])
def test_unknown_and_repeated_layers_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    write_plan(replace(PLAN, sketches=tuple(names)), tmp_path / "plan.yaml")
    with pytest.raises(FormatError, match=reason):
        read_plan(tmp_path / "plan.yaml")
