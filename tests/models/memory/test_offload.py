import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.errors import ModelError, UsageError
from mpq.files import OutputError
from mpq.models.memory.offload import Offload, is_mapped, used
from mpq.models.running.swap import swapped, tensor_of
from mpq.models.sources.load import load_model

transformers: Any = pytest.importorskip("transformers")

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "vocab_size": 60}
TOKENS = torch.arange(24).reshape(2, 12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_hidden_layers=4, tie_word_embeddings=True))
    llama.save_pretrained(folder / "llama")
    llama.bfloat16().save_pretrained(folder / "shards", max_shard_size="20KB")
    bert = transformers.BertConfig(**SIZES, num_hidden_layers=1)
    transformers.BertForMaskedLM(bert).save_pretrained(folder / "bert")
    return folder


def logits(module: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(input_ids=TOKENS).logits
    return found


def resident(file: Path) -> int:
    """Bytes of a mapped file that are in the memory of this process."""
    total, within = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(":"):
            within = line.endswith(f" {file}") and rest[0] == "r--s"
        elif field == "Rss:" and within:
            total += int(rest[0]) * 1024
    return total


@pytest.mark.parametrize("name", ["llama", "shards", "bert"])
def test_weights_in_files_are_those_in_memory_under_the_same_names_and_ties(saved: Path, tmp_path: Path, name: str) -> None:
    inside, outside = load_model(saved / name), load_model(saved / name, offload=tmp_path)
    states = [loaded.module.state_dict() for loaded in (inside, outside)]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert [name for name, _ in inside.module.named_parameters()] == [name for name, _ in outside.module.named_parameters()]
    assert all(is_mapped(parameter) for parameter in outside.module.parameters())
    assert not any(is_mapped(parameter) for parameter in inside.module.parameters())
    assert (inside.sha256, inside.config) == (outside.sha256, outside.config)
    assert torch.equal(logits(inside.module), logits(outside.module))


def test_a_swap_shows_under_all_names_of_a_tied_weight_and_is_undone(saved: Path, tmp_path: Path) -> None:
    loaded = load_model(saved / "llama", offload=tmp_path)
    assert loaded.offload is not None
    name, before = "model.embed_tokens.weight", logits(loaded.module)
    value = loaded.offload.keep(torch.ones_like(tensor_of(loaded.module, name)))
    with swapped(loaded.module, {name: value}):
        assert torch.equal(tensor_of(loaded.module, "lm_head.weight"), value)
        assert not torch.equal(logits(loaded.module), before)
    assert torch.equal(logits(loaded.module), before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_more_of_the_weights_is_in_memory_than_the_limit(saved: Path, tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**SIZES | {"hidden_size": 256, "intermediate_size": 1024}, num_hidden_layers=4)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    file, largest, limit = tmp_path / "model" / "model.safetensors", 1 << 20, 3 << 20
    loaded = load_model(tmp_path / "model", offload=tmp_path / "off", max_memory=limit)
    seen = [resident(file)]
    for child in loaded.module.modules():
        child.register_forward_hook(lambda *_: seen.append(resident(file)))
    logits(loaded.module)
    assert len(seen) > 40
    assert limit - largest < max(seen) < limit + largest / 2 < file.stat().st_size / 4
    free = load_model(tmp_path / "model", offload=tmp_path / "off")
    logits(free.module)
    assert resident(file) > file.stat().st_size


def test_what_is_kept_has_the_same_values_and_leaves_no_file(tmp_path: Path) -> None:
    store = Offload(tmp_path / "new" / "folder", limit=100)
    for tensor in (torch.randn(7, 5).bfloat16(), torch.arange(9), torch.tensor(2.5), torch.randn(4, 6).T, torch.empty(0, 3)):
        kept = store.keep(tensor)
        used(kept)
        assert (kept.dtype, kept.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(kept, tensor)
    assert not list((tmp_path / "new" / "folder").iterdir())


def refusal(path: Path, folder: Path, kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        load_model(path, offload=folder)
    return str(caught.value).replace(str(path), "DIR")


def test_other_models_and_folders_that_cannot_be_written_are_refused(saved: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "state.pt")
    assert refusal(tmp_path / "state.pt", tmp_path, UsageError) == (
        "DIR is not a Hugging Face directory; only those can keep their weights in files: leave out --offload"
    )
    assert refusal(saved / "llama", tmp_path / "state.pt", OutputError) == (
        f"cannot write to {tmp_path / 'state.pt'}: File exists; choose another folder with --offload"
    )
