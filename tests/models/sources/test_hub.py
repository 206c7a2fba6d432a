from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import ModelError
from mpq.models.sources.hub import fetch, wanted_files
from mpq.models.sources.load import load_model
from mpq.records.hub_name import HubName
from tests.export.artifacts import save_llama
from tests.hub_server import TOKEN, Hub, running

hub: Any = pytest.importorskip("huggingface_hub")
constants: Any = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that huggingface_hub asks, with a cache of its own and a token."""
    with running() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub, "HfApi", partial(hub.HfApi, endpoint=found.url, token=TOKEN))
        yield found


FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]", "README.md": b"# Card"}
UNSAFE = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"o", "original/a.safetensors": b"s"}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_safe_files_are_downloaded_at_one_commit(server: Hub) -> None:
    repo = server.make("org/llama", FILES | UNSAFE)
    found = fetch(HubName("org/llama"))
    assert str(found.name) == f"hf://org/llama@{repo.branches['main']}"
    assert names(found.folder) == set(FILES)
    assert (found.folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(server.downloads) == sorted(FILES)


def test_what_the_cache_has_is_not_downloaded_again(server: Hub) -> None:
    server.make("org/llama", FILES)
    first = fetch(HubName("org/llama"))
    server.downloads.clear()
    assert fetch(first.name) == first
    assert server.downloads == []


def test_a_commit_stays_what_it_was(server: Hub) -> None:
    repo = server.make("org/llama", FILES)
    before = repo.branches["main"]
    repo.commit("main", {"model.safetensors": b"newer"})
    repo.commit("test", {**FILES, "model.safetensors": b"other"})
    contents = {rev: fetch(HubName("org/llama", rev)).folder / "model.safetensors" for rev in (None, before, "test")}
    assert [path.read_bytes() for path in contents.values()] == [b"newer", b"weights", b"other"]


def test_without_a_network_the_cache_is_used(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.make("org/llama", FILES)
    first = fetch(HubName("org/llama"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(first.name) == first
    assert fetch(HubName("org/llama")) == first
    with pytest.raises(ModelError, match=r"hf://org/other cannot be downloaded .* allow network access once \(unset HF_HUB_OFFLINE\)"):
        fetch(HubName("org/other"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (HubName("org/none"), "the hub answers 401): check the name; for a private model, run `hf auth login` first"),
        (HubName("org/llama", "v9"), "the hub answers 404): check the revision after the @"),
    ],
)
def test_what_is_not_there_is_one_line_without_the_token(server: Hub, name: HubName, reason: str) -> None:
    server.make("org/llama", FILES)
    with pytest.raises(ModelError) as error:
        fetch(name)
    assert str(error.value) == f"{name} cannot be downloaded ({reason}"
    assert TOKEN not in str(error.value)


def test_pickles_need_trust() -> None:
    held = ["config.json", "pytorch_model.bin", "modeling.py"]
    with pytest.raises(ModelError) as error:
        wanted_files(held, "hf://org/a", trust=False)
    assert (
        str(error.value) == "hf://org/a has pickles only (pytorch_model.bin), which can run code when loaded: if you trust it, add --trust"
    )
    assert wanted_files(held, "hf://org/a", trust=True) == ["config.json", "pytorch_model.bin", "modeling.py"]


def test_pickles_beside_safetensors_are_left_even_with_trust() -> None:
    held = ["config.json", "model.safetensors", "pytorch_model.bin", "consolidated.safetensors"]
    assert wanted_files(held, "hf://org/a", trust=True) == ["config.json", "model.safetensors"]


def test_several_files_of_weights_come_with_their_index() -> None:
    held = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert sorted(wanted_files(held, "hf://org/a", trust=False)) == held


def test_a_repository_without_a_configuration_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has no config\.json, so it is not a model for Transformers"):
        wanted_files(["model.safetensors"], "hf://org/a", trust=False)


def test_an_exported_model_is_refused() -> None:
    with pytest.raises(ModelError, match="hf://org/a is quantized by mpq already: give the original model"):
        wanted_files(["config.json", "model.mpq.safetensors"], "hf://org/a", trust=False)


def test_a_repository_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has no weights that mpq loads \(model\.safetensors\): choose another"):
        wanted_files(["config.json", "llama.gguf"], "hf://org/a", trust=False)


def test_a_model_of_the_hub_is_loaded_and_named_by_its_commit(server: Hub, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = save_llama(tmp_path / "llama")
    repo = server.make("org/llama", {path.name: path.read_bytes() for path in folder.iterdir()})
    found = load_model("hf://org/llama")
    assert found.hub == f"hf://org/llama@{repo.branches['main']}"
    assert found.notes == (f"downloaded: {found.hub}, all files of this commit",)
    assert found.sha256 == load_model(folder).sha256
    assert load_model(Path(found.hub)).hub == found.hub
