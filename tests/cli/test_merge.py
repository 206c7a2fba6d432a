import json
from pathlib import Path

from tests.cli.typed import done, refused

ANALYZE = "analyze model.pt2 --calib calibration.pt --num-samples 24 --candidates 4,8 --quantizer rtn --workers 1"


def test_two_parts_are_joined_and_finished(fresh: Path) -> None:
    first = done(f"{ANALYZE} --part 1/2 -o 1.jsonl")
    assert "part 1/2 is complete" in first.err
    second = json.loads(done(f"{ANALYZE} --part 2/2 -o 2.jsonl --json").out)
    assert (second["part"], second["layers"] < second["all_layers"]) == ("2/2", True)
    found = json.loads(done("merge 1.jsonl 2.jsonl -o all.jsonl --json").out)
    assert (found["pairs"], found["missing"], found["repeated"]) == (found["all_pairs"], [], 0)
    text = done("merge 1.jsonl all.jsonl -o again.jsonl")
    assert text.out == f"again.jsonl: {found['pairs']} of {found['pairs']} pairs of layer and scheme, from 2 files\n"
    assert "were in several files; each counts once" in text.err
    assert Path("again.jsonl").read_bytes() == Path("all.jsonl").read_bytes()
    assert "wrote all.jsonl" in done(f"{ANALYZE} -o all.jsonl").err


def test_parts_of_different_analyses_are_refused(fresh: Path) -> None:
    done(f"{ANALYZE} --part 1/2 -o 1.jsonl")
    done(f"{ANALYZE} --part 2/2 --seed 1 -o 2.jsonl")
    assert refused("merge 1.jsonl 2.jsonl -o all.jsonl", 3) == "2.jsonl is not of the same analysis as 1.jsonl: data.seed is 1, there 0"


def test_a_part_that_does_not_exist_is_refused(fresh: Path) -> None:
    assert refused(f"{ANALYZE} --part 3/2 -o 1.jsonl", 2) == "--part 3/2 is not a part: write 1/2 on one machine and 2/2 on another"
