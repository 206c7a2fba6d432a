import json
from pathlib import Path

import pytest

from tests.cli.typed import done, files, typed


def test_the_way_through_as_it_is_typed(fresh: Path) -> None:
    (fresh / "model.pt2").rename(fresh / "model.pt")
    assert "next: mpq search --budget 4.5bits" in done("analyze model.pt --calib calibration.pt --num-samples 16").err
    assert "next: mpq apply plan.yaml" in done("search --budget 4.5bits --trials 2").err
    assert "model.mpq.safetensors" in done("apply plan.yaml").out
    assert done("check plan.yaml --budget 4.5bits").out.startswith("ok    plan.yaml: size of the layers: ")
    low = typed("check plan.yaml --budget 4bits")
    assert low.code == 1
    assert "over the budget of 4bits (12,288 bytes)" in low.out
    assert "top1_agreement" in done("eval model.mpq.safetensors --data test.pt --num-samples 50").out
    assert "an artifact of model.pt (export)" in done("show model.mpq.safetensors").out
    assert files() == [
        "calibration.pt",
        "model.mpq.safetensors",
        "model.pt",
        "model.sensitivity.jsonl",
        "model.study.journal",
        "plan.yaml",
        "test.pt",
    ]


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("analyze model.pt2 --num-samples 24", {"output", "layers", "finish", "coverage", "table"}),
        ("search --budget 4.5bits --trials 2", {"output", "size", "evidence", "reason", "richer_candidates"}),
        ("search --budget 4.5bits --trials 0", {"output", "size", "evidence", "reason", "richer_candidates"}),
        ("apply plan.yaml", {"output", "file_bytes", "original_bytes", "size", "recovery", "fallbacks", "unchanged"}),
        ("check plan.yaml", {"file", "passed", "checks"}),
        ("eval model.mpq.safetensors --data test.pt --num-samples 8", {"samples", "source", "figures", "artifact", "assignment"}),
        ("show plan.yaml", {"file", "kind", "model", "budget", "quantizer", "size", "evidence", "evidence_is_current", "layers"}),
        ("show model.mpq.safetensors", {"file", "kind", "model", "quantizer", "recovery", "stopped", "size", "layers"}),
        ("show model.sensitivity.jsonl", {"file", "kind", "model", "data", "settings", "missing", "finish", "layers"}),
    ],
)
def test_json_is_the_whole_of_stdout(folder: Path, line: str, keys: set[str]) -> None:
    assert set(json.loads(done(f"{line} --json").out)) == keys
