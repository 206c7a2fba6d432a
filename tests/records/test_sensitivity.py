import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.files import Journal
from mpq.formats.scheme import parse_scheme
from mpq.records.artifact_layout import layer_header_bytes
from mpq.records.sensitivity import Sensitivity, layer_bytes, read_sensitivity, scheme_cost, standard_error
from tests.small import linear, random_table, table

LAYERS = [linear("a", 4, 32), linear("b", 2, 64)]
INT4, INT8 = parse_scheme("int4"), parse_scheme("int8")


def made() -> Sensitivity:
    return table(LAYERS, {"a": {"int4": [1.0, 3.0], "int8": [0.5, 0.1]}, "b": {"int4": [2.0, 2.0], "int8": [0.0, -1e-9]}})


def written(path: Path, found: Sensitivity) -> Path:
    journal = Journal.create(path, found.header.to_dict())
    for (layer, scheme), errors in found.errors.items():
        values = [None if math.isnan(error) else error for error in errors.tolist()]
        journal.append({"layer": layer, "scheme": str(scheme), "first": 0, "errors": values})
    journal.close()
    return path


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    original = made()
    found = read_sensitivity(written(tmp_path / "t.jsonl", original))
    assert found.header == original.header
    assert found.path == tmp_path / "t.jsonl"
    assert found.errors.keys() == original.errors.keys()
    assert all(found.errors[key].tobytes() == original.errors[key].tobytes() for key in found.errors)


def test_lines_of_one_layer_and_scheme_are_joined(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", made())
    journal = Journal(path)
    journal.append({"layer": "a", "scheme": "int4", "first": 2, "errors": [5.0, None]})
    journal.close()
    errors = read_sensitivity(path).errors["a", INT4]
    assert errors.tolist()[:3] == [1.0, 3.0, 5.0]
    assert math.isnan(errors[3])


def test_what_was_not_measured_is_missing_in_model_order() -> None:
    found = made()
    del found.errors["b", INT4], found.errors["a", INT8]
    assert found.missing == [(LAYERS[0], INT8), (LAYERS[1], INT4)]


def test_a_figure_that_is_not_finite_makes_the_mean_infinite() -> None:
    found = made()
    found.add("a", INT4, [None])
    assert found.mean("a", INT4) == math.inf
    assert found.mean("a", INT8) == pytest.approx(0.3)


def test_the_standard_error_is_that_of_a_mean() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    assert standard_error(values) == pytest.approx(math.sqrt(((values - 4) ** 2).sum() / 3 / 4))
    assert math.isnan(standard_error(values[:1]))
    assert made().stderr("a", INT4) == pytest.approx(1.0)


def test_the_frame_has_a_row_per_measurement() -> None:
    frame = made().frame()
    assert list(frame.columns) == ["layer", "scheme", "weights", "bytes", "effective_bits", "error", "stderr", "samples"]
    assert frame.iloc[0].to_dict() == {
        "layer": "a",
        "scheme": "int4",
        "weights": 128,
        "bytes": 64 + 8,
        "effective_bits": 4.5,
        "error": 2.0,
        "stderr": pytest.approx(1.0),
        "samples": 2,
    }
    assert len(frame) == 4


def test_costs_count_the_header_only_in_the_scope_of_the_file() -> None:
    assert scheme_cost(LAYERS[0], INT4, scope="layers") == 72
    assert scheme_cost(LAYERS[0], INT4, scope="file") == 72 + layer_header_bytes("a", (4, 32), INT4)
    assert layer_bytes(LAYERS, {"a": INT4, "b": INT8}) == 72 + 128 + 4


def test_an_unfinished_table_is_read_without_its_last_half_line(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", made())
    path.write_bytes(path.read_bytes()[:-3])
    assert [(layer.name, str(scheme)) for layer, scheme in read_sensitivity(path).missing] == [("b", "int8")]


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**made().header.to_dict(), "mpq_sensitivity": 2}) + "\n")
    with pytest.raises(FormatError) as error:
        read_sensitivity(path)
    assert str(error.value) == f"{path} is a sensitivity file of version 2, this mpq reads up to 1: upgrade mpq"


def test_a_foreign_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(FormatError) as error:
        read_sensitivity(path)
    assert str(error.value) == f"{path} is not a sensitivity file: it has no mpq version"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"layer": "a", "errors": [1.0]}, "it lacks the key 'scheme'"),
        ({"layer": "a", "scheme": "int4", "errors": None}, "errors is empty: give a list"),
        ({"layer": "a", "scheme": "int4", "errors": ["x"]}, "errors[0] is 'x': give a number"),
        ({"layer": "a", "scheme": "int4", "errors": [1e200]}, "errors[0] is 1e+200: give a number of at most"),
        ({"layer": "a", "scheme": "int4", "errors": [1.0], "first": -1}, "first is -1: give a whole number of 0 or more"),
        ({"layer": "a", "scheme": "int44", "errors": [1.0]}, "unknown scheme 'int44': use one of "),
        ({"layer": 3, "scheme": "int4", "errors": [1.0]}, "layer is 3: give text"),
        ({"blend": 0.5, "draws": 0}, "draws is 0: give a whole number of 1 or more"),
        ({"finish": {"cost": {"seconds": "long"}}}, "finish.cost.seconds is 'long': give a number"),
        ({"finish": {"check": {"additive": {"rank": 1.0}}}}, "finish.check.additive lacks the key 'bias'"),
        ({"finish": []}, "finish is []: give a mapping"),
        ([1], "not a JSON object"),
        ({"layer": "a", "scheme": "int4", "errors": [1.0] * 7}, "'a' has more values than the 6 samples"),
    ],
)
def test_a_damaged_line_is_refused(tmp_path: Path, line: object, reason: str) -> None:
    path = tmp_path / "t.jsonl"
    header = made().header.to_dict()
    header["data"]["samples"] = {"calibration": 6, "held_out": 2}
    path.write_text(json.dumps(header) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(FormatError) as error:
        read_sensitivity(path)
    assert str(error.value).startswith(f"{path}, line 2: {reason}")
    assert len(str(error.value)) < len(str(path)) + 400


@pytest.mark.parametrize(
    "line", [b"x", b"[" * 100_000, b'{"layer":"a"', b'{"layer":"a","scheme":"int4","errors":[NaN]}', b"\xff", b'{"errors":[1e999]}']
)
def test_a_line_that_is_not_json_is_refused_unless_it_is_a_torn_end(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(made().header.to_dict()).encode() + b"\n" + line + b"\n{}\n")
    with pytest.raises(FormatError, match=r", line 2 is not JSON that mpq reads \(.*\): the file is damaged: run `mpq analyze` again$"):
        read_sensitivity(path)


def test_figures_that_do_not_fit_those_before_them_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", made())
    journal = Journal(path)
    journal.append({"layer": "a", "scheme": "int4", "first": 2, "errors": [1.0], "products": [1.0, 2.0, 3.0]}, {"blend": 0.5, "draws": 2})
    journal.close()
    with pytest.raises(FormatError, match="line 7: its values do not match those before it"):
        read_sensitivity(path)


@pytest.mark.parametrize("part", ["layers", "candidates", "rest", "settings", "scheme", "name"])
def test_a_damaged_header_is_refused(tmp_path: Path, part: str) -> None:
    header = made().header.to_dict()
    if part == "candidates":
        header["layers"] = [{key: value for key, value in header["layers"][0].items() if key != part}]
    elif part == "scheme":
        header["layers"][0]["candidates"] = ["int44"]
    elif part == "rest":
        header["rest"]["more"] = 1
    elif part == "name":
        header["layers"][1]["name"] = "a"
    else:
        del header[part]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(FormatError, match=r", line 1: .*"):
        read_sensitivity(path)


def test_the_header_names_the_metric() -> None:
    header = made().header
    assert Sensitivity(replace(header, settings={**header.settings, "metric": "relative_mse"})).metric == "relative_mse"


def test_a_mean_that_is_too_large_to_add_up_counts_as_infinite() -> None:
    large, small = {"int4": [1.7e308, 1.7e308], "int8": [1e300, 1e300]}, {"int4": [-1.7e308, -1.7e308], "int8": [5e-324, 0.0]}
    found = table(LAYERS, {"a": large, "b": small})
    assert found.mean("a", INT4) == found.mean("b", INT4) == math.inf
    assert found.mean("a", INT8) == 1e300
    assert found.mean("b", INT8) == 0.0
    assert found.stderr("a", INT8) == 0.0


def test_a_table_is_one_line_or_a_small_page_however_large_the_model() -> None:
    found = random_table(0, count=2000)
    assert repr(found) == "<Sensitivity: 2,000 layers, 10,000 pairs of layer and scheme, kl_divergence>"
    assert len(found._repr_html_()) < 6000
    found.finish = None
    assert repr(found).endswith(", unfinished>")


def test_the_page_begins_with_the_layer_that_loses_most_and_one_without_a_finite_error_comes_last() -> None:
    layers = [linear("a", 4, 8), linear("b", 4, 8), linear("c", 4, 8)]
    page = table(layers, {"a": {"int4": math.nan}, "b": {"int4": 0.5}, "c": {"int4": 2.0}})._repr_html_()
    assert [page.index(f">{name}<") for name in "cba"] == sorted(page.index(f">{name}<") for name in "cba")
    assert ">▁<" not in page
    assert "> ▁█<" in page
