import pytest
import torch
from safetensors.torch import load, save

from mpq.tensors.dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES, as_stored, from_stored

BITS = torch.arange(48, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", SAFETENSORS_DTYPES, ids=str)
def test_the_names_are_those_that_safetensors_reads_and_writes(dtype: torch.dtype) -> None:
    tensor = BITS.view(torch.uint8).remainder(2).view(torch.bool) if dtype == torch.bool else BITS.view(dtype)
    text = save({"a": tensor})
    assert f'"dtype":"{SAFETENSORS_DTYPES[dtype]}"'.encode() in text
    assert load(text)["a"].dtype == dtype
    assert TORCH_DTYPES[SAFETENSORS_DTYPES[dtype]] == dtype


def test_a_tensor_of_a_known_dtype_is_stored_as_it_is() -> None:
    tensor = torch.ones(3, dtype=torch.bfloat16)
    assert as_stored(tensor) is tensor
    assert from_stored(tensor, torch.bfloat16) is tensor


def test_complex_numbers_are_stored_as_their_real_and_imaginary_parts() -> None:
    tensor = torch.tensor([[1 + 2j, 3 - 4j]], dtype=torch.complex128)
    stored = as_stored(tensor)
    assert stored.tolist() == [[[1, 2], [3, -4]]]
    assert stored.dtype == torch.float64
    assert torch.equal(from_stored(stored, torch.complex128), tensor)


def test_a_conjugate_view_is_stored_with_its_own_values() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128).conj()
    assert as_stored(tensor).tolist() == [[1, -2], [3, 4]]


@pytest.mark.parametrize("dtype", [torch.float8_e8m0fnu, torch.bits8])
def test_other_dtypes_are_stored_as_bytes(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[120, 127, 130]], dtype=torch.uint8).view(dtype)
    stored = as_stored(tensor)
    assert (stored.dtype, stored.tolist()) == (torch.uint8, [[120, 127, 130]])
    again = from_stored(stored, dtype)
    assert (again.dtype, again.view(torch.uint8).tolist()) == (dtype, [[120, 127, 130]])


def test_bytes_of_a_transposed_tensor_come_in_its_own_order() -> None:
    tensor = torch.arange(6, dtype=torch.uint8).view(2, 3).view(torch.float8_e8m0fnu).T
    assert as_stored(tensor).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_tensors_of_torch_are_left_alone() -> None:
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert as_stored(tensor) is tensor
