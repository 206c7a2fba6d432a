"""A sample counts once in a sensitivity file, whoever wrote it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.files import Journal
from mpq.formats.scheme import parse_scheme
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.small import linear, table

LAYERS = [linear("a", 4, 64)]
HEADER = table(LAYERS, {"a": {"int4": 1.0, "int8": 0.5}}).header
PAIR = ("a", parse_scheme("int4"))


def line(first: int, *errors: float | None, **more: Any) -> dict[str, Any]:
    return {"layer": "a", "scheme": "int4", "first": first, "errors": list(errors)} | more


def read(path: Path, *lines: dict[str, Any]) -> Sensitivity:
    journal = Journal.create(path / "t.jsonl", HEADER.to_dict())
    journal.append(*lines)
    journal.close()
    return read_sensitivity(path / "t.jsonl")


def test_a_line_that_stands_there_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, line(0, 0.5, None), line(0, 0.5, None), line(2, 0.25))
    assert np.array_equal(found.errors[PAIR], [0.5, math.nan, 0.25], equal_nan=True)
    assert found.notes == (f"{tmp_path / 't.jsonl'}: 2 values appear twice in the file; each is counted once",)


def test_lines_that_overlap_are_joined(tmp_path: Path) -> None:
    found = read(tmp_path, line(0, 1.0, 2.0), line(1, 2.0, 3.0, 4.0))
    assert found.errors[PAIR].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found.repeated == 1


@pytest.mark.parametrize(("again", "shown"), [(0.75, "0.5, then 0.75"), (None, "0.5, then nan")])
def test_a_sample_with_two_values_is_refused(tmp_path: Path, again: float | None, shown: str) -> None:
    with pytest.raises(FormatError) as error:
        read(tmp_path, line(0, 1.0, 0.5), line(0, 1.0, again))
    assert (
        f"layer 'a', scheme int4: errors from sample 0 on appear twice with different values ({shown}), as if two analyses had written to "
        "the file" in str(error.value)
    )


def test_a_sample_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="layer 'a', scheme int4: sample 2 is missing, the next line begins with 3"):
        read(tmp_path, line(0, 1.0, 0.5), line(3, 1.0))


def test_a_sample_before_the_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="line 3: first is -1: give a whole number of 0 or more"):
        read(tmp_path, line(0, 1.0, 0.5), line(-1, 1.0))


def test_signed_figures_of_fisher_count_once_also_after_they_were_blended(tmp_path: Path) -> None:
    one, two = line(0, 1.0, 4.0, products=[1.0, -1.0, 2.0, 2.0]), line(2, 9.0, products=[3.0, 3.0])
    blend = {"blend": 0.5, "draws": 2}
    once = read(tmp_path, one, two, blend)
    twice = read(tmp_path, one, one, blend, one, two, two, blend, blend)
    assert twice.repeated == 5
    assert twice.products[PAIR].tolist() == once.products[PAIR].tolist() == [1.0, -1.0, 2.0, 2.0, 3.0, 3.0]
    assert twice.errors[PAIR].tolist() == once.errors[PAIR].tolist() == [1.0, 4.0, 9.0]
    assert twice.rows[PAIR].tolist() == [1.0, 4.0, 9.0]
    with pytest.raises(FormatError, match=r"products from sample 0 on appear twice with different values \(1, then 7\)"):
        read(tmp_path, one, {**one, "products": [7.0, -1.0, 2.0, 2.0]})


def test_one_figure_for_a_batch_that_cannot_be_cut_stays_with_its_batch(tmp_path: Path) -> None:
    one, two = line(0, 1.0, 1.0, products=[1.0]), line(2, 4.0, 4.0, products=[2.0])
    found = read(tmp_path, one, one, two)
    assert found.products[PAIR].tolist() == [1.0, 2.0]
    assert found.errors[PAIR].tolist() == [1.0, 1.0, 4.0, 4.0]


def test_two_analyses_in_one_file_have_the_standard_error_of_one(tmp_path: Path) -> None:
    values = [float(f"{value:.6g}") for value in np.random.default_rng(0).exponential(size=16)]
    once = read(tmp_path, line(0, *values[:8]), line(8, *values[8:]))
    twice = read(tmp_path, line(0, *values[:8]), line(0, *values[:8]), line(8, *values[8:]), line(8, *values[8:]))
    assert twice.stderr(*PAIR) == once.stderr(*PAIR)
    assert json.dumps(twice.frame().to_dict("records")) == json.dumps(once.frame().to_dict("records"))
