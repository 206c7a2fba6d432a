"""Making a module again from what an artifact carries."""

import io
import zlib

import pytest
import torch

from mpq.errors import FormatError, ModelError
from mpq.models.sources.exported_program import strip_program
from mpq.models.sources.rebuild import rebuild_module
from tests.models.small import inputs, mlp


def test_what_cannot_be_rebuilt_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^the artifact contains no program: give the original model too$"):
        rebuild_module("export", program=None, config=None)
    with pytest.raises(FormatError, match=r"^the artifact contains no configuration: give the original model too$"):
        rebuild_module("hf", program=None, config=None)
    with pytest.raises(ModelError, match=r"^a model of kind 'torchscript' cannot be rebuilt from the artifact alone"):
        rebuild_module("torchscript", program=None, config=None)
    with pytest.raises(ModelError, match=r"cannot make NoSuch \(.*\): upgrade transformers$"):
        rebuild_module("hf", program=None, config={"architecture": "NoSuch", "dtype": "float32", "tensor_dtypes": {}})


def program() -> bytes:
    found = strip_program(torch.export.export(mlp(), (inputs(2, 8),)))
    assert found is not None
    return found


@pytest.mark.parametrize("hollow", [False, True])
def test_an_exported_program_has_its_names_shapes_and_dtypes_and_no_values(hollow: bool) -> None:
    state = rebuild_module("export", program=program(), config=None, hollow=hollow).state_dict()
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in mlp().state_dict().items()
    }
    assert not any(tensor.any() for tensor in state.values())
    assert all(tensor.is_contiguous() for tensor in state.values()) == (not hollow)


def test_an_archive_compressed_by_either_machine_is_read() -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(mlp(), (inputs(2, 8),)), buffer)
    assert list(rebuild_module("export", program=zlib.compress(buffer.getvalue()), config=None).state_dict()) == list(mlp().state_dict())
