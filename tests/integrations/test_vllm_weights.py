from pathlib import Path

import pytest
import torch

import mpq
from mpq.data.dataset import Batch
from mpq.errors import FormatError
from mpq.export.run import export
from mpq.integrations.vllm_weights import header_in, weights_in
from mpq.records.artifact_files import artifact_files
from mpq.records.open_artifact import opened, parts_in
from mpq.tensors.quantized import unpack_weight
from mpq.tensors.words import packed
from tests.export.artifacts import by_name, make, save_llama, tokens

pytest.importorskip("transformers")

SCHEMES = {"embed": "int8", "v_proj": "int4-asym-g32", "o_proj": "fp16", "gate_proj": "int3"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    _, artifact = make(save_llama(place / "model"), Batch((), {"input_ids": tokens()}), by_name(SCHEMES, "int4-g32"), place)
    return export(artifact, "huggingface", place / "exported").path


def test_layers_come_in_words_or_as_the_numbers_that_mpq_loads(folder: Path) -> None:
    header = header_in(folder)
    codes = {name for name, scheme in header.schemes.items() if str(scheme) == "int4-g32"}
    found = dict(weights_in(folder, codes))
    state = mpq.load(folder).state_dict()
    assert {name.removesuffix(".weight_packed") for name in found if name.endswith(".weight_packed")} == codes
    plain = {name: tensor for name, tensor in found.items() if name in state}
    assert set(state) - set(plain) == {f"{name}.weight" for name in codes}
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.items())
    layer = next(layer for layer in header.layers if layer.name in codes)
    with opened(artifact_files(folder)) as file:
        weight = unpack_weight(parts_in(file, layer, header.schemes[layer.name]), header.schemes[layer.name], layer.matrix)
    assert all(torch.equal(found[f"{layer.name}.{part}"], tensor) for part, tensor in packed(weight).items())


def test_a_repository_that_is_no_folder_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"org/name is not a folder on this machine: download the repository first"):
        header_in(tmp_path / "org/name")
