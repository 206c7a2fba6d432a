import io
import os
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from mpq.data.inert_pickle import PickleContent, scan_pickle
from mpq.data.tensors_only import (
    HoldsCodeError,
    check_storages,
    check_tensors_only,
    load_tensors,
    reason_of,
    storage_bytes,
    storage_count,
)
from mpq.data.zip_records import RecordError, Records
from tests.data.test_inert_pickle import Calls
from tests.hostile import records_of, saved, zipped


def test_advice_to_let_the_file_run_is_not_repeated() -> None:
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(io.BytesIO(saved(Calls(os.getcwd))), weights_only=True)
    assert "weights_only" in str(caught.value)
    assert "weights_only" not in reason_of(caught.value)


def test_tensors_in_plain_containers_load_whatever_their_dtype() -> None:
    content = {"a": [torch.zeros(2, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float8_e4m3fn)], "b": (torch.tensor(True), 3, "x")}
    assert load_tensors(io.BytesIO(saved(content)))["b"][1:] == (3, "x")


def old(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


TENSORS: dict[str, Tensor] = {
    "f": torch.arange(6.0).view(2, 3),
    "view": torch.arange(12).view(3, 4)[1:, ::2],
    "empty": torch.zeros(0, 3),
    "bool": torch.tensor([True, False]),
    "half": torch.ones(3, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("write", [saved, old])
def test_what_torch_saved_is_read_back(write: Any) -> None:
    found = load_tensors(io.BytesIO(write({"a": [TENSORS, 3], "b": "x"})))
    assert (found["a"][1], found["b"]) == (3, "x")
    assert all(torch.equal(found["a"][0][name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("write", [saved, old])
def test_what_would_be_called_is_named_and_the_file_is_not_read(write: Any) -> None:
    with pytest.raises(HoldsCodeError, match=rf"^{os.getcwd.__module__}.getcwd$"):
        load_tensors(io.BytesIO(write({"a": torch.zeros(2), "b": Calls(os.getcwd)})))


@pytest.mark.parametrize("write", [saved, old])
def test_a_file_that_passes_is_rewound(write: Any) -> None:
    file = io.BytesIO(write(TENSORS))
    check_tensors_only(file)
    assert file.tell() == 0


def test_records_that_torch_does_not_write_and_missing_ones_are_refused() -> None:
    records = records_of(saved(TENSORS))
    folder = next(iter(records)).partition("/")[0]
    with pytest.raises(RecordError, match=r"^the unusual record 'code/x.py'$"):
        check_tensors_only(io.BytesIO(zipped(records | {f"{folder}/code/x.py": b""})))
    with pytest.raises(RecordError, match=r"^no record 'data.pkl'$"):
        check_tensors_only(io.BytesIO(zipped({name: raw for name, raw in records.items() if not name.endswith("data.pkl")})))


@pytest.mark.parametrize("change", [b"", b"\0"])
def test_a_storage_of_another_size_than_its_tensors_say_is_refused(change: bytes) -> None:
    records = records_of(saved({"w": torch.zeros(4)}))
    name = next(name for name in records if name.endswith("data/0"))
    records[name] = records[name] + change if change else records[name][:-1]
    with pytest.raises(RecordError, match=r"^another size of the record 'data/0' than its tensors have$"):
        load_tensors(io.BytesIO(zipped(records)))


def test_storages_are_checked_by_key_and_of_an_unusual_form_refused() -> None:
    content = saved({"w": torch.zeros(3, 5)})
    records = Records(io.BytesIO(content))
    found = scan_pickle(next(raw for name, raw in records_of(content).items() if name.endswith("data.pkl")))
    check_storages(found, "data", records)
    with pytest.raises(RecordError, match=r"^another size of the record 'elsewhere/0' than its tensors have$"):
        check_storages(found, "elsewhere", records)
    with pytest.raises(RecordError, match=r"^a tensor stored in an unusual way$"):
        check_storages(PickleContent(storages=["odd"]), "data", records)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int8, torch.bool])
def test_the_size_of_a_storage_is_its_count_times_the_size_of_its_dtype(dtype: torch.dtype) -> None:
    records = records_of(saved(torch.zeros(3, 5, dtype=dtype)))
    (pid,) = scan_pickle(next(raw for name, raw in records.items() if name.endswith("data.pkl"))).storages
    assert storage_bytes(pid) == ("0", 15 * dtype.itemsize)
    assert storage_count(pid) == 15


@pytest.mark.parametrize("pid", [None, (), "storage", ("storage", int, "0", "cpu", 4), ("storage", "torch.FloatStorage", "0", "cpu", 4)])
def test_ids_of_another_form_have_no_size(pid: Any) -> None:
    assert (storage_bytes(pid), storage_count(pid)) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Weights only load failed", "ValueError"),
        ("", "ValueError"),
        ("use weights_only=False to go on", "ValueError"),
        ("torch.serialization.add_safe_globals([x])", "ValueError"),
        ("it broke. Do something else.", "it broke"),
        ("Weights only load failed.\nmore\nWeightsUnpickler error: Unsupported class a.b. Sorry", "Unsupported class a.b"),
        ("x" * 500, "x" * 160),
    ],
)
def test_a_reason_is_one_sentence(text: str, expected: str) -> None:
    assert reason_of(ValueError(text)) == expected


def test_damage_is_an_error_of_records_or_of_torch() -> None:
    with pytest.raises(RecordError, match=r"^damaged: "):
        load_tensors(io.BytesIO(saved(TENSORS)[:-50]))
    with pytest.raises(pickle.UnpicklingError):
        load_tensors(io.BytesIO(b"\x80\x02garbage"))
