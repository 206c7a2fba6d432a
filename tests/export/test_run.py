import json
from dataclasses import replace
from pathlib import Path

import pytest

from mpq.errors import OutputError, UsageError
from mpq.export.abilities import ExportError
from mpq.export.registry import target_named
from mpq.export.run import _unpacked, export
from mpq.export.source import Source
from mpq.formats.matrix import Matrix
from mpq.formats.scheme import Scheme
from mpq.records.plan import read_plan, write_plan
from tests.export.plans.making import plan


def test_a_scheme_that_a_target_lacks_is_listed(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(plan(tmp_path, {"a": "int4", "b": "int5", "c": "int6-g32"}), "auto-round")
    assert str(caught.value) == "auto-round cannot represent b (int5), c (int6-g32): --nearest uses the next larger scheme for each"


def test_nearest_rounds_up_and_says_so(tmp_path: Path) -> None:
    done = export(plan(tmp_path, {"a": "int4", "b": "int5", "c": "int6-g32"}), "auto-round", nearest=True)
    assert {name: (str(old), str(new)) for name, (old, new) in done.replaced.items()} == {
        "b": ("int5", "int8"),
        "c": ("int6-g32", "int8-g32"),
    }
    assert json.loads(done.path.read_text())["b"]["bits"] == 8
    before, after = done.layer_bytes
    assert after == before + 8 * 64 * (3 + 2) // 8


def test_rounding_over_the_budget_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    path = plan(tmp_path, {"a": "int3"})
    path.write_text(path.read_text().replace("quantizer:", "budget: {limit: 3.5bits, scope: layers}\nquantizer:"))
    export(path, "auto-round").path.unlink()
    path.write_text(path.read_text().replace("a: int3", "a: int5").replace("3.5bits", "5.5bits"))
    with pytest.raises(ExportError) as caught:
        export(path, "auto-round", nearest=True)
    assert str(caught.value) == (
        "the next larger schemes that auto-round supports are 176 bytes over the plan's budget of 5.5bits (layers): "
        "search again with --candidates '*=2,3,4,8,16'"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_exported_is_counted(tmp_path: Path) -> None:
    done = export(plan(tmp_path, {"a": "int4"}), "auto-round", tmp_path / "x.json")
    assert done.path == tmp_path / "x.json"
    assert done.bytes == done.path.stat().st_size
    assert done.layer_bytes == (8 * 34, 8 * 34)  # rows of 64 int4 weights with a scale of 2 bytes
    assert (done.weights, done.replaced) == (False, {})


def test_the_output_stands_beside_the_plan_and_has_the_name_of_the_model(tmp_path: Path) -> None:
    assert export(plan(tmp_path, {"a": "int4"}), "auto-round").path == tmp_path / "llama.layer_config.json"


def test_an_unknown_target_and_a_plan_without_weights_are_refused(tmp_path: Path) -> None:
    path = plan(tmp_path, {"a": "int4"})
    with pytest.raises(UsageError, match=r"^'best' is not a target: use one of auto-round, "):
        export(path, "best")
    with pytest.raises(ExportError):
        export(path, "pt2")
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path, {"a": "int4"})
    before = path.read_bytes()
    with pytest.raises(OutputError):
        export(path, "auto-round", path)
    assert path.read_bytes() == before


def test_more_layers_than_fit_in_a_line_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as error:
        export(plan(tmp_path, {f"l{number}": "int5" for number in range(14)}), "auto-round")
    assert "l11 (int5) and 2 more: --nearest uses the next larger scheme for each" in str(error.value)


def test_a_group_as_long_as_the_row_is_no_replacement(tmp_path: Path) -> None:
    done = export(plan(tmp_path, {"a": "int4-g64", "b": "int4-g32"}), "auto-round")
    assert done.replaced == {}
    assert json.loads(done.path.read_text())["a"]["group_size"] == -1


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_format_that_cannot_say_how_the_rest_is_stored_says_so(tmp_path: Path, dtype: str | None) -> None:
    path = plan(tmp_path, {"a": "int4"})
    if dtype is not None:
        write_plan(replace(read_plan(path), rest=replace(read_plan(path).rest, dtype=dtype)), path)
    told = "the plan stores unquantized tensors in bf16, which this format cannot record"
    assert (told in export(path, "auto-round").notes) == (dtype is not None)


def test_coded_layers_are_written_as_int8_without_being_asked_for_and_their_sizes_are_told(tmp_path: Path) -> None:
    path = plan(tmp_path, {"a": "ec5", "b": "int4", "c": "ec3.25"})
    path.write_text(path.read_text().replace("quantizer:", "budget: {limit: 4.5bits, scope: layers}\nquantizer:"))
    done = export(path, "auto-round")  # over the budget, which only mpq can keep
    assert {name: entry["bits"] for name, entry in json.loads(done.path.read_text()).items() if name in "abc"} == {"a": 8, "b": 4, "c": 8}
    assert done.replaced == {}
    before, after = 8 * 64 * 5 // 8 + 8 * 64 * 325 // 800, 2 * 8 * 66
    assert done.notes[0] == f"2 coded layers as int8: {before:,} bytes become {after:,}, because only mpq unpacks the codes"


def test_coded_layers_are_counted_as_they_are_stored_and_kept_where_the_artifact_is() -> None:
    schemes, stored = {"a": Scheme("int8"), "b": Scheme("int4")}, {"a": Scheme("ec4"), "b": Scheme("int4")}
    shapes = {"a": (300, 16), "b": (8, 16)}
    source = Source(Path("a"), {}, schemes, shapes, 0, stored=stored, shared={"a": Matrix(300, 16, 200)})
    before, after = 101 * 16 // 2 + 38, 300 * 18
    assert _unpacked(source, target_named("onnx")) == [
        f"1 coded layer as int8 with the same values: {before:,} bytes become {after:,}, because only mpq unpacks the codes"
    ]
    assert _unpacked(source, target_named("huggingface")) == []
