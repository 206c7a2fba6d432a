import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mpq
from mpq.apply.shard_job import apply_shards
from mpq.data.dataset import Batch
from mpq.errors import OutputError
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.export.weights.huggingface.target import without_paths
from mpq.records.plan import read_plan
from mpq.tensors.packed import PackedTensor
from tests.export.artifacts import by_name, make, save_llama, tokens

transformers: Any = pytest.importorskip("transformers")


def artifact(folder: Path, **changes: Any) -> Path:
    model = save_llama(folder / "llama", **changes)
    (model / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    (model / "README.md").write_text("---\nlicense: mit\nlanguage: [en]\n---\n# Original\n")
    schemes = {"embed": "int8", "v_proj": "int3-asym-g32", "k_proj": "fp32", "down_proj": "nf4-g32"}
    return make(model, Batch((), {"input_ids": tokens()}), by_name(schemes, "int4-g32"), folder)[1]


def assert_same_logits(folder: Path, path: Path) -> None:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert isinstance(model.model.embed_tokens.weight, PackedTensor)
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens()).logits, mpq.load(path, packed=True)(input_ids=tokens()).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_folder_packed(tmp_path: Path, tied: bool) -> None:
    path = artifact(tmp_path, tie_word_embeddings=tied)
    done = export(path, "huggingface")
    assert done.path == tmp_path / "model-huggingface"
    assert not done.replaced
    assert (done.path / "model.mpq.safetensors").read_bytes() == path.read_bytes()
    names = {file.name for file in done.path.iterdir()}
    assert names == {"README.md", "config.json", "generation_config.json", "model.mpq.safetensors", "plan.yaml", "tokenizer_config.json"}
    assert_same_logits(done.path, path)


def test_an_artifact_in_several_files_stays_so(tmp_path: Path) -> None:
    path = artifact(tmp_path, tie_word_embeddings=False)
    shards = apply_shards(tmp_path / "llama", read_plan(tmp_path / "plan.yaml"), tmp_path / "small")
    done = export(shards.index, "huggingface")
    config = json.loads((done.path / "config.json").read_text())
    assert config["quantization_config"]["weights"] == "model.mpq.safetensors.index.json"
    assert_same_logits(done.path, path)


def test_the_configuration_says_what_the_layers_take(tmp_path: Path) -> None:
    done = export(artifact(tmp_path), "huggingface")
    config = json.loads((done.path / "config.json").read_text())
    original = json.loads((tmp_path / "llama" / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == original
    assert list(quantization) == ["quant_method", "version", "weights", "effective_bits", "layers_by_scheme"]
    assert quantization["layers_by_scheme"] == {"fp32": 2, "int3-asym-g32": 2, "int4-g32": 9, "int8": 1, "nf4-g32": 2}
    assert quantization["effective_bits"] == round(read_plan(tmp_path / "plan.yaml").size.effective_bits, 4)


def test_paths_of_this_machine_are_left_out_of_the_plan(tmp_path: Path) -> None:
    plan = read_plan(export(artifact(tmp_path), "huggingface").path / "plan.yaml")
    assert plan.model["path"] == "llama"
    found = without_paths(replace(plan, data={"source": "../data/text.jsonl?split=train", "seed": 0}))
    assert found.data == {"source": "text.jsonl?split=train", "seed": 0}


def test_the_report_and_the_base_model_are_taken(tmp_path: Path) -> None:
    options = Options(report="<html>", base_model="org/llama")
    done = export(artifact(tmp_path), "huggingface", options=options)
    assert (done.path / "report.html").read_text() == "<html>"
    card = (done.path / "README.md").read_text()
    assert "base_model: org/llama\n" in card
    assert "license: mit\n" in card
    assert "`report.html` shows" in card


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    (tmp_path / "plan.yaml").unlink()
    notes = export(path, "huggingface").notes
    assert [note.partition(":")[0] for note in notes] == [
        "the artifact's plan is not next to it",
        "the analysis was not found, so the folder has no report.html",
        "the card names no base model of the hub",
        "the card has no values from independent test data",
        f"the artifact contains the path of the original model, {tmp_path / 'llama'}, which anyone with the folder can read",
        "use",
    ]


def test_a_folder_of_another_model_is_kept(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    before = (tmp_path / "llama" / "config.json").read_bytes()
    with pytest.raises(OutputError, match="holds another model: choose another place with --output"):
        export(path, "huggingface", tmp_path / "llama")
    assert (tmp_path / "llama" / "config.json").read_bytes() == before


def test_an_export_again_replaces_the_first(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    first = export(path, "huggingface").bytes
    assert export(path, "huggingface").bytes == first


def test_other_models_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(8, 8).state_dict(), tmp_path / "model.pt")
    factory = "tests.export.weights.huggingface.test_target:linear"
    path = make(tmp_path / "model.pt", Batch((torch.zeros(2, 8),), {}), by_name({}, "int8"), tmp_path, factory=factory)[1]
    with pytest.raises(ExportError, match=r"this target only supports Hugging Face models, but .* is of kind state_dict: use pt2 or onnx"):
        export(path, "huggingface")


def linear() -> torch.nn.Module:
    return torch.nn.Linear(8, 8)
