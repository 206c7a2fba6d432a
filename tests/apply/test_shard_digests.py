import json
from dataclasses import replace
from pathlib import Path

import pytest

from mpq.apply.shard_digests import INDEX, Parts, identity_of, is_finished, leave_done, noted_identity
from mpq.apply.shard_plan import Shard
from mpq.files import sha256_of
from mpq.formats.scheme import parse_scheme
from mpq.records.artifact import ArtifactHeader
from tests.check.making import plan_of

NOTES = ".model.mpq.safetensors.parts.jsonl"
PLAN = plan_of("int4 int4 int8")
HEADER = ArtifactHeader(PLAN.model, PLAN.quantizer, (), {}, {}, {})


def shards(folder: Path) -> list[Shard]:
    """Two files of 8 bytes, the first four of which are their header; they are written."""
    made = []
    for number in (1, 2):
        path = folder / f"{number}.safetensors"
        path.write_bytes(b"head" + bytes([number] * 4))
        made.append(Shard(folder / "source", path, (), {}, HEADER, b"head", {f"t{number}": 4}, 8))
    return made


def test_the_identity_depends_on_everything_that_the_files_are_made_of() -> None:
    others = [
        identity_of("b" * 64, PLAN),
        identity_of("a" * 64, plan_of("int4 int4 int4")),
        identity_of("a" * 64, replace(PLAN, quantizer="mse")),
        identity_of("a" * 64, replace(PLAN, model=PLAN.model | {"path": "elsewhere"})),
        identity_of("a" * 64, replace(PLAN, axes={"head": (1,)})),
        identity_of("a" * 64, PLAN),
    ]
    assert len(set(others)) == len(others)
    assert all(len(one) == 64 for one in others)


def test_the_identity_does_not_depend_on_the_order_of_layers_or_on_evidence() -> None:
    backwards = dict(reversed(PLAN.layers.items()))
    assert identity_of("a" * 64, replace(PLAN, layers=backwards, evidence={}, remarks={"head": "x"})) == identity_of("a" * 64, PLAN)


def test_nothing_is_held_before_it_was_finished(tmp_path: Path) -> None:
    assert not any(Parts(tmp_path, "id").holds(shard) for shard in shards(tmp_path))


def test_what_was_finished_is_held_by_the_next_run(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    parts = Parts(tmp_path, "id")
    parts.begin([])
    parts.finished(first)
    parts.close()
    again = Parts(tmp_path, "id")
    assert [again.holds(shard) for shard in (first, second)] == [True, False]
    assert not Parts(tmp_path, "another").holds(first)


@pytest.mark.parametrize("content", [b"head\x01\x01\x01\x02", b"HEAD\x01\x01\x01\x01", b"head\x01\x01\x01", b""])
def test_a_file_that_changed_since_is_not_held(tmp_path: Path, content: bytes) -> None:
    first, _ = shards(tmp_path)
    parts = Parts(tmp_path, "id")
    parts.begin([])
    parts.finished(first)
    parts.close()
    first.output.write_bytes(content)
    assert not Parts(tmp_path, "id").holds(first)


def test_a_complete_artifact_has_an_index_with_the_digests_and_no_notes(tmp_path: Path) -> None:
    made = shards(tmp_path)
    parts = Parts(tmp_path, "id")
    parts.begin([])
    assert (tmp_path / NOTES).exists()
    for shard in made:
        parts.finished(shard)
    parts.complete(made)
    assert not (tmp_path / NOTES).exists()
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["weight_map"] == {"t1": "1.safetensors", "t2": "2.safetensors"}
    assert index["metadata"]["total_size"] == 16
    assert index["metadata"]["made_of"] == "id"
    assert index["metadata"]["sha256"] == {shard.output.name: sha256_of([shard.output]) for shard in made}
    assert all(Parts(tmp_path, "id").holds(shard) for shard in made)
    assert not any(Parts(tmp_path, "another").holds(shard) for shard in made)


def test_beginning_removes_the_index_and_notes_what_is_kept_alone(tmp_path: Path) -> None:
    made = shards(tmp_path)
    whole = Parts(tmp_path, "id")
    whole.begin([])
    for shard in made:
        whole.finished(shard)
    whole.complete(made)
    parts = Parts(tmp_path, "id")
    parts.begin(made[:1])
    parts.close()
    assert not (tmp_path / INDEX).exists()
    assert [Parts(tmp_path, "id").holds(shard) for shard in made] == [True, False]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"garbage\n", b"\xff\xfe\n"])
def test_damaged_notes_and_a_damaged_index_hold_nothing(tmp_path: Path, damage: bytes) -> None:
    made = shards(tmp_path)
    for name in (NOTES, INDEX):
        (tmp_path / name).write_bytes(damage)
    assert not any(Parts(tmp_path, "id").holds(shard) for shard in made)


def test_a_note_that_was_cut_off_costs_its_own_file_alone(tmp_path: Path) -> None:
    made = shards(tmp_path)
    parts = Parts(tmp_path, "id")
    parts.begin([])
    for shard in made:
        parts.finished(shard)
    parts.close()
    content = (tmp_path / NOTES).read_bytes()
    (tmp_path / NOTES).write_bytes(content[:-5])
    again = Parts(tmp_path, "id")
    assert [again.holds(shard) for shard in made] == [True, False]


def test_schemes_count_by_their_text() -> None:
    assert identity_of("a", replace(PLAN, layers={"head": parse_scheme("int4-g64")})) != identity_of(
        "a", replace(PLAN, layers={"head": parse_scheme("int4")})
    )


def test_a_file_that_another_process_has_finished_is_taken_over(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    parts = Parts(tmp_path, "id")
    parts.begin([])
    assert (noted_identity(tmp_path), is_finished(first, "id"), parts.taken_over(first)) == ("id", False, False)
    leave_done(first, "id")
    leave_done(second, "another")
    assert [is_finished(shard, "id") for shard in (first, second)] == [True, False]
    assert [parts.taken_over(shard) for shard in (first, second)] == [True, False]
    parts.finished(second)
    assert is_finished(second, "id")
    parts.complete([first, second])
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_run_after_the_first_was_killed_keeps_what_its_helpers_finished(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    leave_done(first, "id")
    assert [Parts(tmp_path, "id").holds(shard) for shard in (first, second)] == [True, False]
    first.output.write_bytes(b"head\x01\x01\x01\x02")
    assert not Parts(tmp_path, "id").holds(first)
    assert noted_identity(tmp_path) is None


def test_what_a_helper_left_damaged_holds_nothing(tmp_path: Path) -> None:
    first, _ = shards(tmp_path)
    (tmp_path / f".{first.output.name}.done").write_bytes(b"{")
    assert not Parts(tmp_path, "id").holds(first)
