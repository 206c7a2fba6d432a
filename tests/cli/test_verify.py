"""`mpq verify` on the command line: one line, exit codes, and a process of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from mpq.cli.main import app
from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.records.fingerprint import fingerprint_path
from mpq.verify import run
from tests.cli import warm
from tests.export.artifacts import by_name, make


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(self.a(x)))
        return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    x = torch.randn(4, 64)
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(Small().eval(), (x,), dynamic_shapes=({0: batch},)), folder / "model.pt2")
    _, artifact = make(folder / "model.pt2", Batch((x,)), by_name({}, "int4-g32"), folder)
    return export(artifact, "pt2", folder / "out.pt2", options=Options(compare=False)).path


def damaged(file: Path) -> None:
    program = torch.export.load(file)
    scales = program.state_dict["a__scales"]
    scales.data.copy_(scales.roll(1, 0).clone())
    torch.export.save(program, file)


@pytest.fixture
def copy(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage, verified in a process that starts warm."""
    monkeypatch.setattr(run, "subprocess", warm)
    for file in (exported, fingerprint_path(exported)):
        shutil.copy(file, tmp_path)
    return tmp_path / exported.name


def test_an_export_passes_in_a_process_of_its_own(exported: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(exported), "--with", "torch"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(
        f"ok    {exported}: torch {torch.__version__} loads it correctly: 2 layers and 2 other tensors are right;"
    )


def test_a_damage_is_one_line_and_exit_code_1(copy: Path) -> None:
    damaged(copy)
    done = CliRunner().invoke(app, ["verify", str(copy), "--json"])
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    assert (record["passed"], record["layers"]) == (False, 2)
    assert record["findings"][0] == {"kind": "scales swapped", "name": "a", "message": "its scales are those of other rows"}
    assert record["outputs"][0]["difference"] > record["outputs"][0]["tolerance"]
    told = CliRunner().invoke(app, ["verify", str(copy)])
    assert told.exit_code == 1
    assert told.stdout.splitlines()[0] == (
        f"FAIL  {copy}: torch {torch.__version__}: scales swapped in 'a': its scales are those of other rows (1 more findings)"
    )


def test_a_cut_file_does_not_load(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:1000])
    done = CliRunner().invoke(app, ["verify", str(copy)])
    assert done.exit_code == 1
    assert "load in 'out.pt2': the program cannot load it (" in done.stdout


def test_another_program_a_missing_fingerprint_and_a_missing_file_are_usage_errors(copy: Path) -> None:
    other = CliRunner().invoke(app, ["verify", str(copy), "--with", "onnxruntime"])
    assert (other.exit_code, other.stderr) == (2, f"mpq: {copy} is a pt2 export, which onnxruntime does not load: use --with torch\n")
    unknown = CliRunner().invoke(app, ["verify", str(copy), "--with", "tensorrt"])
    assert unknown.exit_code == 2
    assert unknown.stderr.startswith("mpq: 'tensorrt' is not a program: use one of torch, onnxruntime, ")
    fingerprint_path(copy).unlink()
    without = CliRunner().invoke(app, ["verify", str(copy)])
    assert without.exit_code == 3
    assert "`mpq export` writes it unless you pass --no-fingerprint" in without.stderr
    gone = CliRunner().invoke(app, ["verify", "nowhere.onnx"])
    assert (gone.exit_code, gone.stderr) == (2, "mpq: nowhere.onnx does not exist: name a file or folder that `mpq export` wrote\n")


def test_a_program_that_is_not_installed_is_one_line(copy: Path) -> None:
    pytest.importorskip("gguf")
    path = fingerprint_path(copy)
    path.write_text(path.read_text().replace('"target":"pt2"', '"target":"gguf"'))
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        done = CliRunner().invoke(app, ["verify", str(copy), "--with", "llama.cpp"])
        assert (done.exit_code, done.stderr) == (2, "mpq: llama_cpp is not installed here: pip install 'llama-cpp-python'\n")


def test_an_export_without_a_fingerprint_leaves_none_of_an_earlier_one(exported: Path, tmp_path: Path) -> None:
    artifact, output = exported.with_name("model.mpq.safetensors"), tmp_path / "m.pt2"
    assert export(artifact, "pt2", output, options=Options(compare=False)).fingerprint_bytes == fingerprint_path(output).stat().st_size
    assert export(artifact, "pt2", output, options=Options(compare=False, fingerprint=False)).fingerprint_bytes == 0
    assert not fingerprint_path(output).exists()
