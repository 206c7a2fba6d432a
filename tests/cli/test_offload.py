import json
import re
from pathlib import Path
from typing import Any

import pytest

from mpq.models.memory.offload import Offload
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
    inside, outside = ([line for line in each if "products" in line] for each in (inside, outside))
    assert inside
    assert [(one["layer"], one["scheme"]) for one in inside] == [(one["layer"], one["scheme"]) for one in outside]
    for one, other in zip(inside, outside, strict=True):
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


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of mapped tensors that were in memory after each use."""
    found: list[int] = []
    real = Offload.use

    def noted(offload: Offload, address: int, piece: Any) -> None:
        real(offload, address, piece)
        found.append(offload.held)

    monkeypatch.setattr(Offload, "use", noted)
    return found


BLOCK = 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)  # bytes of the weights of one of the two blocks, in float32


@pytest.mark.parametrize("method", ["measure", "fisher"])
def test_less_than_two_blocks_are_in_memory_at_once(held: list[int], method: str) -> None:
    done(f"{ANALYZE} --method {method} --quantizer mse --offload off --max-memory {BLOCK}B --output peak.{method}.jsonl")
    assert 0 < max(held) <= BLOCK
    assert len(held) > 100


def test_an_artifact_is_quantized_and_recovered_block_by_block_with_the_same_bytes(held: list[int]) -> None:
    done(f"{ANALYZE.replace('3,8,16', '2,4')} --method weight --quantizer gptq --output apply.sensitivity.jsonl")
    done("search apply.sensitivity.jsonl --budget 3.5bits --trials 0 --sketches --output blocks.yaml")
    done("apply blocks.yaml --no-tune --own-text 0 --tune-work 0.0005 -o inside.mpq.safetensors")
    assert held == []
    ran = done(f"apply blocks.yaml --own-text 0 --tune-work 0.0005 --offload off --max-memory {BLOCK}B -o outside.mpq.safetensors")
    assert 0 < max(held) <= BLOCK
    assert Path("inside.mpq.safetensors").read_bytes() == Path("outside.mpq.safetensors").read_bytes()
    assert "Tuning skipped: it needs all weights in memory: leave out --offload" in ran.out.splitlines()
    assert re.search(r"^peak memory \d+ MB, with Python and torch; \d+ MB expected$", ran.err, re.MULTILINE)
    assert not list(Path("off").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-memory 64MB", "--max-memory 64MB limits what --offload keeps in memory: name a folder with --offload"),
        ("--offload off --shards written", "--offload is for an artifact in one file: leave out --shards and --to"),
    ],
)
def test_options_of_apply_that_do_not_go_together_are_refused_at_once(options: str, message: str) -> None:
    assert refused(f"apply none.yaml {options}", 2) == message


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
