"""A Hugging Face directory whose weights stay in their files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpq.errors import ModelError
from mpq.models.memory.offload import Offload, is_mapped
from mpq.models.sources.mapped_checkpoint import map_directory
from tests.models.memory.test_offload import logits, refusal, saved

transformers: Any = pytest.importorskip("transformers")
__all__ = ["saved"]


def test_a_checkpoint_that_is_not_stored_as_the_module_holds_it_is_refused(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "llama" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    (tmp_path / "model.safetensors").symlink_to(saved / "llama" / "model.safetensors")
    assert refusal(tmp_path, tmp_path / "off") == (
        "'model.embed_tokens.weight' is float32 [60, 64] in DIR/model.safetensors and bfloat16 [60, 64] in the model: "
        "load it without --offload"
    )
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    assert refusal(tmp_path, tmp_path / "off") == (
        "DIR lacks weights of LlamaForCausalLM: model.layers.4.self_attn.q_proj.weight; load it without --offload"
    )


def mapped(directory: Path, folder: Path) -> Any:
    return map_directory(directory, Offload(folder, limit=1 << 20))


def copied(saved: Path, folder: Path, **changes: torch.Tensor) -> Path:
    """The directory "llama" with some tensors replaced or added."""
    folder.mkdir()
    (folder / "config.json").write_text((saved / "llama" / "config.json").read_text())
    save_file(load_file(saved / "llama" / "model.safetensors") | changes, folder / "model.safetensors")
    return folder


def test_parameters_are_mapped_buffers_are_read_and_ties_are_one(saved: Path, tmp_path: Path) -> None:
    module = mapped(saved / "llama", tmp_path)
    assert not module.training
    assert all(is_mapped(parameter) and parameter.requires_grad for parameter in module.parameters())
    assert not any(is_mapped(buffer) for buffer in module.buffers())
    assert module.get_parameter("lm_head.weight") is module.get_parameter("model.embed_tokens.weight")


def test_a_tied_tensor_may_be_stored_under_both_names_if_both_are_alike(saved: Path, tmp_path: Path) -> None:
    table = load_file(saved / "llama" / "model.safetensors")["model.embed_tokens.weight"]
    both = copied(saved, tmp_path / "both", **{"lm_head.weight": table.clone()})
    assert torch.equal(logits(mapped(both, tmp_path / "a")), logits(mapped(saved / "llama", tmp_path / "b")))
    other = copied(saved, tmp_path / "other", **{"lm_head.weight": table + 1})
    with pytest.raises(ModelError) as caught:
        mapped(other, tmp_path / "c")
    message = str(caught.value)
    assert message.endswith("are tied, and stored with different values: load it without --offload")
    assert "'lm_head.weight'" in message


def test_tensors_that_the_model_does_not_have_are_left_in_the_file(saved: Path, tmp_path: Path) -> None:
    more = copied(saved, tmp_path / "more", extra=torch.ones(3))
    assert torch.equal(logits(mapped(more, tmp_path / "a")), logits(mapped(saved / "llama", tmp_path / "b")))


def test_another_shape_is_said_with_both(saved: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    path = copied(saved, tmp_path / "shape", **{name: torch.ones(5, 64)})
    with pytest.raises(ModelError) as caught:
        mapped(path, tmp_path / "off")
    place = path / "model.safetensors"
    assert str(caught.value) == f"'{name}' is float32 [5, 64] in {place} and float32 [128, 64] in the model: load it without --offload"
