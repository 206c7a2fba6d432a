"""A TorchScript archive reaches torch without anything that could run code of its own, or reach files."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpq.data.zip_records import RecordError
from mpq.errors import ModelError
from mpq.models.sources.load import load_model
from mpq.models.sources.torchscript_guard import checked_script
from tests import hostile
from tests.hostile.refusing import refusal


@pytest.mark.parametrize("name", hostile.SCRIPTS)
def test_malicious_torchscript_is_refused(name: str, tmp_path: Path) -> None:
    path = hostile.SCRIPTS[name](tmp_path, tmp_path / "marker")
    assert str(path) in refusal(path, tmp_path / "marker")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    "module",
    [
        hostile.Small(),
        nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.GELU(), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Softmax(-1)),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1, enable_nested_tensor=False),
        nn.LSTM(4, 3),
        nn.MultiheadAttention(4, 2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_ordinary_torchscript_loads_without_trust(module: nn.Module, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(module.eval()), tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt").kind == "torchscript"


def script_records() -> dict[str, bytes]:
    """The records of an ordinary script, below the folder "archive"."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(hostile.Small().eval()), buffer)
    return {f"archive/{name.partition('/')[2]}": content for name, content in hostile.records_of(buffer.getvalue()).items()}


def checked(records: dict[str, bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(checked_script(io.BytesIO(hostile.zipped(records)), "a file"))


def test_torch_is_given_code_pickles_and_tensors_and_nothing_else() -> None:
    records = script_records() | {"archive/extra/notes.txt": b"x", "archive/traced_inputs.pkl": b"x"}
    found = checked(records)
    assert found.testzip() is None
    names = set(found.namelist())
    kept = {name for name in records if name.endswith(".py") or "/data" in name or "constants" in name}
    assert kept - {name for name in kept if ".data/" in name} <= names
    assert not any("extra" in name or "traced" in name or "debug_pkl" in name for name in names)
    code = next(name for name in names if name.endswith(".py"))
    assert found.read(code) == records[code]
    assert found.read("archive/byteorder") == b"little"


@pytest.mark.parametrize(
    ("record", "content", "what"),
    [
        ("code/__torch__/x.py", "def f(x):\n  # a\n", "the unusual character '#' in its code"),
        ("code/__torch__/x.py", "def f(x):\n  return 'é'\n", "the unusual character '\ufffd' in its code"),
        ("code/__torch__/x.py", 'torch.save([x], "a")\n', "a call of 'save'"),
        ("code/__torch__/x.py", "ops.prim.Print(x)\n", "a call of 'Print'"),
        ("model.json", "{}", "the unusual record 'model.json'"),
    ],
)
def test_what_could_do_more_than_compute_is_named(record: str, content: str, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        checked(script_records() | {f"archive/{record}": content.encode()})
    reason = "which may run code or reach files: if you trust the file, add --trust"
    assert str(caught.value) == f"a file is TorchScript with {what}, {reason}"


def test_ordinary_names_that_look_like_others_pass() -> None:
    code = b"def f(self, saved: Tensor) -> Tensor:\n  set_size = self.resized\n  return torch.add(saved, saved)\n"
    assert "archive/code/__torch__/x.py" in checked(script_records() | {"archive/code/__torch__/x.py": code}).namelist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"archive/version": None, "archive/.data/version": None}, "no format version"),
        ({"archive/version": b"x1", "archive/.data/version": b"x1"}, "no format version"),
        ({"archive/byteorder": b"big"}, "numbers in another byte order"),
    ],
)
def test_an_archive_of_another_form_is_refused(change: dict[str, Any], reason: str) -> None:
    records = {**script_records(), **change}
    with pytest.raises(RecordError, match=f"^{reason}$"):
        checked({name: content for name, content in records.items() if content is not None})


def test_a_tensor_outside_its_storage_is_refused() -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(40, 50)), buffer)
    records = {f"archive/{name.partition('/')[2]}": content for name, content in hostile.records_of(buffer.getvalue()).items()}
    pickled = records["archive/data.pkl"]
    assert b"K2K(" in pickled  # the shape [50, 40]
    with pytest.raises(RecordError, match=r"^a tensor that reaches outside its storage$"):
        checked(records | {"archive/data.pkl": pickled.replace(b"K2K(", b"K3K(")})
