import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mpq.errors import FormatError
from mpq.export.stored.base import Place
from mpq.export.stored.compressed_tensors import config_of, groups_of, held_by, read
from tests.small import schemes

PLACE = Place("a", schemes("int4-g8")[0], (1, 16))
WORDS = torch.tensor([[0x76543210, -0x01234568]], dtype=torch.int32)  # codes 0 to 15, the lowest bits first
SCALES = torch.tensor([[0.5, 2.0]])
GROUPS = {"a": {"num_bits": 4, "group_size": 8}}


def test_words_hold_codes_with_the_lowest_bits_first() -> None:
    held = held_by({"a.weight_packed": WORDS, "a.weight_scale": SCALES, "norm.weight": torch.ones(2)}, GROUPS, [PLACE])
    weight = held.weights["a"]
    assert str(weight.scheme) == "int4-g8"
    assert weight.codes.tolist() == [list(range(16))]
    assert weight.dequantize().tolist() == [[0.5 * (code - 8) for code in range(8)] + [2.0 * (code - 8) for code in range(8, 16)]]
    assert list(held.tensors) == ["norm.weight"]


def test_a_layer_that_no_group_names_is_held_as_values() -> None:
    held = held_by({"a.weight": torch.ones(1, 16)}, {}, [PLACE])
    assert str(held.weights["a"].scheme) == "fp32"
    assert held.tensors == {}
    assert held_by({}, GROUPS, [PLACE]).weights == {}


def test_a_folder_is_read_by_its_config(tmp_path: Path) -> None:
    config = {"quantization_config": {"config_groups": {"g": {"targets": ["a"], "weights": GROUPS["a"]}}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a.weight_packed": WORDS, "a.weight_scale": SCALES}, tmp_path / "model.safetensors")
    assert groups_of(tmp_path) == GROUPS
    assert read(tmp_path, [PLACE]).weights["a"].codes.tolist() == [list(range(16))]


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="name a folder that `mpq export` wrote"):
        config_of(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(FormatError, match=r"config\.json is not a mapping: run `mpq export` again$"):
        config_of(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(FormatError, match="holds a damaged file"):
        read(tmp_path, [PLACE])
