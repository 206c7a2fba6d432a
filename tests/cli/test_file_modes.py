"""Every file that a command writes has the mode that the umask leaves, so that whoever serves the model may read it.

Exports are tried with one umask, since the files of all come from a staged folder, which tests/export/test_output_place.py tries with both.
"""

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mpq.apply.shard_job import apply_shards
from mpq.data.dataset import Batch
from mpq.export.registry import TARGETS
from mpq.export.run import export
from mpq.records.plan import read_plan
from tests.cli.conftest import ANALYZE
from tests.cli.typed import ROOT, done
from tests.export.artifacts import by_name, make, save_llama, tokens

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is a umask on POSIX systems")
_FOR_LANGUAGE_MODELS = {"compressed-tensors", "gguf", "huggingface", "llama.cpp"}
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch.exir"}
_WRITERS = {
    "export/output_place.py": "staged, which gives every file its mode",
    "export/weights/compressed_tensors.py": "in a staged folder",
    "export/weights/openvino.py": "a temporary folder of a graph on its way to a staged one",
    "export/weights/pt2.py": "in a staged folder",
    "analyze/together.py": "a temporary folder that the processes of one analysis share",
    "cli/analyze_ranks.py": "a temporary folder that the processes of one analysis share",
    "models/running/rank_processes.py": "a temporary folder that the processes of one analysis share",
    "models/running/ranks.py": "files of the board in that folder",
    "check/measure_size.py": "a temporary folder that is only read",
    "check/revision.py": "a temporary folder that is only read",
    "cli/demo.py": "a temporary folder; the files have the mode of all others",
    "demo/session.py": "a temporary folder of the documentation's session",
    "models/memory/offload.py": "files without a name",
    "schemas/generate.py": "a file of the source code",
    "export/weights/huggingface/target.py": "in a staged folder",
    "export/weights/hf_folder.py": "in a staged folder",
    "models/memory/store.py": "a file without a name",
    "deployed_times.py": "a temporary folder that is only read",
    "export/timing.py": "a temporary folder that is only read",
    "verify/run.py": "a temporary folder that is only read",
    "verify/worker.py": "in that temporary folder",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of one matrix."""
    folder, inputs = tmp_path_factory.mktemp("small"), torch.zeros(2, 64)
    torch.export.save(torch.export.export(torch.nn.Linear(64, 32).eval(), (inputs,)), folder / "model.pt2")
    return make(folder / "model.pt2", Batch((inputs,)), by_name({}, "int8"), folder)[1]


@pytest.fixture(params=[0o022, 0o027], ids=["022", "027"])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def wrong(folder: Path, mask: int) -> dict[str, str]:
    """Modes that the umask does not leave, by path."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    return {str(path): oct(mode) for path, mode in found.items() if mode != (0o777 if path.is_dir() else 0o666) & ~mask}


def test_plans_journals_reports_and_budgets(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt2", "calibration.pt", "plan.yaml", "model.sensitivity.jsonl"):
        Path(name).write_bytes((made / name).read_bytes())
    done("search --budget 5bits --trials 1 --storage sqlite:///study.db --output five.yaml")
    done("search --budget 4.5bits --trials 1 --output plan.yaml")
    done("search --budget 4:5:0.5bits --trials 0")
    for line in ("report plan.yaml --png", "check plan.yaml --junit junit.xml", "check --init", "schema plan --output schema.json"):
        done(line)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"plans/plan-4.5bits.yaml", "plans/frontier.csv", "model.study.journal", "study.db", "five.yaml"} <= names
    assert {"plan.report.html", "plan.bits.png", "junit.xml", "mpq-budgets.yaml", "schema.json"} <= names
    assert wrong(tmp_path, mask) == {}


def test_sensitivity_and_artifact(fresh: Path, mask: int) -> None:
    for path in fresh.iterdir():
        path.chmod(0o666 & ~mask)
    done(f"{ANALYZE} --quantizer rtn --candidates 4")
    done("search --budget 5bits --trials 0")
    done("apply plan.yaml --no-recovery")
    assert {"model.sensitivity.jsonl", "plan.yaml", "model.mpq.safetensors"} < {path.name for path in fresh.iterdir()}
    assert wrong(fresh, mask) == {}


@pytest.mark.parametrize("mask", [0o027], indirect=True)
@pytest.mark.parametrize("target", sorted(set(TARGETS) - _FOR_LANGUAGE_MODELS))
def test_exports(small: Path, tmp_path: Path, mask: int, target: str) -> None:
    pytest.importorskip(_PACKAGES.get(target, "torch"))
    export(small, target, tmp_path / f"out{TARGETS.kind(target).ending}", nearest=True)
    assert any(tmp_path.iterdir())
    assert wrong(tmp_path, mask) == {}


@pytest.mark.parametrize("mask", [0o027], indirect=True)
@pytest.mark.parametrize("target", sorted(_FOR_LANGUAGE_MODELS))
def test_exports_of_language_models(tmp_path: Path, mask: int, target: str) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip({"compressed-tensors": "compressed_tensors", "gguf": "gguf"}.get(target, "torch"))
    model = save_llama(tmp_path / "llama")
    (model / "tokenizer_config.json").write_text("{}")
    (model / "tokenizer_config.json").chmod(0o600)
    path = make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), tmp_path)[1]
    (tmp_path / "out").mkdir()
    export(path, target, tmp_path / "out" / f"model{TARGETS.kind(target).ending}", nearest=True)
    assert any((tmp_path / "out").iterdir())
    assert wrong(tmp_path / "out", mask) == {}


def test_shards(tmp_path: Path, mask: int) -> None:
    pytest.importorskip("transformers")
    model = save_llama(tmp_path / "llama")
    plan = make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), tmp_path)[0]
    apply_shards(model, read_plan(plan), tmp_path / "new" / "small")
    assert len(list((tmp_path / "new" / "small").iterdir())) >= 2
    assert wrong(tmp_path / "new", mask) == {}


def test_nothing_else_in_mpq_makes_files_of_its_own() -> None:
    """A new writer goes through `mpq.files.atomic_write` or `staged`, or is listed above with its reason."""
    found = {path.relative_to(ROOT / "mpq").as_posix() for path in (ROOT / "mpq").rglob("*.py") if any(_makes_files(path))}
    assert found == set(_WRITERS)


def _makes_files(path: Path) -> Iterator[bool]:
    makers = {"write_bytes", "save_file", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "copyfile"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name in makers or (name in ("chmod", "write_text") and isinstance(node.func, ast.Attribute))
