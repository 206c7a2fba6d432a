"""Each reader gives back the codes and scales that the artifact holds, whatever order the file has them in."""

from pathlib import Path

import pytest
import torch

from mpq.errors import FormatError
from mpq.export.base import Options
from mpq.export.fingerprint import fingerprint_of
from mpq.export.source import Source, open_source
from mpq.export.stored.base import Place
from mpq.export.stored.read import READERS, held_in
from mpq.formats.scheme import parse_scheme
from mpq.records.fingerprint import read_fingerprint
from tests.export.artifacts import NAMES, llama_artifact, llama_export

PACKAGES = {"onnx": "onnxscript", "openvino": "openvino", "pt2": "torch", "gguf": "gguf", "compressed-tensors": "transformers"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(llama_artifact(tmp_path_factory))


@pytest.mark.parametrize("target", list(NAMES))
def test_a_reader_gives_the_weights_of_the_artifact(source: Source, tmp_path_factory: pytest.TempPathFactory, target: str) -> None:
    pytest.importorskip(PACKAGES[target])
    path = llama_export(tmp_path_factory, target)
    facts = read_fingerprint(path)
    places = {name: Place(each.place, parse_scheme(each.scheme), (each.matrix[0], each.matrix[1])) for name, each in facts.layers.items()}
    held = held_in(target, path, places.values())
    assert held is not None
    assert len(held.weights) == 8
    for name, weight in source.weights():
        own, read = weight.dequantize(), held.weights[places[name].name].dequantize()
        if target == "gguf" and name.endswith(("q_proj", "k_proj")):  # rows in the order of llama.cpp's rotary embedding
            own, read = own.sort(dim=0).values, read.sort(dim=0).values
        assert torch.equal(own, read), name
    embedding = facts.layers["model.embed_tokens"]
    assert embedding.scheme == ("fp32" if target == "compressed-tensors" else "int8-g32")
    uses = {"onnx": ["Gather", "MatMul"], "openvino": ["Gather", "MatMul"], "gguf": ["embedding", "head"]}
    assert embedding.uses == uses.get(target, [])


def test_a_fingerprint_is_the_same_again(source: Source, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = llama_export(tmp_path_factory, "pt2")
    again = fingerprint_of(source, "pt2", path, Options())
    assert again == read_fingerprint(path)
    assert (again.inputs[0].shape, again.inputs[0].below, again.ties) == ([2, 6], 100, {"lm_head.weight": "model.embed_tokens.weight"})
    assert all(layer.output is not None for layer in again.layers.values())
    assert (again.outputs[0].shape, len(again.outputs[0].values)) == ([2, 6, 100], 64)


@pytest.mark.parametrize("target", [name for name in READERS if name not in ("pt2", "compressed-tensors")])
def test_a_damaged_file_is_refused(tmp_path: Path, target: str) -> None:
    pytest.importorskip(PACKAGES[target])
    path = tmp_path / NAMES[target]
    path.write_bytes(b"\x08nothing of the kind" * 9)
    with pytest.raises(FormatError, match="or is damaged"):
        held_in(target, path, [])


def test_there_is_no_reader_for_executorch(tmp_path: Path) -> None:
    assert held_in("executorch", tmp_path / "m.pte", []) is None
