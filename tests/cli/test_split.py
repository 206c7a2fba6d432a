"""How samples are held out, chosen on the command line, is kept from the analysis to the search."""

from pathlib import Path

import yaml

from mpq.records.sensitivity import read_sensitivity
from tests.cli.typed import done, typed

ANALYZE = "analyze model.pt2 --candidates 4,8 --num-samples 24 --quantizer rtn --method measure"


def test_a_split_that_was_asked_for_is_noted_and_made_again_by_a_search(fresh: Path) -> None:
    done(f"{ANALYZE} --split position")
    data = read_sensitivity(fresh / "model.sensitivity.jsonl").header.data
    assert (data["split"], data["gap"], data["samples"]) == ("position", 1, {"calibration": 17, "held_out": 6, "unused": 1})
    done("search --budget 5bits --trials 0")
    plan = yaml.safe_load((fresh / "plan.yaml").read_text())
    assert (plan["data"]["split"], plan["data"]["gap"]) == ("position", 1)
    done("search --budget 5bits --trials 1")
    assert yaml.safe_load((fresh / "plan.yaml").read_text())["evidence"]["measured"]["samples"] == {"calibration": 17, "held_out": 6}


def test_images_are_split_at_random_and_an_unknown_split_is_refused(fresh: Path) -> None:
    done(ANALYZE)
    assert read_sensitivity(fresh / "model.sensitivity.jsonl").header.data["split"] == "random"
    ran = typed(f"{ANALYZE} -o other.jsonl --split middle")
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "mpq: --split middle is unknown: use position or random")
    (fresh / "mpq.yaml").write_text("analyze: {split: position, candidates: [4]}\n")
    done("analyze model.pt2 --num-samples 8 --config mpq.yaml -o third.sensitivity.jsonl --quantizer rtn")
    assert read_sensitivity(fresh / "third.sensitivity.jsonl").header.data["split"] == "position"
