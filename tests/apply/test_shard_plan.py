from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mpq.apply.shard_plan import Shard, index_of, planned_shards
from mpq.errors import ApplyError, MismatchError
from mpq.formats.scheme import parse_scheme
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_layout import entry, layer_entries
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for
from tests.small import REST

SCHEMES = {"a": "int4", "b": "int3-asym-g16", "c": "fp16"}
SHAPES = {"a": (8, 32), "b": (5, 33), "c": (4, 4)}


def plan(**changes: Any) -> Plan:
    layers = [Layer(name, (f"{name}.weight",), shape, (0,), "float32") for name, shape in SHAPES.items()]
    schemes = {name: parse_scheme(text) for name, text in SCHEMES.items()}
    return replace(plan_for(layers, schemes, model={"kind": "memory", "sha256": "0" * 64}, quantizer="rtn", rest=REST), **changes)


def planned(folder: Path, wanted: Plan | None = None, **other: torch.Tensor) -> list[Shard]:
    """Two files: a and a norm, b and c and what else is given."""
    folder.mkdir(exist_ok=True)
    weights = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    save_file({"a.weight": weights["a"], "norm": torch.zeros(7, dtype=torch.bfloat16)}, folder / "1.safetensors")
    save_file({"b.weight": weights["b"], "c.weight": weights["c"]} | other, folder / "2.safetensors")
    return planned_shards(folder, [folder / "1.safetensors", folder / "2.safetensors"], wanted or plan(), folder / "small")


def test_each_file_has_the_layers_and_the_tensors_of_its_source(tmp_path: Path) -> None:
    first, second = planned(tmp_path / "m")
    assert [shard.output.name for shard in (first, second)] == [
        "model-00001-of-00002.mpq.safetensors",
        "model-00002-of-00002.mpq.safetensors",
    ]
    assert [list(shard.layers) for shard in (first, second)] == [["a.weight"], ["b.weight", "c.weight"]]
    assert set(first.places) == {"a.codes", "a.scales", "norm"}
    assert set(second.places) == {"b.codes", "b.scales", "b.zero_points", "c.values"}
    assert first.header.schemes == {"a": parse_scheme("int4")}


def test_bytes_are_those_of_the_header_and_of_all_that_is_stored(tmp_path: Path) -> None:
    for shard in planned(tmp_path / "m"):
        stored = sum(parse_scheme(SCHEMES[layer.name]).stored_bits(layer.matrix) // 8 for layer in shard.layers.values())
        norm = 14 if "norm" in shard.places else 0
        assert shard.bytes == len(shard.first) + stored + norm
        assert min(shard.places.values()) == len(shard.first)
        assert int.from_bytes(shard.first[:8], "little") == len(shard.first) - 8


def test_tensors_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    first, _ = planned(tmp_path / "m")
    sizes = {item.name: item.stored.bytes for item in [entry("norm", "BF16", (7,)), *layer_entries("a", (8, 32), parse_scheme("int4"))]}
    end = len(first.first)
    for name, place in sorted(first.places.items(), key=lambda item: item[1]):
        assert place == end
        end += sizes[name]
    assert end == first.bytes


def test_the_index_names_the_file_of_every_tensor_and_all_bytes(tmp_path: Path) -> None:
    made = planned(tmp_path / "m")
    index = index_of(made)
    assert index["metadata"]["total_size"] == sum(shard.bytes for shard in made)
    assert list(index["weight_map"]) == sorted(name for shard in made for name in shard.places)
    assert index["weight_map"]["c.values"] == "model-00002-of-00002.mpq.safetensors"


def test_a_layer_may_be_called_as_its_tensor_is(tmp_path: Path) -> None:
    layer = Layer("experts", ("experts",), (3, 4), (0,), "float32")
    wanted = plan_for([layer], {"experts": parse_scheme("int8")}, model={"kind": "memory"}, quantizer="rtn", rest=REST)
    _, second = planned(tmp_path / "m", wanted, experts=torch.zeros(3, 4))
    assert list(second.layers) == ["experts"]


def test_a_layer_that_no_file_holds_is_refused(tmp_path: Path) -> None:
    layer = Layer("d", ("d.weight",), (3, 4), (0,), "float32")
    wanted = plan_for([layer], {"d": parse_scheme("int8")}, model={"kind": "memory"}, quantizer="rtn", rest=REST)
    with pytest.raises(ApplyError) as error:
        planned(tmp_path / "m", wanted)
    reason = f"the plan names 'd', which no file of {tmp_path / 'm'} contains under this name: apply with the model in memory"
    assert str(error.value) == reason


def test_a_tensor_that_is_no_weight_is_refused(tmp_path: Path) -> None:
    layer = Layer("d", ("d.weight",), (3, 4), (0,), "float32")
    wanted = plan_for([layer], {"d": parse_scheme("int8")}, model={"kind": "memory"}, quantizer="rtn", rest=REST)
    with pytest.raises(ApplyError) as error:
        planned(tmp_path / "m", wanted, **{"d.weight": torch.zeros(3, 4, dtype=torch.int32)})
    assert str(error.value) == "'d' is stored as I32, not a floating-point weight: remove it from the plan"


@pytest.mark.parametrize(("change", "found"), [({"shapes": SHAPES | {"a": (32, 8)}}, "32x8"), ({"axes": {"a": (1,)}}, "8x32")])
def test_a_weight_of_another_shape_is_refused(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    other = "8x32" if found == "32x8" else "32x8"
    with pytest.raises(MismatchError) as error:
        planned(tmp_path / "m", plan(**change))
    assert str(error.value) == f"'a' is {found} in the plan and {other} in {tmp_path / 'm'}: analyze it again"


@pytest.mark.parametrize(
    ("content", "there"), [(b"head1234", True), (b"HEAD1234", False), (b"head123", False), (b"head12345", False), (None, False)]
)
def test_an_output_is_there_if_it_has_the_size_and_the_header(tmp_path: Path, content: bytes | None, there: bool) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    header = ArtifactHeader({}, "rtn", (), {}, {}, {})
    assert Shard(tmp_path / "s", tmp_path / "x", (), {}, header, b"head", {}, 8).is_there() is there
