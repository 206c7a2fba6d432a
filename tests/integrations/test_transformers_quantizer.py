import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Batch
from mpq.errors import FormatError, ModelError
from mpq.tensors.packed import PackedTensor
from tests.export.artifacts import by_name, make, save_llama, tokens

transformers: Any = pytest.importorskip("transformers")

from mpq.integrations import transformers_quantizer as quantizer  # noqa: E402

SCHEMES = {"embed": "int8", "v_proj": "int4-asym-g32", "k_proj": "fp32", "down_proj": "nf4-g32", "o_proj": "fp16"}


def folder_of(artifact: Path, model: Path, folder: Path, **facts: Any) -> Path:
    """What an export writes, as far as loading needs it."""
    folder.mkdir()
    shutil.copyfile(artifact, folder / "model.mpq.safetensors")
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mpq", "version": 1, "weights": "model.mpq.safetensors", **facts}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    model = save_llama(folder / "model", tie_word_embeddings=True)
    _, artifact = make(model, Batch((), {"input_ids": tokens()}), by_name(SCHEMES, "int4-g32"), folder)
    return folder_of(artifact, model, folder / "exported", effective_bits=4.5)


def loaded(folder: Path, cls: str = "AutoModelForCausalLM", **how: Any) -> tuple[Any, dict[str, Any]]:
    found: tuple[Any, dict[str, Any]] = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True, **how)
    return found


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens()).logits
    return found


def assert_all_loaded(info: dict[str, Any]) -> None:
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_logits_are_those_of_the_artifact_loaded_packed(llama: Path, dtype: torch.dtype | None) -> None:
    model, info = loaded(llama, dtype="auto" if dtype is None else dtype)
    assert_all_loaded(info)
    assert not model.training
    assert torch.equal(logits(model), logits(mpq.load(llama, packed=True, dtype=dtype)))


def test_layers_stay_packed_and_tied_ones_are_one(llama: Path) -> None:
    model, _ = loaded(llama)
    layer = model.model.layers[0]
    assert isinstance(model.lm_head.weight, PackedTensor)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert layer.self_attn.v_proj.weight.scheme_name == "int4-asym-g32"
    assert layer.mlp.down_proj.weight.scheme_name == "nf4-g32"
    assert type(layer.self_attn.k_proj.weight.data) is torch.Tensor
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config.quantization_config.to_dict() == {
        "quant_method": "mpq",
        "version": 1,
        "weights": "model.mpq.safetensors",
        "effective_bits": 4.5,
    }


def test_the_model_without_its_head_loads_from_the_same_folder(llama: Path) -> None:
    model, info = loaded(llama, "AutoModel")
    assert_all_loaded(info)
    with torch.no_grad():
        reference: Any = mpq.load(llama, packed=True)
        expected = reference.model(input_ids=tokens()).last_hidden_state
        assert torch.equal(model(input_ids=tokens()).last_hidden_state, expected)


def test_an_encoder_loads_packed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    transformers.BertModel(transformers.BertConfig(**sizes, max_position_embeddings=32)).save_pretrained(tmp_path / "bert")
    _, artifact = make(tmp_path / "bert", Batch((), {"input_ids": tokens()}), by_name({"word": "int8"}, "int4-g32"), tmp_path)
    folder = folder_of(artifact, tmp_path / "bert", tmp_path / "exported")
    model, info = loaded(folder, "AutoModel")
    assert_all_loaded(info)
    assert isinstance(model.embeddings.word_embeddings.weight, PackedTensor)
    with torch.no_grad():
        expected = mpq.load(folder, packed=True)(input_ids=tokens())
        assert torch.equal(model(input_ids=tokens()).last_hidden_state, expected.last_hidden_state)
        assert torch.equal(model(input_ids=tokens()).pooler_output, expected.pooler_output)


def test_a_dequantized_model_is_saved_and_loaded_without_mpq(llama: Path, tmp_path: Path) -> None:
    model, _ = loaded(llama)
    model.dequantize()
    assert not any(isinstance(parameter, PackedTensor) for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path / "saved")
    again, info = loaded(tmp_path / "saved")
    assert_all_loaded(info)
    assert torch.equal(logits(again), logits(mpq.load(llama)))
    assert not {"quantization_config", "transformers_weights"} & json.loads((tmp_path / "saved" / "config.json").read_text()).keys()


def test_packed_layers_are_not_saved(llama: Path, tmp_path: Path) -> None:
    model, _ = loaded(llama)
    with pytest.raises(ValueError, match="is not serializable"):
        model.save_pretrained(tmp_path / "saved")


def test_transformers_does_not_find_the_weights_by_itself(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "unknown")
    config = json.loads((llama / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "another"
    (tmp_path / "unknown" / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        loaded(tmp_path / "unknown")


def test_a_layer_that_is_damaged_is_refused(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.mpq.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(FormatError, match="it is cut off"):
        loaded(tmp_path / "cut")


def test_ordinary_weights_are_not_taken_for_packed_ones(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "other")
    shutil.copyfile(llama.parent / "model" / "model.safetensors", tmp_path / "other" / "model.mpq.safetensors")
    with pytest.raises(FormatError, match="not one that mpq wrote"):
        loaded(tmp_path / "other")


@pytest.mark.parametrize("name", ["../model.mpq.safetensors", "/tmp/model.mpq.safetensors", "model.safetensors", "a\\b.mpq.safetensors", 3])
def test_weights_outside_the_folder_are_refused(name: Any) -> None:
    with pytest.raises(FormatError) as error:
        quantizer.MpqConfig(weights=name)
    assert "which is no artifact in the same folder" in str(error.value)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(FormatError, match=r"of version 2, this mpq reads up to 1: upgrade mpq"):
        quantizer.MpqConfig(version=2)


def test_it_quantizes_nothing_while_loading(llama: Path) -> None:
    with pytest.raises(ValueError, match="does require the model to be pre-quantized"):
        loaded(llama.parent / "model", quantization_config=quantizer.MpqConfig())


def test_layers_do_not_go_to_disk(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="packed layers cannot be offloaded to disk"):
        loaded(llama, device_map={"model": "cpu", "lm_head": "disk"}, offload_folder=tmp_path)


def test_importing_the_file_registers_both_classes() -> None:
    from transformers.quantizers import auto

    assert auto.AUTO_QUANTIZER_MAPPING["mpq"] is quantizer.MpqQuantizer
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["mpq"] is quantizer.MpqConfig


def test_every_generation_of_transformers_is_told_where_the_weights_are() -> None:
    found = quantizer.MpqQuantizer(quantizer.MpqConfig())
    for ask in (found.update_attn_implementation, found.update_tp_plan, found.update_ep_plan):
        assert ask(SimpleNamespace()).transformers_weights == "model.mpq.safetensors"
