import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import cookbook
from tests.cli.typed import done, refused

ANALYZE = "analyze llama --calib stories.jsonl?split=train --seq-len 16 --num-samples 12 --candidates 3,8,16"
OFFLOAD = "--offload off --max-memory 100kB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    cookbook.llama(made)
    return made


@pytest.fixture(autouse=True)
def within(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.mark.parametrize(
    "choice",
    [
        "--method measure --quantizer mse",
        "--method weight --quantizer rtn",
        "--method measure --quantizer gptq",
    ],
)
def test_figures_with_the_weights_in_files_are_those_in_memory(choice: str) -> None:
    name = choice.replace(" ", "")
    done(f"{ANALYZE} {choice} --output {name}.a.jsonl")
    done(f"{ANALYZE} {choice} {OFFLOAD} --output {name}.b.jsonl")
    inside, outside = lines(f"{name}.a.jsonl"), lines(f"{name}.b.jsonl")
    assert inside[:-1] == outside[:-1]
    assert len(inside) > 40
    assert inside[-1]["finish"]["check"] == outside[-1]["finish"]["check"]
    assert not list(Path("off").iterdir())


@pytest.mark.parametrize("quantizer", ["mse", "descent"])
def test_gradients_with_the_weights_in_files_are_those_in_memory_within_rounding(quantizer: str) -> None:
    asked = f"{ANALYZE} --method fisher --quantizer {quantizer}"
    done(f"{asked} --output {quantizer}.a.jsonl")
    done(f"{asked} {OFFLOAD} --output {quantizer}.b.jsonl")
    inside, outside = lines(f"{quantizer}.a.jsonl"), lines(f"{quantizer}.b.jsonl")
    assert inside[0] == outside[0]
    assert [(one["layer"], one["scheme"]) for one in inside[1:-2]] == [(one["layer"], one["scheme"]) for one in outside[1:-2]]
    for one, other in zip(inside[1:-2], outside[1:-2], strict=True):
        largest = max(map(abs, one["products"]))
        assert other["products"] == pytest.approx(one["products"], abs=1e-4 * largest)
    assert not list(Path("off").iterdir())


def test_auto_measures_with_a_quantizer_that_streams_and_a_plan_is_searched_and_applied_without_the_model() -> None:
    ran = done(f"{ANALYZE} {OFFLOAD} --output auto.sensitivity.jsonl")
    assert "method measure: measuring 66 values" in ran.err
    assert "quantizer mse: the best that needs no data\n" in ran.err
    assert re.search(r"^memory: about \d+\.\d GB expected at most", ran.err, re.MULTILINE)
    assert re.search(r"^peak memory \d+ MB, with Python and torch; \d+ MB expected$", ran.err, re.MULTILINE)
    done("search auto.sensitivity.jsonl --budget 5bits --trials 0 --output plan.yaml")
    done("apply plan.yaml --shards written")
    assert Path("written/model.mpq.safetensors.index.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-memory 64MB", "--max-memory 64MB limits what --offload keeps in memory: name a folder with --offload"),
        ("--offload off --max-memory 30%", "'30%' is not a size: write bytes, such as 64MB or 1GiB"),
        ("--offload off --max-memory much", "'much' is not a size: write bytes, such as 64MB or 1GiB"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(options: str, message: str) -> None:
    assert refused(f"analyze llama {options}", 2) == message
