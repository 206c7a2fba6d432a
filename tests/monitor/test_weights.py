from pathlib import Path

import pytest
import torch

import mpq
from mpq.apply.run import apply
from mpq.data.batch import Batch
from mpq.errors import FormatError, MismatchError, UsageError
from mpq.formats.scheme import parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import from_module
from mpq.monitor.weights import changed_layers
from mpq.records.plan import plan_for
from tests.monitor.conftest import data, model


def made(path: Path, *, fingerprint: bool = True) -> Path:
    """An artifact of the small model with 4 bits."""
    loaded = from_module(model())
    layers, source = discover(loaded.module, [Batch((data(0)[0],))]).layers, source_of(loaded, "memory")
    rest = inventory(loaded, layers, source=source, quantizer="rtn")
    plan = plan_for(layers, {layer.name: parse_scheme("int4") for layer in layers}, model=source, quantizer="rtn", rest=rest)
    return apply(loaded, plan, path, fingerprint=fingerprint).path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return made(tmp_path / "model.mpq.safetensors")


@pytest.mark.parametrize("packed", [False, True])
def test_the_weights_of_a_loaded_model_are_those_of_its_artifact(artifact: Path, packed: bool) -> None:
    assert changed_layers(mpq.load(artifact, model(), packed=packed), artifact) == []


def test_one_flipped_bit_names_its_layer(artifact: Path) -> None:
    module = mpq.load(artifact, model())
    module.get_parameter("2.weight").data.view(torch.int32)[3, 1] ^= 1
    assert changed_layers(module, artifact) == ["2"]
    assert changed_layers(model(), artifact) == ["0", "2"]


def test_what_cannot_be_compared_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="the model has no layer '0', which"):
        changed_layers(torch.nn.Linear(2, 2), artifact)
    with pytest.raises(UsageError, match=r"'0' computes in torch\.bfloat16, where weights are rounded"):
        changed_layers(mpq.load(artifact, model(), dtype=torch.bfloat16), artifact)
    with pytest.raises(FormatError, match="has no fingerprint"):
        changed_layers(model(), made(tmp_path / "plain.mpq.safetensors", fingerprint=False))
