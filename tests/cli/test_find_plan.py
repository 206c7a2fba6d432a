"""The plan that an artifact was made from."""

from dataclasses import replace
from pathlib import Path

import pytest

from mpq.cli.find_plan import plan_of
from mpq.errors import MismatchError, MpqError
from mpq.records.plan import write_plan
from tests.check.making import plan_of as made
from tests.check.making import write_artifact

PLAN = made("int4 int4 int8")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_artifact(PLAN, tmp_path / "m.mpq.safetensors")
    return tmp_path / "m.mpq.safetensors"


def test_the_first_plan_with_current_evidence_is_found(artifact: Path, tmp_path: Path) -> None:
    assert plan_of(artifact) is None
    write_plan(replace(PLAN, evidence={}), tmp_path / "a.yaml")
    write_plan(made("int8 int8 int8"), tmp_path / "b.yaml")
    assert plan_of(artifact) is None
    for name in ("d.yaml", "c.yaml"):
        write_plan(PLAN, tmp_path / name)
    assert plan_of(artifact) == (tmp_path / "c.yaml", PLAN)


def test_a_plan_that_is_given_is_taken_wherever_it_is(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    path = tmp_path / "deeper" / "p.txt"
    write_plan(replace(PLAN, evidence={}), path)
    assert plan_of(artifact, given=path) == (path, replace(PLAN, evidence={}))


def test_a_plan_of_another_artifact_is_refused(artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    write_plan(made("int8 int8 int8"), path)
    with pytest.raises(MismatchError) as caught:
        plan_of(artifact, given=path)
    assert str(caught.value) == f"{path} is not the plan of m.mpq.safetensors: its model or schemes differ"
    with pytest.raises(MpqError):
        plan_of(artifact, given=tmp_path / "none.yaml")


def test_an_artifact_that_is_not_there_has_no_plan(tmp_path: Path) -> None:
    assert plan_of(tmp_path / "none", given=tmp_path / "none.yaml") is None
