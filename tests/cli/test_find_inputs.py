from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mpq.cli.find_inputs import (
    EXAMPLES,
    calibration_source,
    check_output,
    how_read,
    located_model,
    named_inputs,
    only_analysis,
    read_data,
    removed_if_bare,
    reopen_data,
    reopen_model,
    stem_of,
)
from mpq.config import DataSettings
from mpq.errors import DataError, HeldError, MismatchError, MpqError, OutputError, TrustError, UsageError
from mpq.files import Journal
from mpq.models.sources.load import from_module, load_model
from mpq.models.sources.loaded import LoadedModel
from tests.models.small import inputs, mlp


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/model.pt2", "model"),
        ("model.mpq.safetensors", "model"),
        ("model.sensitivity.jsonl", "model"),
        ("model.v1.pt", "model.v1"),
        ("plain", "plain"),
    ],
)
def test_the_files_of_a_model_share_a_name(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


def test_a_folder_has_its_whole_name_and_this_one_its_own(here: Path) -> None:
    Path("llama.v1").mkdir()
    assert stem_of(Path("llama.v1")) == "llama.v1"
    assert stem_of(Path()) == here.name


def test_the_one_analysis_of_a_folder_is_found() -> None:
    with pytest.raises(UsageError) as error:
        only_analysis(Path())
    assert str(error.value) == f"no *.sensitivity.jsonl in {Path().resolve()}: run `mpq analyze MODEL` first, or name the file"
    Path("b.sensitivity.jsonl").touch()
    assert only_analysis(Path()) == Path("b.sensitivity.jsonl")
    Path("a.sensitivity.jsonl").touch()
    with pytest.raises(UsageError, match=r"^2 analyses in this folder \(a.sensitivity.jsonl, b.sensitivity.jsonl\): name one, for example"):
        only_analysis(Path())


@pytest.mark.parametrize(
    ("error", "records", "before", "left"),
    [
        (MpqError, 0, False, False),
        (MpqError, 1, False, True),
        (MpqError, 0, True, True),
        (HeldError, 0, False, True),
        (KeyboardInterrupt, 0, False, True),
    ],
)
def test_a_file_that_was_begun_in_vain_is_removed(error: type[BaseException], records: int, before: bool, left: bool) -> None:
    path = Path("a.sensitivity.jsonl")

    def begin() -> None:
        journal = Journal.create(path, {"head": 1})
        journal.append(*({"figure": number} for number in range(records)))
        journal.close()

    def work() -> None:
        with removed_if_bare(path):
            begin()
            raise error("stop")

    if before:
        begin()
    with pytest.raises(error):
        work()
    assert path.exists() is left


def test_calibration_data_is_as_given_or_beside_the_model_or_here_or_examples(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models").mkdir()
    model = from_module(mlp())
    there = LoadedModel(model.module, "export", "a" * 64, path=here / "models" / "m.pt2")
    assert calibration_source("x.pt", there) == "x.pt"
    with pytest.raises(DataError, match=r"^no calibration data: give --calib FILE, for example a .pt with a tensor of inputs, or text for"):
        calibration_source(None, there)
    Path("calibration.txt").touch()
    assert calibration_source(None, model) == "calibration.txt"
    Path("models/calibration.jsonl").touch()
    Path("models/calibration.npz").touch()
    assert calibration_source(None, there) == "models/calibration.npz"
    assert "calibration: models/calibration.npz, found next to the model; --calib chooses another" in capsys.readouterr().err


def test_examples_of_a_program_are_the_last_resort_and_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    torch.export.save(torch.export.export(mlp(), (inputs(4, 8),)), "m.pt2")
    assert calibration_source(None, load_model(Path("m.pt2"))) == EXAMPLES
    assert "no calibration data given: using the example inputs of the exported program" in capsys.readouterr().err


def test_an_output_must_be_writable_and_no_input_and_nothing_is_left() -> None:
    Path("a").touch()
    check_output(Path("new"), inputs=["a?batch", None, Path("a")])
    check_output(Path("a"))
    for inputs_of in (["a?batch"], [Path("a")]):
        with pytest.raises(OutputError):
            check_output(Path("a"), inputs=inputs_of)
    with pytest.raises(OutputError) as error:
        check_output(Path("none/x"))
    assert str(error.value) == "cannot write none/x: No such file or directory; choose another place with --output"
    assert list(Path().iterdir()) == [Path("a")]


def test_what_a_file_names_is_beside_it() -> None:
    found = named_inputs({"path": "../m.pt2"}, {"source": "c.npz?x=input"}, Path("runs/plan.yaml"))
    assert found == [Path("runs/../m.pt2"), Path("runs/c.npz")]
    assert named_inputs({}, {"source": None}, Path("plan.yaml")) == []


def test_how_data_was_read_is_kept_relative_to_the_file() -> None:
    Path("data.pt").touch()
    Path("runs").mkdir()
    read = {"seq_len": None, "num_samples": 8, "batch_size": None}
    settings = DataSettings(num_samples=8)
    assert how_read("data.pt?x", settings, Path("runs/a.jsonl")) == {"source": "../data.pt?x", **read}
    assert how_read("package.module:make", settings, Path("runs/a.jsonl"))["source"] == "package.module:make"
    assert how_read(EXAMPLES, DataSettings(mask="m", seed_each_forward=True), Path("a.jsonl")) == {
        "source": EXAMPLES,
        "seq_len": None,
        "num_samples": None,
        "batch_size": None,
        "mask": "m",
        "seed_each_forward": True,
    }


def test_a_model_is_beside_the_file_before_it_is_here() -> None:
    Path("runs").mkdir()
    Path("m.pt2").touch()
    assert located_model({"path": "m.pt2"}, Path("runs/plan.yaml")) == Path("m.pt2")
    Path("runs/m.pt2").touch()
    assert located_model({"path": "m.pt2"}, Path("runs/plan.yaml")) == Path("runs/m.pt2")
    with pytest.raises(MismatchError, match=r"^the model x.pt2, named in plan.yaml, is missing: put it back, or give --reference MODEL$"):
        located_model({"path": "x.pt2"}, Path("runs/plan.yaml"))
    with pytest.raises(MismatchError, match=r"^plan.yaml was made from a model in memory: use the Python functions, or give --reference"):
        located_model({}, Path("runs/plan.yaml"))


def exported(path: str, module: nn.Module) -> LoadedModel:
    torch.export.save(torch.export.export(module, (inputs(4, 8),)), path)
    return load_model(Path(path))


def test_a_model_is_opened_again_only_if_it_is_the_same() -> None:
    sha256 = exported("m.pt2", mlp()).sha256
    facts = {"path": "m.pt2", "sha256": sha256, "kind": "export"}
    assert reopen_model(facts, Path("plan.yaml")).sha256 == sha256
    other = exported("other.pt2", mlp(1)).sha256
    with pytest.raises(MismatchError) as error:
        reopen_model(facts, Path("plan.yaml"), given=Path("other.pt2"))
    assert str(error.value) == (
        f"other.pt2 is not the model that plan.yaml was made for (sha256 {other[:12]}…, expected {sha256[:12]}…): "
        "restore it, or analyze this one"
    )


def test_data_is_read_again_as_it_was_and_only_if_it_is_the_same() -> None:
    model = from_module(mlp())
    Path("runs").mkdir()
    torch.save(inputs(12, 8), "data.pt")
    settings = DataSettings(num_samples=6, batch_size=2)
    data = read_data("data.pt", model, settings)
    facts = {**how_read("data.pt", settings, Path("runs/a.jsonl")), "sha256": data.sha256, "seed": 0, "spread": True}
    found = reopen_data(facts, Path("runs/a.jsonl"), model)
    assert (found.sha256, found.samples, found.batches[0].size) == (data.sha256, 6, 2)
    older = {**facts, "sha256": read_data("data.pt", model, replace(settings, spread=False)).sha256, "spread": None}
    assert older["sha256"] != data.sha256
    assert reopen_data(older, Path("runs/a.jsonl"), model).sha256 == older["sha256"]  # the first ones, as in files of earlier versions
    torch.save(inputs(12, 8, seed=2), "data.pt")
    with pytest.raises(MismatchError, match=r"data.pt has changed since the analysis \(sha256 .*…, then .*…\): restore it, or analyze"):
        reopen_data(facts, Path("runs/a.jsonl"), model)
    Path("data.pt").unlink()
    with pytest.raises(MismatchError, match=r"^the data ../data.pt, named in a.jsonl, is missing: put it back, or analyze again"):
        reopen_data(facts, Path("runs/a.jsonl"), model)
    with pytest.raises(TrustError):
        reopen_data({**facts, "source": "os:getcwd"}, Path("runs/a.jsonl"), model)


@pytest.mark.parametrize("name", ["hf://org/llama.v1", "hf://org/llama.v1@main"])
def test_a_model_of_the_hub_is_called_by_its_name_and_found_by_its_commit(tmp_path: Path, name: str) -> None:
    assert stem_of(Path(name)) == "llama.v1"
    assert located_model({"path": name}, tmp_path / "plan.yaml") == Path(name)
