import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mpq.errors import ModelError, NumericsError
from mpq.models.sources.huggingface import described_checkpoint, rebuild_directory, weight_files
from mpq.models.sources.load import load_model
from mpq.models.sources.rebuild import rebuild_module

transformers: Any = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}


@pytest.fixture(autouse=True)
def silent_transformers() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hf")
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=True))
    llama.save_pretrained(folder / "llama")
    llama.bfloat16().save_pretrained(folder / "llama16", max_shard_size="2KB")
    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(folder / "bert")
    t5 = transformers.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=30)
    transformers.T5ForConditionalGeneration(t5).half().save_pretrained(folder / "t5")
    return folder


def edit(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.fixture
def bert(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "bert", tmp_path / "bert")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "DIR")


@pytest.mark.parametrize(
    ("name", "architecture", "dtype"),
    [
        ("llama", "LlamaForCausalLM", torch.float32),
        ("llama16", "LlamaForCausalLM", torch.bfloat16),
        ("bert", "BertModel", torch.float32),
        ("t5", "T5ForConditionalGeneration", torch.float16),
    ],
)
def test_a_hugging_face_directory_loads_and_its_module_rebuilds_from_the_configuration(
    saved: Path, name: str, architecture: str, dtype: torch.dtype
) -> None:
    loaded = load_model(saved / name)
    assert (loaded.kind, loaded.tokenizer) == ("hf", None)
    assert loaded.config is not None
    assert loaded.config["architecture"] == architecture == type(loaded.module).__name__
    assert next(loaded.module.parameters()).dtype == dtype
    rebuilt = rebuild_module("hf", program=None, config=json.loads(json.dumps(loaded.config)))
    original, made = loaded.module.state_dict(), rebuilt.state_dict()
    assert list(made) == list(original)
    assert [name for name, _ in rebuilt.named_parameters()] == [name for name, _ in loaded.module.named_parameters()]
    assert not rebuilt.training
    assert not any(tensor.any() for tensor in made.values())
    assert {key: tensor.dtype for key, tensor in made.items()} == {key: tensor.dtype for key, tensor in original.items()}
    rebuilt.load_state_dict(original)
    tokens = torch.arange(10).reshape(2, 5)
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens} if name == "t5" else {"input_ids": tokens}
    assert torch.equal(rebuilt(**inputs)[0], loaded.module(**inputs)[0])


def test_rebuilding_leaves_the_random_state_alone(saved: Path) -> None:
    config = load_model(saved / "bert").config
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rebuild_module("hf", program=None, config=config)
    assert torch.equal(torch.rand(1), expected)


def test_nothing_is_printed(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rebuild_module("hf", program=None, config=load_model(saved / "llama16").config)
    assert capfd.readouterr() == ("", "")


def test_the_hash_covers_the_configuration_and_every_shard(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved / "llama16", tmp_path / "copy")
    before = load_model(copy).sha256
    assert before == load_model(saved / "llama16").sha256
    edit(copy, rms_norm_eps=1e-4)
    assert load_model(copy).sha256 != before


def test_a_tokenizer_in_the_directory_is_found(bert: Path) -> None:
    (bert / "tokenizer_config.json").write_text("{}")
    assert load_model(bert).tokenizer == bert


def test_without_a_known_architecture_the_class_that_the_weights_fit_is_taken(bert: Path) -> None:
    assert type(load_model(edit(bert, architectures=None)).module).__name__ == "BertModel"


def test_weights_of_bin_files_load(bert: Path) -> None:
    state = load_model(bert).module.state_dict()
    (bert / "model.safetensors").unlink()
    torch.save(state, bert / "pytorch_model.bin")
    assert load_model(bert).kind == "hf"


def test_an_incomplete_directory_is_refused(bert: Path, saved: Path, tmp_path: Path) -> None:
    edit(bert, architectures=["BertForSequenceClassification"])
    expected = "DIR lacks weights of BertForSequenceClassification: classifier.bias, classifier.weight; download the model again"
    assert refusal(bert) == expected
    (bert / "model.safetensors").unlink()
    assert refusal(bert) == "DIR holds no weights (model.safetensors or pytorch_model.bin): download the model again"
    sharded = shutil.copytree(saved / "llama16", tmp_path / "sharded")
    first = min(sharded.glob("*.safetensors"))
    first.unlink()
    assert refusal(sharded) == f"DIR lacks {first.name}: download the model again"


def test_a_directory_with_code_or_already_quantized_is_refused(bert: Path) -> None:
    edit(bert, quantization_config={"bits": 4})
    assert refusal(bert) == "DIR is already quantized (quantization_config): give the original checkpoint"
    edit(bert, auto_map={"AutoModel": "code.Model"})
    assert refusal(bert) == "DIR contains its own Python code (auto_map): if you trust it, add --trust"


def test_a_damaged_configuration_or_weight_file_is_refused(bert: Path) -> None:
    content = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(content[:-50])
    assert refusal(bert).startswith("DIR cannot be loaded by transformers (")
    (bert / "config.json").write_text("{}")
    assert refusal(bert) == "DIR/config.json names no model_type: give a directory saved by save_pretrained"
    (bert / "config.json").write_text("{")
    assert refusal(bert).startswith("cannot read DIR/config.json (Expecting property name")


def test_infinity_in_a_weight_is_named(bert: Path) -> None:
    state = load_model(bert).module.state_dict()
    state["pooler.dense.weight"][0, 0] = float("inf")
    (bert / "model.safetensors").unlink()
    torch.save(state, bert / "pytorch_model.bin")
    with pytest.raises(NumericsError, match=r"weight 'pooler\.dense\.weight' holds NaN or infinity"):
        load_model(bert)


def test_without_transformers_the_remedy_is_named(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert refusal(bert) == "a Hugging Face model needs transformers: pip install 'mpq-torch[hf]'"


def test_a_checkpoint_is_described_by_its_configuration_and_dtypes_alone(saved: Path) -> None:
    for name in ("llama", "llama16", "t5"):
        loaded = load_model(saved / name)
        assert loaded.config is not None
        dtypes = {key: tensor.dtype for key, tensor in loaded.module.state_dict().items()}
        found = described_checkpoint(saved / name, dtypes)
        assert {key: found[key] for key in ("architecture", "dtype", "tensor_dtypes")} == {
            key: loaded.config[key] for key in ("architecture", "dtype", "tensor_dtypes")
        }


def test_a_checkpoint_whose_class_is_not_named_is_not_described(bert: Path) -> None:
    expected = f"{bert / 'config.json'} names no class of transformers: load the model into memory, without --shards or --offload"
    for changes in ({"architectures": None}, {"architectures": ["BertModel"], "auto_map": {}}):
        with pytest.raises(ModelError) as caught:
            described_checkpoint(edit(bert, **changes), {})
        assert str(caught.value) == expected


def test_the_weight_files_are_those_of_the_index_safetensors_first(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}))
    assert weight_files(tmp_path) == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (
            {"weight_map": {"x": "../a"}},
            "DIR/model.safetensors.index.json names ../a, which is not a file in the same folder: download the model again",
        ),
        ({"weight_map": {"x": "a"}}, "DIR lacks a: download the model again"),
        ({"weight_map": ["a"]}, "cannot read DIR/model.safetensors.index.json: download the model again"),
        ({}, "cannot read DIR/model.safetensors.index.json: download the model again"),
    ],
)
def test_an_index_of_no_use_is_refused(tmp_path: Path, index: object, reason: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as caught:
        weight_files(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "DIR") == reason


def test_an_artifact_that_makes_more_parameters_than_it_has_values_for_is_refused(saved: Path) -> None:
    config = load_model(saved / "bert").config
    assert config is not None
    count = sum(parameter.numel() for parameter in rebuild_directory(config).parameters())
    rebuild_directory(config, most=count)
    with pytest.raises(ModelError, match=rf"its configuration makes {count:,} parameters, but there are values for only {count - 1:,}\): "):
        rebuild_directory(config, most=count - 1)


def test_a_hollow_module_has_no_memory_for_its_parameters(saved: Path) -> None:
    config = load_model(saved / "llama").config
    assert config is not None
    module = rebuild_directory(config, hollow=True)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
