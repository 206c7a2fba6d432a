import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from mpq.data.inert_pickle import named_globals, scan_pickle
from mpq.data.tensors_only import load_tensors, reason_of
from mpq.models.sources.allowed_operators import is_allowed, refused_names
from tests.hostile import records_of, saved


class Calls:
    def __init__(self, *what: object) -> None:
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        return self.what[0], self.what[1:]


@pytest.mark.parametrize("protocol", range(6))
def test_a_scan_names_what_a_pickle_would_call_and_calls_nothing(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps([Calls(os.mkdir, str(tmp_path / "made")), {"a": Calls(os.getcwd)}], protocol)
    assert scan_pickle(content).globals == [f"{os.mkdir.__module__}.mkdir", f"{os.getcwd.__module__}.getcwd"]
    assert not (tmp_path / "made").exists()


def test_names_of_python_2_are_those_that_a_loader_would_find() -> None:
    assert scan_pickle(b"c__builtin__\neval\n.").globals == ["builtins.eval"]


def test_a_scan_lists_the_storages_of_tensors_with_their_sizes() -> None:
    records = records_of(saved({"w": torch.zeros(3, 5)}))
    (storage,) = scan_pickle(next(raw for name, raw in records.items() if name.endswith("data.pkl"))).storages
    assert storage[2:] == ("0", "cpu", 15)


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"garbage", b"\x82\x01.", b"\x80\x02(((", b"\x80\x04\x96" + b"\xff" * 8])
def test_a_damaged_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="a damaged pickle"):
        scan_pickle(content)


def test_what_stands_before_the_damage_is_named() -> None:
    assert named_globals(io.BytesIO(pickle.dumps(Calls(os.getcwd))[:-1])) == [f"{os.getcwd.__module__}.getcwd"]


def test_advice_to_let_the_file_run_is_not_repeated() -> None:
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(io.BytesIO(saved(Calls(os.getcwd))), weights_only=True)
    assert "weights_only" in str(caught.value)
    assert "weights_only" not in reason_of(caught.value)


def test_tensors_in_plain_containers_load_whatever_their_dtype() -> None:
    content = {"a": [torch.zeros(2, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float8_e4m3fn)], "b": (torch.tensor(True), 3, "x")}
    assert load_tensors(io.BytesIO(saved(content)))["b"][1:] == (3, "x")


@pytest.mark.parametrize(
    "target", ["aten.relu.default", "aten.conv2d.padding", "aten.gelu.default", "aten.einsum.default", "prims.sum.default"]
)
def test_operators_that_compute_are_allowed(target: str) -> None:
    assert is_allowed(f"torch.ops.{target}")


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.from_file.out",
        "aten.save.default",
        "aten.set_.source_Storage",
        "aten.record_stream.default",
        "aten._print.default",
        "aten.resize_.default",
        "aten.nothing.default",
        "quantized.linear.default",
        "mpq.product.default",
        "higher_order.aoti_call_delegate",
        "higher_order.call_torchbind",
        "higher_order.flat_apply",
        "c10d.send.default",
    ],
)
def test_operators_that_reach_further_are_not(target: str) -> None:
    assert not is_allowed(f"torch.ops.{target}")


def test_no_operator_that_takes_the_name_of_a_file_is_allowed() -> None:
    schemas = torch._C._jit_get_all_schemas()
    files = {s.name.partition("::")[2] for s in schemas if s.name.startswith("aten::") and any("file" in a.name for a in s.arguments)}
    assert files >= {"from_file", "save"}
    assert files <= refused_names()
