"""What a Hugging Face directory may not hold without trust."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpq.errors import ModelError
from mpq.models.sources.huggingface_checks import allowed_parameters, check_harmless, check_pickle, check_size
from mpq.models.sources.load import load_model
from tests import hostile
from tests.export.artifacts import save_llama
from tests.hostile.refusing import refusal

SECONDS = 5.0


@pytest.mark.parametrize("name", hostile.DIRECTORIES)
def test_a_malicious_hugging_face_directory_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile.DIRECTORIES[name](tmp_path, tmp_path / "marker")
    assert str(path) in refusal(path, tmp_path / "marker")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 10**12),
        ("hidden_size", 10**6),
        ("intermediate_size", 10**9),
        ("num_hidden_layers", 10**9),
        ("max_position_embeddings", 10**12),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["class named", "class looked up"])
def test_a_configuration_of_more_parameters_than_the_files_hold_is_refused_at_once(
    key: str, value: int, named: bool, tmp_path: Path
) -> None:

    path = hostile.DIRECTORIES["a model type of another type"](tmp_path, tmp_path / "marker")
    config = json.loads((path / "config.json").read_text()) | {"model_type": "bert", key: value}
    if not named:
        del config["architectures"]
    (path / "config.json").write_text(json.dumps(config))
    begun = time.process_time()
    message = refusal(path, tmp_path / "marker")
    assert "makes more than" in message
    assert "parameters" in message
    assert time.process_time() - begun < 4 * SECONDS


def test_layers_without_end_are_refused_at_once_where_the_configuration_cannot_be_checked_before(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_llama(path)
    config = json.loads((path / "config.json").read_text()) | {"num_hidden_layers": 2_000_000, "dtype": {"float32": "float32"}}
    (path / "config.json").write_text(json.dumps(config))
    begun = time.process_time()
    with pytest.raises(ModelError, match=r"makes more than [0-9,]+ parameters"):
        load_model(path)
    assert time.process_time() - begun < 4 * SECONDS


def test_an_index_that_names_a_file_of_thousands_of_characters_is_refused(tmp_path: Path) -> None:

    path = hostile.DIRECTORIES["a model type of another type"](tmp_path, tmp_path / "marker")
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (path / "model.safetensors").rename(path / "other.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    with pytest.raises(ModelError, match="lacks xxxx"):
        load_model(path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"auto_map": {}}, "DIR contains its own Python code (auto_map)"),
        ({"a": [{"b": {"auto_map": None}}]}, "DIR contains its own Python code (auto_map)"),
        ({"_attn_implementation": "a/b"}, "DIR names code to download (_attn_implementation: a/b)"),
        ({"x": {"experts_implementation": {"text": "a:b"}}}, "DIR names code to download (experts_implementation: {'text': 'a:b'})"),
        ({"attn_implementation": {"text": 3}}, "DIR names code to download (attn_implementation: {'text': 3})"),
    ],
)
def test_a_key_that_has_code_imported_or_downloaded_is_named(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_harmless(config, "DIR")
    assert str(caught.value) == f"{reason}: if you trust it, add --trust"


def test_ordinary_configurations_are_harmless() -> None:
    check_harmless({"_attn_implementation": "sdpa", "attn_implementation": {"text": "eager"}, "x_implementation": None, "a": [1]}, "DIR")


def test_a_checkpoint_may_lack_tied_parameters_and_some_small_ones() -> None:
    assert allowed_parameters(None) is None
    assert allowed_parameters(1000) == 2 * 1000 + 65536


class Class:
    """A model class as transformers has them."""

    class config_class:  # noqa: N801
        @staticmethod
        def from_dict(config: dict[str, Any]) -> dict[str, Any]:
            return config

    @staticmethod
    def _from_config(config: dict[str, Any]) -> nn.Module:
        return nn.Linear(config["size"], config["size"], bias=False)


class Failing(Class):
    @staticmethod
    def _from_config(config: dict[str, Any]) -> nn.Module:
        raise KeyError("unknown")


def test_a_size_is_checked_by_the_first_class_that_can_be_made() -> None:
    random = torch.get_rng_state()
    check_size([Failing, Class], {"size": 10}, Path("DIR"), most=100)
    check_size([Failing], {"size": 10**6}, Path("DIR"), most=100)  # left to transformers, which says why
    with pytest.raises(ModelError) as caught:
        check_size([Failing, Class], {"size": 10**6}, Path("DIR"), most=100)
    expected = "DIR: its configuration makes more than 65,736 parameters, which the file does not have: its files hold 100 bytes"
    assert str(caught.value) == f"{expected}; download the model again"
    assert torch.equal(torch.get_rng_state(), random)


def test_a_pickle_of_weights_is_read_for_what_it_imports(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "good.bin")
    check_pickle(tmp_path / "good.bin")
    check_pickle(tmp_path / "none.safetensors")  # holds no pickle
    torch.save(nn.Linear(2, 2), tmp_path / "bad.bin")
    with pytest.raises(ModelError) as caught:
        check_pickle(tmp_path / "bad.bin")
    assert str(caught.value) == (
        f"{tmp_path / 'bad.bin'} holds pickled Python objects (torch.nn.modules.linear.Linear), which run code when loaded: "
        "download the weights as safetensors"
    )
    (tmp_path / "cut.bin").write_bytes((tmp_path / "good.bin").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"cut\.bin cannot be read as a file of torch\.save \(.*\): download the model again$"):
        check_pickle(tmp_path / "cut.bin")
