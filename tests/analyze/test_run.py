from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.cli.console import fallback_lines
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import MismatchError, NumericsError, UsageError
from mpq.models.running.comparison import metric_named
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.models.small import MODELS, bits, data, mlp

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn", "method": "measure"}


def batch_of(inputs: Tensor) -> Data:
    return data_from_batches([inputs])


def analyzed(module: nn.Module | None = None, samples: Data | None = None, **choices: Any) -> Sensitivity:
    return mpq.analyze(module or mlp(), samples or data(), **(CHOICES | choices))


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_is_the_same_to_the_bit_afterwards(kind: str) -> None:
    build, inputs = MODELS[kind]
    module = build()
    before = bits(module)
    analyzed(module, batch_of(inputs), quantizer="mse")
    assert bits(module) == before


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_the_model_is_the_same_to_the_bit_after_an_exception_in_its_middle(kind: type[BaseException]) -> None:
    module = mlp()
    before = bits(module)
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise kind

    handle = module[5].register_forward_hook(interrupt)  # type: ignore[index]
    with pytest.raises((kind, mpq.MpqError)):
        analyzed(module)
    handle.remove()
    assert calls >= 12
    assert bits(module) == before


def test_the_table_in_memory_is_the_one_in_the_file(tmp_path: Path) -> None:
    table = analyzed(output=tmp_path / "t.jsonl")
    found = read_sensitivity(tmp_path / "t.jsonl")
    assert found.header == table.header
    assert found.finish == table.finish
    assert {key: errors.tolist() for key, errors in found.errors.items()} == {key: errors.tolist() for key, errors in table.errors.items()}


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_an_analysis_that_was_cut_off_anywhere_ends_with_the_same_table(tmp_path: Path, share: float) -> None:
    path = tmp_path / "t.jsonl"
    samples = data(40)
    whole = analyzed(samples=samples, output=path)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    path.write_bytes(content[: first + int(share * (len(content) - first))])
    resumed = analyzed(samples=samples, output=path)
    assert {key: e.tolist() for key, e in resumed.errors.items()} == {key: e.tolist() for key, e in whole.errors.items()}
    assert resumed.finished
    assert read_sensitivity(path).finished


def measured(told: list[str]) -> list[str]:
    return [what for what in told if "quantizing" not in what]


def test_a_killed_analysis_resumes_without_measuring_anything_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    done: list[str] = []

    def kill(number: int, total: int, what: str) -> None:
        if "quantizing" not in what:
            done.append(what)
            if number == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyzed(output=path, on_progress=kill)
    again: list[str] = []
    table = analyzed(output=path, on_progress=lambda number, total, what: again.append(what))
    whole: list[str] = []
    expected = analyzed(on_progress=lambda number, total, what: whole.append(what))
    assert done + measured(again) == measured(whole)
    assert {key: e.tolist() for key, e in table.errors.items()} == {key: e.tolist() for key, e in expected.errors.items()}


def test_a_finished_analysis_is_read_without_running_the_layers_again(tmp_path: Path) -> None:
    analyzed(output=tmp_path / "t.jsonl")
    content = (tmp_path / "t.jsonl").read_bytes()
    seen: list[str] = []
    assert analyzed(output=tmp_path / "t.jsonl", on_progress=lambda *_: seen.append("")).finished
    assert seen == []
    assert (tmp_path / "t.jsonl").read_bytes() == content


def test_more_candidates_reuse_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    before = analyzed(output=path, candidates=("4", "8"))
    seen: list[str] = []
    after = analyzed(output=path, candidates=("4", "8", "16"), on_progress=lambda number, total, what: seen.append(what))
    assert {what for what in seen if what != "self-check on whole plans"} == {f"{name} fp16" for name in "035"}
    assert all(after.errors[key].tolist() == errors.tolist() for key, errors in before.errors.items())
    assert after.finished


@pytest.mark.parametrize("change", ["model", "data", "quantizer", "metric", "seed", "held-out share"])
def test_an_analysis_of_something_else_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "t.jsonl"
    analyzed(output=path)
    changes: dict[str, Any] = {"quantizer": {"quantizer": "mse"}, "metric": {"metric": "cosine"}, "seed": {"seed": 1}}
    changes["held-out share"] = {"held_out": 0.5}
    module, samples = mlp(int(change == "model")), data(seed=1 + int(change == "data"))
    with pytest.raises(MismatchError) as error:
        analyzed(module, samples, output=path, **changes.get(change, {}))
    assert str(error.value).startswith(f"{path} holds an analysis with another {change} (")


def test_an_unknown_quantizer_is_refused_before_the_model_runs() -> None:
    with pytest.raises(UsageError, match=r"^'best' is not a quantizer: use one of "):
        mpq.analyze(nn.Linear(2, 2).eval(), data(), quantizer="best")


def test_candidates_whose_scales_fp16_cannot_hold_are_left_out_of_one_layer_and_told() -> None:
    module = mlp()
    with torch.no_grad():
        weight = module.get_parameter("0.weight")
        weight.mul_(1e6 / weight.abs().max())
    table = analyzed(module, candidates=("2", "4", "8", "nf4"))
    assert [str(scheme) for scheme in table.header.candidates["0"]] == ["int8"]
    assert table.header.notes[-1] == "left out for '0', whose weights are too large for fp16: int2, int4, nf4"
    assert len(table.header.candidates["3"]) == 4
    assert table.finished


def test_a_layer_without_a_candidate_that_fits_stays_at_16_bits() -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(1e7)
    table = analyzed(module, candidates=("2",))
    assert [str(scheme) for scheme in table.header.candidates["0"]] == ["bf16"]
    assert table.header.notes[-1] == "left out for '0', whose weights are too large for fp16: int2; it stays at bf16"


@pytest.mark.parametrize("quantizer", ["rtn", "mse"])
def test_tiny_weights_lose_the_candidates_that_underflow_and_keep_bf16(quantizer: str) -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(1e-7)
        module.get_parameter("3.weight").mul_(1e7 / 100)
    table = analyzed(module, candidates=("int4-g4-s8", "8", "mxfp4", "16"), quantizer=quantizer)
    assert [str(scheme) for scheme in table.header.candidates["0"]] == ["mxfp4", "bf16"]
    assert table.header.notes[-1] == "left out for '0', whose weights are too small for fp16: int4-g4-s8, int8"
    assert len(table.header.candidates["5"]) == 4


def test_layers_quantized_without_statistics_are_told_at_the_end(tmp_path: Path) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look, self.head = nn.Embedding(8, 6), nn.Linear(6, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.head(self.look(tokens).mean(1))
            return found

    torch.manual_seed(0)
    tokens = data_from_batches([torch.randint(0, 8, (16, 5))])
    table = analyzed(Table().eval(), tokens, quantizer="gptq", output=tmp_path / "t.jsonl")
    assert table.finish is not None
    assert table.finish["fallbacks"] == {"look": "a lookup table"}
    line = "quantized by weight error alone, without input statistics: look (a lookup table)"
    assert fallback_lines(table.finish["fallbacks"]) == [line]


def test_the_reference_must_be_finite() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        module.get_parameter("0.weight").fill_(3e38)
    with pytest.raises(NumericsError) as error:
        Reference(module, data(), metric_named("relative_mse"))
    message = "the unquantized model gives NaN or infinity on the calibration data: check the data's scale and the weights"
    assert str(error.value) == message


def test_rows_that_are_too_small_are_told_although_the_layer_fits() -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("3.weight")[:2] *= 1e-16
    table = analyzed(module, candidates=("8", "16", "bf16"))
    assert [str(scheme) for scheme in table.header.candidates["3"]] == ["int8", "bf16", "fp16"]
    assert table.header.notes[-1] == "of the 12 rows of '3', some are too small for fp16 and are lost: 2 at int8, 2 at fp16"
