from dataclasses import replace
from pathlib import Path

import pytest

from mpq.records.artifact_files import read_header
from mpq.records.artifact_plans import data_file, is_plan_of, plans_beside
from mpq.records.plan import write_plan
from tests.check.making import plan_of, write_artifact

PLAN = plan_of("int4 int4 int8")


def test_the_plans_of_an_artifact_have_its_model_and_its_schemes(tmp_path: Path) -> None:
    path = tmp_path / "m.mpq.safetensors"
    write_artifact(PLAN, path)
    header = read_header(path)
    assert is_plan_of(PLAN, header)
    assert not is_plan_of(plan_of("int4 int4 int4"), header)
    assert not is_plan_of(replace(PLAN, model=PLAN.model | {"sha256": "b" * 64}), header)
    assert is_plan_of(replace(PLAN, model=PLAN.model | {"path": "elsewhere.pt2"}), header)


def test_plans_are_found_in_the_folder_in_order_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "m.mpq.safetensors"
    write_artifact(PLAN, path)
    for name in ("b.yml", "a.yaml"):
        write_plan(PLAN, tmp_path / name)
    write_plan(plan_of("int8 int8 int8"), tmp_path / "other.yaml")
    (tmp_path / "damaged.yaml").write_text("mpq_plan: [")
    (tmp_path / "config.yaml").write_text("search: {budget: 4bits}\n")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "deeper").mkdir()
    write_plan(PLAN, tmp_path / "deeper" / "c.yaml")
    assert [(file.name, plan) for file, plan in plans_beside(path, read_header(path))] == [("a.yaml", PLAN), ("b.yml", PLAN)]


def test_plans_are_sought_beside_the_artifact_not_beside_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = tmp_path / "real" / "m.mpq.safetensors"
    write_artifact(PLAN, path)
    write_plan(PLAN, tmp_path / "real" / "plan.yaml")
    link = tmp_path / "link.mpq.safetensors"
    link.symlink_to(path)
    assert [file.name for file, _ in plans_beside(link, read_header(link))] == ["plan.yaml"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data.pt", "data.pt"),
        ("data.pt?inputs=x", "data.pt?inputs=x"),
        ("none.pt", None),
        ("package:callable", None),
        ("", None),
        (None, None),
    ],
)
def test_the_data_of_an_analysis_is_a_file_with_its_selection(tmp_path: Path, source: str | None, expected: str | None) -> None:
    (tmp_path / "data.pt").write_bytes(b"")
    facts = {} if source is None else {"source": source}
    found = data_file(facts, tmp_path / "plan.yaml")
    assert found == (None if expected is None else str(tmp_path / expected))
