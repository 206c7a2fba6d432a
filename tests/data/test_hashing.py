import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpq.data.batch import Batch, regroup
from mpq.data.dataset import data_from_batches, make_data
from mpq.data.hashing import sha256_of_batches, tensor_bytes


@pytest.mark.parametrize(
    "other",
    [torch.ones(4, 3), torch.zeros(4, 3).double(), torch.zeros(4, 3, 1), torch.zeros(3, 4)],
    ids=["contents", "dtype", "shape", "transposed"],
)
def test_the_hash_depends_on_contents_dtype_and_shape(other: Tensor) -> None:
    assert data_from_batches(other).sha256 != data_from_batches(torch.zeros(4, 3)).sha256


def test_the_hash_depends_on_names_and_labels() -> None:
    x = torch.zeros(4, 3)
    assert (
        len({make_data([batch], source="x").sha256 for batch in (Batch((x,)), Batch((), {"a": x}), Batch((x,), {}, torch.zeros(4)))}) == 3
    )


def test_the_hash_of_one_tensor_is_written_down() -> None:
    """Files name data by this hash: it must not change."""
    content = torch.tensor([[1.0, 2.0]])
    column = hashlib.sha256(b"||0|" + tensor_bytes(content).tobytes() + b"|torch.float32 [2]|1|").hexdigest()
    assert sha256_of_batches([Batch((content,))]) == _whole({"[0][0]": column, "[2]": _shared("None")})


def _shared(content: str) -> str:
    return hashlib.sha256(f"||0||shared {content}|0|".encode()).hexdigest()


def _whole(columns: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}:{columns[name]}\n" for name in sorted(columns)).encode()).hexdigest()


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_hash_does_not_depend_on_how_samples_are_batched(samples: int, first: int, second: int) -> None:
    table = torch.arange(20.0)
    batch = Batch((torch.arange(samples * 3.0).view(samples, 3), table, "mode"), {}, torch.arange(samples), mask=torch.ones(samples, 3))
    hashes = {sha256_of_batches(regroup([batch], size)) for size in (first, second, samples)}
    assert len(hashes) == 1


def test_the_hash_does_not_depend_on_how_memory_is_laid_out() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    assert len({sha256_of_batches([Batch((one,))]) for one in (tensor, tensor.T.contiguous().T, torch.cat([tensor, tensor])[:3])}) == 1


def test_the_order_of_samples_masks_names_of_arguments_and_shared_values_count() -> None:
    x = torch.arange(6.0).view(3, 2)
    others = [
        Batch((x,)),
        Batch((x.flip(0),)),
        Batch((x,), mask=torch.ones(3, 2)),
        Batch((x,), mask=torch.zeros(3, 2)),
        Batch((x, "a")),
        Batch((x, "b")),
        Batch((x, torch.ones(5))),
        Batch((x, torch.zeros(5))),
        Batch((), {"a": x}),
        Batch((), {"b": x}),
        Batch((x,), {}, torch.arange(3)),
        Batch((x.bfloat16(),)),
    ]
    assert len({sha256_of_batches([batch]) for batch in others}) == len(others)


def test_bits_count_so_that_signs_of_zero_and_kinds_of_nan_differ() -> None:
    zeros = [Batch((torch.tensor([value]),)) for value in (0.0, -0.0, float("nan"))]
    assert len({sha256_of_batches([batch]) for batch in zeros}) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_bytes_of_a_tensor_are_its_contents_in_row_order(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    assert tensor_bytes(tensor.T).tobytes() == b"".join(tensor_bytes(tensor[row, column]).tobytes() for column in (0, 1) for row in (0, 1))
    assert len(tensor_bytes(torch.zeros(0, 3))) == 0
