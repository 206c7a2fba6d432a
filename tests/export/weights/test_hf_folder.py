from pathlib import Path

from mpq.export.weights.hf_folder import config_with, copy_tokenizer


def test_the_configuration_is_the_models_own_with_the_quantization() -> None:
    config = {"hidden_size": 4, "architecture": "BertModel", "dtype": "float32", "tensor_dtypes": {"a": "torch.float16"}}
    assert config_with(config, {"quant_method": "x"}) == {
        "hidden_size": 4,
        "dtype": "float32",
        "architectures": ["BertModel"],
        "quantization_config": {"quant_method": "x"},
    }
    assert "architecture" in config


def test_the_tokenizer_is_copied_and_code_is_not(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    output.mkdir()
    kept = ["chat_template.jinja", "generation_config.json", "spiece.model", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    for name in [*kept, "modeling.py", "pytorch_model.bin", "config.json", "model.safetensors"]:
        (source / name).write_text(name)
    assert copy_tokenizer(source, output) == []
    assert sorted(file.name for file in output.iterdir()) == kept
    assert (output / "vocab.txt").read_text() == "vocab.txt"


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    note = "the original folder was not found, so no tokenizer was copied: name it with --reference MODEL"
    assert copy_tokenizer(tmp_path / "gone", tmp_path) == [note]
    assert copy_tokenizer(None, tmp_path) == [note]
