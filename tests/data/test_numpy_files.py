import io
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mpq.data import numpy_files
from mpq.data.numpy_files import check_unpacked, read_array
from tests.hostile import zipped

Array = np.ndarray[Any, Any]
numbers = arrays.boolean_dtypes() | arrays.integer_dtypes() | arrays.unsigned_integer_dtypes() | arrays.floating_dtypes(sizes=(16, 32, 64))


def saved(array: Array, *, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def read(content: bytes) -> Array:
    found: Array = read_array(io.BytesIO(content), len(content))
    return found


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(numbers, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0)]),
)
def test_an_array_is_read_as_numpy_saved_it(array: Array, by_columns: bool, version: tuple[int, int]) -> None:
    given_one = np.asfortranarray(array) if by_columns else array
    found = read(saved(given_one, version=version))
    assert (found.dtype, found.shape) == (array.dtype, given_one.shape)
    assert found.tobytes() == array.tobytes()


def test_what_is_read_can_be_changed() -> None:
    found = read(saved(np.zeros(3)))
    found[0] = 1
    assert found.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "array", [np.array(["a", "bc"]), np.array(["2020-01-01"], dtype="datetime64[D]"), np.zeros(2, dtype=[("a", "i4")])]
)
def test_what_is_not_of_numbers_is_told_by_its_dtype_without_its_contents(array: Array) -> None:
    found = read(saved(array))
    assert (found.dtype, found.shape) == (array.dtype, (0,))


def test_python_objects_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^pickled Python objects$"):
        read(saved(np.array([{}], dtype=object)))


@pytest.mark.parametrize(("change", "found"), [(b"", 31), (b"\0", 33)])
def test_a_file_of_another_size_than_its_header_says_is_refused(change: bytes, found: int) -> None:
    content = saved(np.zeros(4))
    content = content + change if change else content[:-1]
    with pytest.raises(ValueError, match=rf"^its header says 32 bytes, and there are {found}$"):
        read(content)


def test_a_header_that_claims_much_takes_no_memory() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with pytest.raises(ValueError, match=r"^its header says 9,007,199,254,740,992 bytes, and there are 0$"):
        read(header.getvalue())


def test_sides_below_zero_whose_product_fits_are_refused() -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (-1, -4)})
    with pytest.raises(ValueError, match=r"^its header says 32 bytes, and there are 32$"):
        read(header.getvalue() + bytes(32))


def test_a_file_that_ends_early_although_its_size_was_right_is_refused() -> None:
    content = saved(np.zeros(4))
    with pytest.raises(ValueError, match=r"^it ends before the 32 bytes that its header says$"):
        read_array(io.BytesIO(content[:-8]), len(content))


def test_another_version_of_the_format_is_refused() -> None:
    content = saved(np.zeros(4), version=(3, 0))
    with pytest.raises(ValueError, match=r"^format 3.0 of NumPy$"):
        read(content)


def archive(content: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(content))


def test_an_archive_may_unpack_to_a_share_of_its_size_or_a_free_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    found = archive(zipped({"a.npy": bytes(100), "b.npy": bytes(50)}))
    monkeypatch.setattr(numpy_files, "ARCHIVE_FREE_BYTES", 0)
    monkeypatch.setattr(numpy_files, "ARCHIVE_RATIO", 3)
    check_unpacked(found, 50)
    with pytest.raises(ValueError, match=r"^2 members of 150 bytes in a file of 49$"):
        check_unpacked(found, 49)
    monkeypatch.setattr(numpy_files, "ARCHIVE_FREE_BYTES", 150)
    check_unpacked(found, 1)


def test_an_archive_holds_so_many_members_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^two members of one name$"):
        check_unpacked(archive(zipped({"a.npy": b"1"}, ("a.npy", b"2"))), 100)
    monkeypatch.setattr(numpy_files, "ARCHIVE_RECORDS", 1)
    check_unpacked(archive(zipped({"a.npy": b"1"})), 100)
    with pytest.raises(ValueError, match=r"^2 members of 2 bytes in a file of 100$"):
        check_unpacked(archive(zipped({"a.npy": b"1", "b.npy": b"2"})), 100)
