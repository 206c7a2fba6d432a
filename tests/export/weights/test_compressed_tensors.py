import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import mpq
from mpq.apply.shard_job import apply_shards
from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.records.fused_layers import fused_groups
from mpq.records.plan import read_plan
from tests.export.artifacts import by_name, kl_divergence, make, save_llama, tokens

transformers: Any = pytest.importorskip("transformers")
UNFUSED = Options(fused=False)
SCHEMES = {"q_proj": "int8", "k_proj": "int4-g64", "v_proj": "fp32", "o_proj": "int8-g32", "gate_proj": "int4", "up_proj": "int8"}


def artifact(folder: Path, schemes: dict[str, str], otherwise: str = "int4-g32", **changes: Any) -> Path:
    model = save_llama(folder / "llama", **changes)
    return make(model, Batch((), {"input_ids": tokens()}), by_name(schemes, otherwise), folder)[1]


def loaded_logits(folder: Path) -> Tensor:
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        logits: Tensor = model(input_ids=tokens()).logits
    return logits


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_computes_the_logits_of_the_artifact(tmp_path: Path, tied: bool) -> None:
    pytest.importorskip("compressed_tensors")
    path = artifact(tmp_path, SCHEMES, tie_word_embeddings=tied)
    done = export(path, "compressed-tensors", options=UNFUSED)
    with torch.no_grad():
        reference = mpq.load(path)(input_ids=tokens()).logits
    found = loaded_logits(done.path)
    assert float((reference - found).abs().max()) < 1e-5
    assert abs(kl_divergence(reference, found)) < 1e-8


def test_an_artifact_in_several_files_gives_the_same_folder(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama", tie_word_embeddings=False)
    plan, whole = make(model, Batch((), {"input_ids": tokens()}), by_name({"lm_head": "int8"}, "int4-g32"), tmp_path)
    shards = apply_shards(model, read_plan(plan), tmp_path / "small")
    first, second = export(whole, "compressed-tensors"), export(shards.index, "compressed-tensors")
    assert second.path == tmp_path / "small" / "model-compressed-tensors"
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert torch.equal(loaded_logits(first.path), loaded_logits(second.path))


def test_zero_points_become_one_more_bit(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    path = artifact(tmp_path, {}, "int4-asym-g64")
    done = export(path, "compressed-tensors", nearest=True)
    assert {str(new) for _, new in done.replaced.values()} == {"int8", "int8-g32"}
    with torch.no_grad():
        reference = mpq.load(path)(input_ids=tokens()).logits
    assert abs(kl_divergence(reference, loaded_logits(done.path))) < 1e-8


def test_each_scheme_is_a_config_group_and_the_rest_is_ignored(tmp_path: Path) -> None:
    path = artifact(tmp_path, {"embed": "int8", "lm_head": "fp16", "v_proj": "fp16", "q_proj": "int8"}, tie_word_embeddings=False)
    done = export(path, "compressed-tensors", options=UNFUSED)
    config = json.loads((done.path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    groups = config["quantization_config"]["config_groups"]
    assert groups["group_0"]["targets"] == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    assert groups["group_0"]["weights"] == {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "strategy": "channel"}
    assert groups["group_1"]["weights"]["group_size"] == 32
    assert config["quantization_config"]["ignore"] == ["lm_head", "model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"]
    assert done.notes[0] == "model.embed_tokens (int8) is stored as float32 values, 25,600 bytes: this target packs linear layers only"
    assert done.notes[1] == "loads in Transformers, not in vLLM: it fuses layers that have unequal schemes here, with " + ", ".join(
        f"model.layers.{number}.self_attn.q_proj" for number in range(2)
    )


def test_fused_layers_of_unequal_schemes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = artifact(tmp_path, {"layers.1.self_attn.v_proj": "int8"})
    with pytest.raises(ExportError) as caught:
        export(path, "compressed-tensors")
    first = "model.layers.1.self_attn"
    assert str(caught.value) == (
        f"vLLM fuses layers that have unequal schemes here: {first}.q_proj (int4-g32), {first}.k_proj (int4-g32), {first}.v_proj (int8); "
        "search again with --for compressed-tensors, or use --allow-unfused if only other programs will load it"
    )


def test_a_fused_layer_left_out_of_the_plan_counts_as_unequal(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama")
    batch = Batch((), {"input_ids": tokens()})
    _, path = make(model, batch, by_name({}, "int4-g32"), tmp_path, without=("model.layers.0.mlp.up_proj",))
    with pytest.raises(ExportError, match=r"gate_proj \(int4-g32\), model.layers.0.mlp.up_proj \(unquantized\); search again"):
        export(path, "compressed-tensors")


def test_fused_layers_of_equal_schemes_pass(tmp_path: Path) -> None:
    done = export(artifact(tmp_path, {"embed": "int4", "o_proj": "int8"}), "compressed-tensors")
    assert not done.replaced
    assert not any("not in vLLM" in note for note in done.notes)


def test_a_head_of_its_own_is_packed_and_a_tied_one_stored_once(tmp_path: Path) -> None:
    schemes = {"lm_head": "int8", "embed": "int8"}
    (tmp_path / "tied").mkdir()
    for folder, tied in ((tmp_path, False), (tmp_path / "tied", True)):
        done = export(artifact(folder, schemes, tie_word_embeddings=tied), "compressed-tensors")
        with safe_open(done.path / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert ("lm_head.weight_packed" in names) is not tied
        assert "model.embed_tokens.weight" in names
        assert "lm_head.weight" not in names
        assert (
            "vLLM 0.32 reads a packed lm_head; for versions that do not, leave it out: mpq analyze --ignore lm_head" in done.notes
        ) is not tied


def test_what_is_no_linear_layer_is_stored_as_values_with_their_size(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=100, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    _, path = make(tmp_path / "gpt2", Batch((), {"input_ids": tokens()}), by_name({}, "int8"), tmp_path)
    done = export(path, "compressed-tensors")
    why = "this target packs linear layers only"
    assert f"transformer.h.0.attn.c_attn (int8) is stored as float32 values, 49,152 bytes: {why}" in done.notes
    with torch.no_grad():
        reference = mpq.load(path)(input_ids=tokens()).logits
    assert float((reference - loaded_logits(done.path)).abs().max()) < 1e-5


def accepted_by_vllm(weights: dict[str, Any], columns: int) -> bool:
    """The rules of vLLM 0.32 for weights without quantized inputs, and of Marlin, its kernel for them on GPUs.

    Read from CompressedTensorsConfig._is_wNa16_group_channel, CompressedTensorsWNA16.__init__ and MarlinLinearKernel.can_implement.
    """
    group = -1 if weights["strategy"] == "channel" else weights["group_size"]
    whole = weights["strategy"] in ("channel", "group") and not weights["dynamic"]
    marlin = weights["num_bits"] in (4, 8) and weights["symmetric"] and group in (-1, 32, 64, 128)
    divides = columns % (32 // weights["num_bits"]) == 0 and (group == -1 or group >= columns or columns % group == 0)
    return whole and weights["type"] == "int" and marlin and divides


def test_every_group_is_one_that_vllm_accepts(tmp_path: Path) -> None:
    schemes = {
        "lm_head": "int3-g32",
        "embed": "int3",
        "q_proj": "int2",
        "k_proj": "int2",
        "v_proj": "int2",
        "o_proj": "int6-g16",
        "down": "int4-g32",
    }
    path = artifact(tmp_path, schemes, "int5-asym-g32", tie_word_embeddings=False)
    with pytest.raises(ExportError, match=r"compressed-tensors cannot represent .* and 1 more: --nearest"):
        export(path, "compressed-tensors")
    done = export(path, "compressed-tensors", nearest=True)
    config = json.loads((done.path / "config.json").read_text())["quantization_config"]
    targets = [name for group in config["config_groups"].values() for name in group["targets"]]
    assert len(targets) == len(set(targets))
    assert not set(targets) & set(config["ignore"])
    assert not any("not in vLLM" in note for note in done.notes)
    with safe_open(done.path / "model.safetensors", "pt") as file:
        for group in config["config_groups"].values():
            assert group["input_activations"] is None
            assert group["output_activations"] is None
            for name in group["targets"]:
                rows, columns = file.get_tensor(f"{name}.weight_shape").tolist()
                assert accepted_by_vllm(group["weights"], columns)
                assert list(file.get_tensor(f"{name}.weight_packed").shape) == [rows, columns * group["weights"]["num_bits"] // 32]


def test_rows_that_fill_no_word_load_in_transformers_only(tmp_path: Path) -> None:
    path = artifact(tmp_path, {"down": "int4"}, "int8", intermediate_size=92)
    done = export(path, "compressed-tensors")
    down = ", ".join(f"model.layers.{number}.mlp.down_proj" for number in range(2))
    assert (
        f"loads in Transformers, not in vLLM: each 32-bit word holds codes of one row only, and rows of {down} do not fill whole words"
        in done.notes
    )
    with torch.no_grad():
        reference = mpq.load(path)(input_ids=tokens()).logits
    assert float((reference - loaded_logits(done.path)).abs().max()) < 1e-5


def test_every_pair_of_siblings_is_a_group() -> None:
    names = ["a.q_proj", "a.k_proj", "a.v_proj", "b.gate_proj", "b.up_proj", "c.gate_proj", "q_proj"]
    assert list(fused_groups(names)) == [("a.q_proj", "a.k_proj", "a.v_proj"), ("b.gate_proj", "b.up_proj")]


def test_other_models_are_refused(tmp_path: Path) -> None:
    from mpq.demo import write_demo

    write_demo("digits", tmp_path)
    inputs = torch.randn(2, 1, 8, 8)
    _, path = make(tmp_path / "model.pt2", Batch((inputs,)), by_name({}, "int8"), tmp_path)
    with pytest.raises(ExportError, match=r"this target only supports Hugging Face models, but .* is of kind export: use onnx"):
        export(path, "compressed-tensors")
