from dataclasses import replace
from pathlib import Path

import pytest

from mpq.check.measure_size import Weighed, has_layers, weigh, weigh_baseline
from mpq.errors import FormatError, UsageError
from mpq.formats.packed_layout import packed_bytes
from mpq.records.plan import write_plan
from tests.check.making import LAYERS, commit, plan_of, write_artifact

# a row of 64 int4 weights takes 32 bytes and a scale of 2; int8: 64 and 2
TAKEN = {"embed": 64 * 34, "block.0": 64 * 34, "head": 8 * 66}
WEIGHTS = 64 * 64 + 64 * 64 + 8 * 64


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_plan_weighs_what_its_artifact_will() -> None:
    plan = plan_of("int4 int4 int8", 0.25)
    write_plan(plan, Path("plan.yaml"))
    found = weigh(Path("plan.yaml"))
    assert (found.kind, found.path, found.bytes) == ("plan", "plan.yaml", plan.size.file_bytes)
    assert (found.layers, found.taken, found.weights) == (plan.layers, TAKEN, WEIGHTS)
    assert found.effective_bits == 8 * sum(TAKEN.values()) / WEIGHTS
    assert found.held_out == 0.25
    packed = sum(packed_bytes(plan.layers[layer.name], layer.matrix) for layer in LAYERS)
    assert found.loaded == {"dense": 4 * WEIGHTS + 160, "packed": packed + 160}


def test_an_artifact_weighs_its_file_and_has_the_layers_of_its_header() -> None:
    plan = plan_of("int4 int4 int8")
    taken = write_artifact(plan, Path("m.mpq.safetensors"))
    found = weigh(Path("m.mpq.safetensors"))
    assert (found.kind, found.bytes, found.plan, found.held_out) == ("artifact", taken, None, None)
    assert (found.layers, found.taken, found.weights) == (plan.layers, TAKEN, WEIGHTS)
    assert found.loaded["dense"] == 4 * WEIGHTS + 40


def test_an_artifact_is_known_by_what_it_holds_not_by_its_name() -> None:
    write_artifact(plan_of("int4 int4 int8"), Path("renamed.safetensors"))
    assert weigh(Path("renamed.safetensors")).kind == "artifact"
    assert has_layers(Path("renamed.safetensors"))


@pytest.mark.parametrize(("assignment", "value"), [(None, 0.1), ("another", None)])
def test_an_error_counts_only_for_the_schemes_it_was_measured_with(assignment: str | None, value: float | None) -> None:
    plan = plan_of("int4 int4 int8", 0.1)
    if assignment is not None:
        plan = replace(plan, evidence=plan.evidence | {"assignment": assignment})
    assert Weighed("p", "plan", 1, plan=plan).held_out == value


@pytest.mark.parametrize("name", ["plan.txt", "plan", "plan.yml"])
def test_a_plan_by_another_name_is_known_by_its_head(name: str) -> None:
    write_plan(plan_of("int4 int4 int8"), Path(name))
    Path(name).write_text("# a comment first\n" + Path(name).read_text())
    assert weigh(Path(name)).kind == "plan"


def test_a_model_file_is_never_taken_for_a_plan() -> None:
    Path("m.onnx").write_text("mpq_plan: 1\n")
    assert weigh(Path("m.onnx")) == Weighed("m.onnx", "other", 12)
    assert not has_layers(Path("m.onnx"))


@pytest.mark.parametrize("ending", [".data", "_data"])
def test_onnx_counts_the_weights_beside_it_and_other_files_do_not(ending: str) -> None:
    for name in ("m.onnx", "m.gguf"):
        Path(name).write_bytes(bytes(10))
        Path(f"{name}{ending}").write_bytes(bytes(30))
    assert [weigh(Path(name)).bytes for name in ("m.onnx", "m.gguf")] == [40, 10]


def test_a_folder_weighs_all_files_below_it_and_an_empty_one_nothing() -> None:
    Path("hf/a/b").mkdir(parents=True)
    Path("hf/one").write_bytes(bytes(3))
    Path("hf/a/b/two").write_bytes(bytes(4))
    Path("empty").mkdir()
    assert weigh(Path("hf")) == Weighed("hf", "other", 7)
    assert weigh(Path("empty")).bytes == 0
    assert not has_layers(Path("hf"))


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(FormatError) as error:
        weigh(Path("none.gguf"))
    assert str(error.value) == "none.gguf does not exist: name a plan, an artifact, or any model file or folder"


def test_a_damaged_artifact_is_refused_rather_than_weighed() -> None:
    taken = write_artifact(plan_of("int4 int4 int8"), Path("m.mpq.safetensors"))
    Path("m.mpq.safetensors").write_bytes(Path("m.mpq.safetensors").read_bytes()[: taken - 1])
    with pytest.raises(FormatError):
        weigh(Path("m.mpq.safetensors"))


def test_a_baseline_is_a_file_before_it_is_a_revision() -> None:
    Path("m.gguf").write_bytes(bytes(5))
    commit()
    Path("HEAD").write_bytes(bytes(7))
    assert weigh_baseline(Path("m.gguf"), "HEAD") == Weighed("HEAD", "other", 7)


def test_a_baseline_at_a_revision_is_the_file_as_it_was() -> None:
    old = plan_of("int4 int4 int8")
    write_plan(old, Path("plan.yaml"))
    Path("m.gguf").write_bytes(bytes(5))
    commit()
    Path("m.gguf").write_bytes(bytes(9))
    write_plan(plan_of("int8 int8 int8"), Path("plan.yaml"))
    assert weigh_baseline(Path("m.gguf"), "HEAD") == Weighed("HEAD:m.gguf", "other", 5)
    found = weigh_baseline(Path("plan.yaml"), "HEAD")
    assert found is not None
    assert (found.path, found.kind, found.layers, found.bytes) == ("HEAD:plan.yaml", "plan", old.layers, old.size.file_bytes)


def test_a_pointer_of_git_lfs_weighs_what_it_points_to() -> None:
    Path("m.gguf").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456789\n")
    commit()
    assert weigh_baseline(Path("m.gguf"), "HEAD") == Weighed("HEAD:m.gguf", "other", 123456789)


def test_a_file_that_the_revision_does_not_have_is_new() -> None:
    Path("old").touch()
    commit()
    Path("m.gguf").write_bytes(bytes(5))
    assert weigh_baseline(Path("m.gguf"), "HEAD") is None


def test_a_baseline_that_is_neither_file_nor_revision_is_refused_and_so_is_a_folder_at_a_revision() -> None:
    Path("m.gguf").write_bytes(bytes(5))
    Path("hf").mkdir()
    commit()
    with pytest.raises(UsageError, match=r"^cannot read revision nowhere: git does not know it$"):
        weigh_baseline(Path("m.gguf"), "nowhere")
    reason = "hf is a folder, which cannot be compared with revision HEAD: name the files, or a baseline folder"
    with pytest.raises(UsageError, match=rf"^{reason}$"):
        weigh_baseline(Path("hf"), "HEAD")
