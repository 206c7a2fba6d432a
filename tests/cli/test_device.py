"""Where the model computes, on the command line."""

from pathlib import Path

import pytest
import torch

from tests.cli.typed import done, refused

ABSENT = "--device cuda is not there: this machine has cpu; choose one of them, or auto"


@pytest.fixture(autouse=True)
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    "line",
    [
        "analyze model.pt2 --calib calibration.pt -o other.jsonl",
        "search --budget 4.5bits --trials 2 -o other.yaml",
        "apply plan.yaml -o other.mpq.safetensors",
        "eval model.mpq.safetensors --data test.pt",
    ],
)
def test_a_device_that_is_absent_is_refused_in_one_line(folder: Path, line: str) -> None:
    assert refused(f"{line} --device cuda", 2) == ABSENT


def test_auto_and_cpu_are_the_cpu_here(folder: Path) -> None:
    assert done("eval model.mpq.safetensors --data test.pt --device auto --num-samples 8").out == (
        done("eval model.mpq.safetensors --data test.pt --device cpu --num-samples 8").out
    )


def test_weights_in_files_and_another_device_are_refused(folder: Path) -> None:
    said = "--shards reads weights from files and quantizes them on the CPU: leave out --device cuda"
    assert refused("apply plan.yaml --shards out --device cuda", 2) == said
