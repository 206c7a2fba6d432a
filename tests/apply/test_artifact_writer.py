import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from mpq.apply.artifact_writer import ArtifactWriter, Contents, write_artifact
from mpq.errors import ApplyError
from mpq.formats.scheme import Scheme
from mpq.models.layers.unquantized_tensors import tensor_entry
from mpq.records.artifact import ArtifactHeader, read_artifact_header, rest_of
from mpq.records.artifact_layout import entry, header
from mpq.records.layer import Layer
from mpq.records.plan import plan_for
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.formats.test_scheme import schemes

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
odd_names = st.sampled_from(["é", "on", "a b", "层.0", 'quo"te', "back\\slash", "new\nline", "tab\t", "\u2028", "😀"])
rest_tensors = st.dictionaries(
    names | odd_names,
    st.tuples(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.int16, torch.uint8]), st.integers(0, 5)),
    max_size=3,
)


@st.composite
def contents(draw: st.DrawFn) -> tuple[list[Layer], dict[str, Scheme], dict[str, Tensor]]:
    rest = {name: torch.arange(count).to(dtype) for name, (dtype, count) in draw(rest_tensors).items()}
    found = draw(st.lists(names | odd_names, min_size=1, max_size=4, unique=True))
    layers = [
        Layer(name, (f"{name}.weight",), (draw(st.integers(1, 6)), draw(st.integers(1, 40))), (0,), "float32")
        for name in found
        if not any(other == name or other.startswith(f"{name}.") for other in rest)
    ]
    return layers, {layer.name: draw(schemes) for layer in layers}, rest


@settings(deadline=None, max_examples=80)
@given(contents(), st.dictionaries(names, names, max_size=2))
def test_the_file_has_the_predicted_size_and_safetensors_reads_every_tensor(
    tmp_path_factory: pytest.TempPathFactory, content: tuple[list[Layer], dict[str, Scheme], dict[str, Tensor]], aliases: dict[str, str]
) -> None:
    layers, chosen, rest = content
    path = tmp_path_factory.mktemp("artifacts") / "a.safetensors"
    model: dict[str, Any] = {"sha256": "a" * 64, "kind": "memory"}
    entries = [tensor_entry(name, tensor) for name, tensor in rest.items()]
    parts = {
        layer.name: RoundToNearest().quantize(torch.randn(*layer.matrix), chosen[layer.name]).pack()
        for layer in layers  # a matrix each
    }
    facts = ArtifactHeader(model, "rtn", tuple(layers), chosen, aliases, {})
    contents = Contents(facts, rest, parts.__getitem__)
    write_artifact(path, contents)
    assert path.stat().st_size == contents.file_bytes
    constant = rest_of(layers, entries, model=model, quantizer="rtn", aliases=aliases, config={}, weights=0, original_bytes=0)
    if layers:
        plan = plan_for(layers, chosen, model=model, quantizer="rtn", rest=constant)
        assert path.stat().st_size == plan.size.file_bytes
    expected = dict(rest) | {f"{name}.{part}": tensor for name, found in parts.items() for part, tensor in found.items()}
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(expected)
        for name, tensor in expected.items():
            found = file.get_tensor(name)
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)
    back = read_artifact_header(path)
    assert (back.schemes, back.aliases) == (chosen, aliases)
    check_offsets(path)


def check_offsets(path: Path) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    end = 0
    for name, item in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            start, stop = item["data_offsets"]
            assert start == end
            end = stop
    assert 8 + length + end == len(raw)
    assert length % 8 == 0


FACTS = ArtifactHeader({"sha256": "a"}, "rtn", (Layer("a", ("a.weight",), (2, 4), (0,), "float32"),), {"a": Scheme("int4")}, {}, {})
PARTS = {"codes": torch.zeros(4, dtype=torch.uint8), "scales": torch.ones(2, 1, dtype=torch.float16)}


def write(path: Path, parts: Mapping[str, Tensor]) -> str:
    with pytest.raises(ApplyError) as error:
        write_artifact(path, Contents(FACTS, {}, lambda _: parts))
    assert list(path.parent.iterdir()) == []
    return str(error.value)


def test_a_part_of_another_shape_or_dtype_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    wrong = {**PARTS, "codes": torch.zeros(5, dtype=torch.uint8)}
    assert write(tmp_path / "a", wrong) == "'a.codes' should be stored as U8 [4], but is torch.uint8 [5]"
    wrong = {**PARTS, "scales": torch.ones(2, 1)}
    assert write(tmp_path / "a", wrong) == "'a.scales' should be stored as F16 [2, 1], but is torch.float32 [2, 1]"


def test_a_hole_in_the_file_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    message = "tensor 'a.scales' was not written: this is a bug in mpq, please report it"
    assert write(tmp_path / "a", {"codes": PARTS["codes"]}) == message


def test_tensors_may_come_in_any_order_and_layout(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.arange(3, dtype=torch.uint8), "c": torch.tensor(7, dtype=torch.int64)}
    entries = [entry("b", "F32", (3, 2)), entry("a", "U8", (3,)), entry("c", "I64", ())]
    with (tmp_path / "file").open("wb") as file:
        writer = ArtifactWriter(file, entries, header(entries, {}))
        for name, tensor in tensors.items():
            writer.put(name, tensor)
        writer.check_complete()
    with safe_open(tmp_path / "file", framework="pt") as found:
        assert all(torch.equal(found.get_tensor(name), tensor) for name, tensor in tensors.items())
