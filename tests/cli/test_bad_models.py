"""Bad models and bad data: one line that names the value and the remedy, the exit code, and no file left behind."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.cli.typed import refused

A = "analyze bad.pt --calib calibration.pt"


class LogOfNegative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.linear(x.flatten(1)) - 1000)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * 2


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def pickled(module: nn.Module) -> None:
    torch.save(module, "bad.pt")


def test_a_missing_model(fresh: Path) -> None:
    assert refused(A, 3) == "bad.pt does not exist: check the path of the model"


def test_an_empty_model(fresh: Path) -> None:
    Path("bad.pt").touch()
    assert refused(A, 3) == "bad.pt is empty: check the path of the model"


def test_a_truncated_archive(fresh: Path) -> None:
    Path("bad.pt").write_bytes(Path("model.pt2").read_bytes()[:50_000])
    assert refused(A, 3) == "bad.pt is a truncated or damaged archive: save or download the model again"


@pytest.mark.parametrize(("content", "what"), [(b"hello", "a text file and not a model"), (b"\xff\x00\xee" * 99, "not a model file")])
def test_no_model_at_all(fresh: Path, content: bytes, what: str) -> None:
    Path("bad.pt").write_bytes(content)
    assert refused(A, 3).startswith(f"bad.pt is {what}: mpq loads a torch.export archive, ")


def test_data_in_place_of_a_model(fresh: Path) -> None:
    assert refused("analyze test.pt", 3).startswith("test.pt holds ")


def test_a_pickled_module_without_trust(fresh: Path) -> None:
    pickled(linear())
    reason = refused(A, 3)
    assert reason.startswith("bad.pt holds pickled Python objects (torch.nn.modules.container.Sequential), which run code when loaded")
    assert reason.endswith("add --trust if you trust the file; its code then runs with your rights")


def test_a_state_dict_without_its_module(fresh: Path) -> None:
    torch.save(linear().state_dict(), "bad.pt")
    assert refused(A, 3) == "bad.pt holds weights without a module: add --builder package.module:callable, which builds the module"
    assert refused(f"{A} --builder torch.nn:Nowhere", 2).startswith("--builder torch.nn:Nowhere failed with AttributeError: ")


def test_nan_in_a_weight(fresh: Path) -> None:
    module = linear()
    next(module.parameters()).data[0, 0] = torch.nan
    pickled(module)
    assert refused(f"{A} --trust", 3) == "bad.pt: weight '1.weight' holds NaN or infinity: train or save the model again"


def test_nan_in_the_output(fresh: Path) -> None:
    pickled(LogOfNegative().eval())
    reason = refused(f"{A} --trust", 3)
    assert "gives NaN or infinity" in reason
    assert "check the data's scale" in reason


def test_a_model_without_a_searchable_layer(fresh: Path) -> None:
    pickled(Doubling().eval())
    assert refused(f"{A} --trust", 3).startswith("the model has no weight to quantize: ")


def test_a_wrong_shape(fresh: Path) -> None:
    torch.save(torch.zeros(8, 3, 9, 9), "bad.pt")
    reason = refused("analyze model.pt2 --calib bad.pt", 3)
    assert reason.startswith("bad.pt: the model does not accept a batch of float32 [8, 3, 9, 9]: ")
    assert reason.endswith("its example inputs are float32 [8, 1, 8, 8]")


def test_a_wrong_dtype(fresh: Path) -> None:
    torch.save(torch.zeros(8, 1, 8, 8, dtype=torch.long), "bad.pt")
    assert refused("analyze model.pt2 --calib bad.pt", 3).startswith("bad.pt: the model does not accept a batch of int64 [8, 1, 8, 8]: ")


def test_no_calibration_data_and_none_to_infer(fresh: Path) -> None:
    pickled(linear())
    Path("calibration.pt").unlink()
    assert refused("analyze bad.pt --trust", 3) == (
        "no calibration data: give --calib FILE, for example a .pt with a tensor of inputs, or text for a language model"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (torch.full((8, 1, 8, 8), torch.nan), "bad.pt: 8 of 8 samples hold NaN: remove or repair them"),
        (torch.zeros(0, 1, 8, 8), "bad.pt: it holds no samples: give at least one"),
        (torch.zeros(1, 1, 8, 8), "bad.pt: 1 sample cannot be split into a calibration and a held-out part: give more samples"),
    ],
)
def test_data_of_no_use(fresh: Path, data: Tensor, reason: str) -> None:
    torch.save(data, "bad.pt")
    assert refused("analyze model.pt2 --calib bad.pt", 3) == reason


def test_data_that_is_missing_or_cut_off(fresh: Path) -> None:
    assert refused("analyze model.pt2 --calib bad.pt", 3).startswith("bad.pt does not exist: give a file of tensors")
    Path("bad.pt").write_bytes(Path("calibration.pt").read_bytes()[:5000])
    assert refused("analyze model.pt2 --calib bad.pt", 3) == "bad.pt is a truncated or damaged archive: save the data again"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--candidates int9", "unknown scheme 'int9': use one of int2, int3, int4, "),
        ("--candidates 4,banana", "'banana' is not a scheme: write <format>[-asym][-gN][-s8], for example int4"),
        ("--candidates 9", "'9' bits is not a candidate: use 2 to 8, 16 or 32, or a scheme such as int4-g128"),
        ("--candidates 8..2", "'8..2' is an empty range of bits: write the smaller number first, for example 2..8"),
        ("--metric best", "'best' is not a metric: use one of kl_divergence, "),
        ("--quantizer best", "'best' is not a quantizer: use one of rtn, mse"),
        ("--targets nolayer*", "--targets 'nolayer*' matches nothing: the closest names are "),
        ("--held-out 2", "2.0 is not a share to hold out: give a number between 0 and 1"),
        ("--num-samples 0", "--num-samples 0 is not a number of samples: give 1 or more"),
        ("--config none.yaml", "cannot read none.yaml: No such file or directory; name a YAML file with --config"),
    ],
)
def test_a_wrong_option(fresh: Path, option: str, reason: str) -> None:
    assert refused(f"analyze model.pt2 {option}", 2).startswith(reason)


def test_an_analysis_of_something_else_is_not_overwritten(folder: Path) -> None:
    before = Path("model.sensitivity.jsonl").read_bytes()
    assert refused("analyze model.pt2 --num-samples 20", 3).startswith("model.sensitivity.jsonl holds an analysis with another data ")
    assert Path("model.sensitivity.jsonl").read_bytes() == before
