"""Code that a file names: called where the user named it or gives --trust, and otherwise named in the message and not called."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.typed import done, refused, typed

MAKER = """
import pathlib
import torch
from torch import nn

def make():
    pathlib.Path("called").touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

def data():
    pathlib.Path("called").touch()
    return torch.randn(24, 16)
"""
BY_DATA = "asks mpq to import and call maker:data, which needs your permission: add --trust if you trust the file"
BY_MODEL = (
    "asks mpq to import and call maker:make, which needs your permission: "
    "name it yourself with --builder maker:make, or add --trust if you trust the file"
)
ARTIFACT = "weights.mpq.safetensors"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a state dict went all the way, named by the user."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "maker.py").write_text(MAKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make = "import torch, maker; torch.manual_seed(0); torch.save(maker.make().state_dict(), 'weights.pt')"
        make += "; torch.save(maker.data(), 'd.pt')"
        _run(make)
        done("analyze weights.pt --builder maker:make --calib maker:data --candidates 4,8")
        done("search --budget 6bits --trials 2 --trust")
        done("apply plan.yaml --trust --no-corrections")
        Path("called").unlink()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delitem(sys.modules, "maker", raising=False)
    return tmp_path / "work"


def _run(code: str) -> None:
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


def budgets(**rule: object) -> None:
    Path("mpq-budgets.yaml").write_text(json.dumps({"mpq_budgets": 1, "budgets": [{"files": ARTIFACT, **rule}]}))


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("search --budget 7bits --trials 2 -o new.yaml", "weights.sensitivity.jsonl"),
        ("apply plan.yaml -o new.mpq.safetensors", "plan.yaml"),
        (f"eval {ARTIFACT} --data d.pt", ARTIFACT),
        (f"bench {ARTIFACT} --data d.pt --batch-sizes 1", ARTIFACT),
        (f"export {ARTIFACT} --to onnx --data d.pt -o new.onnx", ARTIFACT),
        (f"check {ARTIFACT} --data d.pt --max-error 1", ARTIFACT),
    ],
)
def test_a_factory_that_a_file_names_is_not_called_without_trust(folder: Path, line: str, file: str) -> None:
    assert refused(line, 3) == f"{file} {BY_MODEL}"
    assert "maker" not in sys.modules
    assert not Path("called").exists()


@pytest.mark.parametrize("allowed", ["--builder maker:make", "--trust"])
@pytest.mark.parametrize(
    "line",
    [
        f"eval {ARTIFACT} --data d.pt",
        f"check {ARTIFACT} --data d.pt --max-error 9",
        "apply plan.yaml --no-corrections -o x.mpq.safetensors",
    ],
)
def test_a_factory_that_the_user_names_or_trusts_is_called(folder: Path, line: str, allowed: str) -> None:
    done(f"{line} {allowed}")
    assert Path("called").exists()


def test_data_that_an_analysis_names_is_not_called_without_trust(folder: Path) -> None:
    Path("maker.py").write_text(MAKER.replace('def data():\n    pathlib.Path("called")', 'def data():\n    pathlib.Path("data")'))
    ran = typed("search --budget 7bits --trials 2 -o new.yaml --builder maker:make")
    assert (ran.code, ran.err.splitlines()[-1]) == (3, f"mpq: weights.sensitivity.jsonl {BY_DATA}")
    assert not Path("data").exists()
    assert not Path("new.yaml").exists()
    done("search --budget 7bits --trials 2 -o new.yaml --trust")


def test_data_that_a_plan_names_is_not_called_without_trust(folder: Path) -> None:
    Path("maker.py").write_text(MAKER.replace('def data():\n    pathlib.Path("called")', 'def data():\n    pathlib.Path("data")'))
    ran = typed("apply plan.yaml --builder maker:make -o new.mpq.safetensors")
    assert not Path("data").exists()
    assert BY_DATA in " ".join(ran.err.split())


@pytest.mark.parametrize("source", ["maker:data", "maker:data?split=train", "./maker:data"])
def test_data_that_a_budgets_file_names_is_not_called_without_trust(folder: Path, source: str) -> None:
    budgets(data=source, max_error=9)
    for line in ("check --builder maker:make", "check --budgets mpq-budgets.yaml --builder maker:make"):
        reason = refused(line, 3)
        assert reason.startswith("mpq-budgets.yaml asks mpq to import and call ")
        assert reason.endswith("maker:data, which needs your permission: add --trust if you trust the file")
    assert "maker" not in sys.modules
    assert not Path("called").exists()


def test_data_on_the_command_line_or_in_the_configuration_of_the_user_needs_no_trust(folder: Path) -> None:
    done(f"check {ARTIFACT} --data maker:data --max-error 9 --builder maker:make")
    Path("own.yaml").write_text("check:\n  data: maker:data\n  max_error: 9\n")
    done(f"check {ARTIFACT} --config own.yaml --builder maker:make")


def test_a_factory_that_an_artifact_of_a_budgets_file_names_is_not_called_without_trust(folder: Path) -> None:
    budgets(data="d.pt", max_error=9)
    assert refused("check", 3) == f"{ARTIFACT} {BY_MODEL}"
    assert not Path("called").exists()
    done("check --trust")


def test_the_current_folder_comes_last_for_code_that_a_file_names(folder: Path) -> None:
    Path("colorsys.py").write_text("import pathlib\npathlib.Path('shadowed').touch()\n")
    plan = Path("plan.yaml").read_text().replace("maker:make", "colorsys:nothing")
    Path("plan.yaml").write_text(plan)
    sys.modules.pop("colorsys", None)
    assert "failed with AttributeError" in refused("apply plan.yaml --trust", 2)
    assert not Path("shadowed").exists()
    sys.modules.pop("colorsys", None)
