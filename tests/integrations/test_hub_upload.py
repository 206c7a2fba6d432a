import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpq.data.dataset import Batch
from mpq.errors import OutputError, UsageError
from mpq.export.run import export
from mpq.integrations.hub_upload import upload, upload_of
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.hub_server import TOKEN, Hub, running

hub: Any = pytest.importorskip("huggingface_hub")
constants: Any = pytest.importorskip("huggingface_hub.constants")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder, with files that do not belong to it."""
    made = tmp_path_factory.mktemp("upload")
    artifact = make(save_llama(made / "llama"), Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), made)[1]
    path = export(artifact, "huggingface").path
    for name in ("notes.py", "weights.bin", ".env", "other.mpq.safetensors"):
        (path / name).write_text("secret")
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield found


def api(server: Hub, token: str = TOKEN) -> Any:
    return hub.HfApi(endpoint=server.url, token=token)


OWN = ["README.md", "config.json", "generation_config.json", "model.mpq.safetensors", "plan.yaml"]


def test_only_the_files_of_an_export_are_uploaded(folder: Path) -> None:
    found = upload_of(folder)
    assert list(found.files) == OWN
    assert list(found.left_out) == [".env", "notes.py", "other.mpq.safetensors", "weights.bin"]
    assert found.bytes == sum((folder / name).stat().st_size for name in OWN)


def test_an_upload_makes_the_repository_and_one_commit(server: Hub, folder: Path) -> None:
    done = upload(upload_of(folder), "org/llama-mpq", private=True, api=api(server))
    repo = server.repos["org/llama-mpq"]
    assert repo.private
    assert len(repo.commits) == 2  # the one that a new repository begins with, and this one
    held = repo.commits[repo.branches["main"]]
    assert sorted(held) == [".gitattributes", *OWN]
    assert all(held[name] == (folder / name).read_bytes() for name in OWN)
    assert str(done.name) == f"hf://org/llama-mpq@{repo.branches['main']}"
    assert done.url == f"{server.url}/org/llama-mpq/commit/{repo.branches['main']}"


def test_a_branch_is_made_and_the_main_one_stays(server: Hub, folder: Path) -> None:
    repo = server.make("org/llama-mpq", {"README.md": b"before"})
    before = repo.branches["main"]
    upload(upload_of(folder), "org/llama-mpq", revision="int4", api=api(server))
    assert repo.branches["main"] == before
    assert repo.commits[repo.branches["int4"]]["plan.yaml"] == (folder / "plan.yaml").read_bytes()


def test_a_public_repository_is_not_taken_for_a_private_upload(server: Hub, folder: Path) -> None:
    server.make("org/llama-mpq", {"README.md": b"before"})
    with pytest.raises(OutputError, match="already exists and is public: leave out --private, or choose another name"):
        upload(upload_of(folder), "org/llama-mpq", private=True, api=api(server))
    assert server.sent == []


def test_a_refusal_is_one_line_without_the_token(server: Hub, folder: Path) -> None:
    with pytest.raises(OutputError) as error:
        upload(upload_of(folder), "org/llama-mpq", api=api(server, "hf_wrong"))
    remedy = "run `hf auth login` with a token that may write there, then run the command again"
    assert str(error.value) == f"org/llama-mpq cannot be uploaded (the hub answers 401): {remedy}"
    assert server.repos == {}


@pytest.mark.parametrize("repo", ["llama", "org/llama/x", "org/", "https://example.org/a"])
def test_a_repository_is_an_organization_and_a_name(folder: Path, repo: str) -> None:
    with pytest.raises(UsageError, match="is not a model of the hub: write ORG/NAME"):
        upload(upload_of(folder), repo)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a folder that `mpq export --to huggingface` wrote"):
        upload_of(tmp_path)
    shutil.copytree(folder.parent / "llama", tmp_path / "llama")
    with pytest.raises(UsageError, match="holds no artifact"):
        upload_of(tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text(json.dumps([]))
    with pytest.raises(UsageError, match="holds no artifact"):
        upload_of(tmp_path / "llama")
