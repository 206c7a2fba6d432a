"""An analysis that was divided among machines, joined: the same as one that was not."""

from pathlib import Path
from typing import Any

import pytest

import mpq
from mpq.analyze.merge import merge
from mpq.errors import FormatError, MismatchError, UsageError
from mpq.files import Journal
from mpq.formats.scheme import parse_scheme
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.models.small import data, mlp
from tests.small import linear, table

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn"}
LAYERS = [linear("a", 4, 32), linear("b", 2, 64)]
INT4 = parse_scheme("int4")


def analyzed(path: Path, method: str, part: str | None = None) -> Sensitivity:
    return mpq.analyze(mlp(), data(64), output=path, method=method, part=part, **CHOICES)


def measurements(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if b'"errors"' in line]


@pytest.mark.parametrize("method", ["measure", "fisher", "weight"])
def test_parts_of_an_analysis_joined_are_the_undivided_one_to_the_byte(method: str, tmp_path: Path) -> None:
    whole = analyzed(tmp_path / "whole.jsonl", method)
    parts = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    tables = [analyzed(path, method, f"{number}/2") for number, path in enumerate(parts, start=1)]
    assert [sorted({name for name, _ in found.errors}) for found in tables] == [["3"], ["0", "5"]]
    assert not any(found.finished for found in tables)
    joined = merge(parts[::-1], tmp_path / "joined.jsonl")
    assert (joined.covered, joined.repeated, joined.table.missing) == (9, 0, [])
    assert measurements(tmp_path / "joined.jsonl") == measurements(tmp_path / "whole.jsonl")
    finished = analyzed(tmp_path / "joined.jsonl", method)
    assert finished.finished
    assert {key: errors.tolist() for key, errors in finished.errors.items()} == {key: e.tolist() for key, e in whole.errors.items()}
    assert (finished.blend, finished.finish["check"]) == (whole.blend, whole.finish["check"])  # type: ignore[index]


def test_a_part_stopped_and_begun_again_resumes(tmp_path: Path) -> None:
    def kill(number: int, *_: Any) -> None:
        if number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mpq.analyze(mlp(), data(64), output=tmp_path / "a.jsonl", method="measure", part="2/2", on_progress=kill, **CHOICES)
    analyzed(tmp_path / "a.jsonl", "measure", "2/2")
    analyzed(tmp_path / "b.jsonl", "measure", "2/2")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_measured_part_keeps_what_only_the_whole_can_tell_to_be_negligible(tmp_path: Path) -> None:
    whole = analyzed(tmp_path / "whole.jsonl", "measure")
    part = analyzed(tmp_path / "part.jsonl", "measure", "2/2")
    assert {len(errors) for errors in part.errors.values()} == {48}
    assert min(map(len, whole.errors.values())) < 48


def written(path: Path, found: Sensitivity, *lines: dict[str, Any]) -> Path:
    journal = Journal.create(path, found.header.to_dict())
    journal.append(*lines)
    journal.close()
    return path


def empty() -> Sensitivity:
    found = table(LAYERS, {"a": {"int4": [1.0, 3.0]}, "b": {"int4": [2.0, 2.0]}})
    found.header.data["samples"] = {"calibration": 4, "held_out": 2}
    return found


def line(layer: str, first: int, *errors: float | None) -> dict[str, Any]:
    return {"layer": layer, "scheme": "int4", "first": first, "errors": list(errors)}


def test_samples_in_several_files_count_once_and_the_longer_one_is_kept(tmp_path: Path) -> None:
    one = written(tmp_path / "1", empty(), line("a", 0, 1.0, 2.0), line("b", 0, 5.0))
    two = written(tmp_path / "2", empty(), line("a", 0, 1.0), line("a", 1, 2.0, None, 4.0))
    joined = merge([one, two], tmp_path / "joined")
    assert (joined.covered, joined.repeated) == (2, 2)
    errors = read_sensitivity(tmp_path / "joined").errors
    assert str(errors["a", INT4].tolist()) == "[1.0, 2.0, nan, 4.0]"
    assert errors["b", INT4].tolist() == [5.0]


def test_different_values_of_the_same_sample_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    one = written(tmp_path / "1", empty(), line("a", 0, 1.0, 2.0))
    two = written(tmp_path / "2", empty(), line("a", 0, 1.0, 2.5))
    with pytest.raises(FormatError) as error:
        merge([one, two], tmp_path / "joined")
    assert str(error.value).startswith(
        f"{two}: layer 'a', scheme int4: errors from sample 0 on appear twice with different values (2, then 2.5)"
    )
    assert not (tmp_path / "joined").exists()


def test_a_file_of_another_analysis_is_refused_with_the_difference(tmp_path: Path) -> None:
    other = empty()
    other.header.settings["quantizer"] = "mse"
    one, two = written(tmp_path / "1", empty(), line("a", 0, 1.0)), written(tmp_path / "2", other, line("b", 0, 1.0))
    with pytest.raises(MismatchError) as error:
        merge([one, two], tmp_path / "joined")
    assert str(error.value) == f"{two} is not of the same analysis as {one}: settings.quantizer is mse, there rtn"


def test_a_merge_needs_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no files to merge"):
        merge([], tmp_path / "joined")


def test_the_output_may_be_one_of_the_files(tmp_path: Path) -> None:
    one = written(tmp_path / "1", empty(), line("a", 0, 1.0))
    two = written(tmp_path / "2", empty(), line("b", 0, 1.0))
    merge([one, two], one)
    assert {name for name, _ in read_sensitivity(one).errors} == {"a", "b"}
