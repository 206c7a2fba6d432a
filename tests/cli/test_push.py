import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpq.data.dataset import Batch
from mpq.export.run import export
from tests.cli.typed import ROOT
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.hub_server import TOKEN, Hub, running

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("push")
    artifact = make(save_llama(made / "llama"), Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), made)[1]
    return export(artifact, "huggingface").path


def push(folder: Path, *words: str, hub: Hub | None = None) -> subprocess.CompletedProcess[str]:
    """`mpq push` in the folder above an exported one, as a process of its own."""
    own = {"PYTHONPATH": str(ROOT), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0" if hub else "1"}
    own |= {"HF_ENDPOINT": hub.url} if hub else {}
    line = [sys.executable, "-m", "mpq", "push", *words]
    return subprocess.run(line, cwd=folder.parent, env={**os.environ, **own}, capture_output=True, text=True, check=False)


def test_the_folder_is_found_and_uploaded_and_the_token_is_not_shown(folder: Path) -> None:
    with running() as hub:
        done = push(folder, "org/llama-mpq", "--private", "--json", hub=hub)
        assert done.returncode == 0, done.stderr
        found, repo = json.loads(done.stdout), hub.repos["org/llama-mpq"]
    assert repo.private
    assert found["revision"] == repo.branches["main"]
    assert found["files"] == ["README.md", "config.json", "generation_config.json", "model.mpq.safetensors", "plan.yaml"]
    assert TOKEN not in done.stdout + done.stderr


def test_a_dry_run_asks_no_network(folder: Path) -> None:
    done = push(folder, "org/llama-mpq", "--dry-run", "--private")
    assert done.returncode == 0, done.stderr
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert done.stdout.splitlines()[-1] == f"dry run: {size:,} bytes would go to the private repository org/llama-mpq, branch main"


def test_a_wrong_repository_and_a_missing_folder_are_one_line(folder: Path, tmp_path: Path) -> None:
    done = push(folder, "llama-mpq")
    assert (done.returncode, done.stderr) == (2, "mpq: llama-mpq is not a model of the hub: write ORG/NAME\n")
    shutil.copytree(folder, tmp_path / "one-huggingface")
    shutil.copytree(folder, tmp_path / "two-huggingface")
    done = push(tmp_path / "one-huggingface", "org/llama-mpq")
    assert done.returncode == 2
    assert done.stderr == "mpq: 2 folders here are called *-huggingface: name the one to upload, after the repository\n"
