from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpq.budget import Budget
from mpq.errors import FormatError, MismatchError, SchemeError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.activations import ActivationGroup, RoundedTensor, header_bytes
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_for, plan_to_yaml, read_plan, write_plan
from mpq.search.run import search
from mpq.shown import figure
from tests.small import REST, linear, random_table, schemes

LAYERS = [linear("conv1", 8, 27), linear("up", 16, 40), linear("fc", 10, 64)]
CHOICE = dict(zip(("conv1", "up", "fc"), schemes("int8", "int4-g32", "fp16"), strict=True))
REMEDY = "correct it, or run `mpq search` again"
MODEL = {"path": "resnet.pt2", "sha256": "51c0" * 16, "kind": "export"}


def plan(**changes: Any) -> Plan:
    layers = [replace(LAYERS[0]), Layer("up", ("up.weight",), (40, 16), (1,), "float32"), LAYERS[2]]
    made = plan_for(layers, CHOICE, model=MODEL, quantizer="rtn", rest=REST)
    evidence = {
        "assignment": made.assignment,
        "metric": "kl_divergence",
        "predicted": 1.234e-05,
        "measured": {"held_out": None, "samples": 3},
    }
    full = replace(made, budget=Budget("4.5bits", "file"), pinned=("conv1",), ties=(("up", "fc"),), evidence=evidence)
    return replace(full, **changes)


def named(names: list[str]) -> Plan:
    layers = [linear(name, 4, 8 + number) for number, name in enumerate(names)]
    return plan_for(layers, dict.fromkeys(names, parse_scheme("int4")), model=MODEL, quantizer="rtn", rest=REST)


def edited(path: Path, old: str, new: str) -> Path:
    text = plan_to_yaml(plan())
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def message(path: Path, kind: type[Exception] = FormatError) -> str:
    with pytest.raises(kind) as error:
        read_plan(path)
    return str(error.value).removeprefix(str(path))


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_plan(plan(), tmp_path / "plan.yaml")
    found = read_plan(tmp_path / "plan.yaml")
    assert found == plan()
    assert list(found.layers) == ["conv1", "up", "fc"]
    assert plan_to_yaml(found) == plan_to_yaml(plan())


def test_what_a_plan_holds_twice_is_written_out_twice(tmp_path: Path) -> None:
    shared = {"held_out": 0.5, "samples": {"held_out": 3}}
    rows = [{"a": shared}, {"a": shared}]
    write_plan(plan(evidence={"measured": shared, "more": rows}), tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml").evidence["more"] == rows


def test_a_plan_without_budget_pins_ties_and_evidence_is_read_back_too(tmp_path: Path) -> None:
    bare = plan(budget=None, pinned=(), ties=(), evidence={})
    write_plan(bare, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == bare


def test_a_layer_of_a_plan_has_its_axes_and_groups() -> None:
    made = plan(axes={"up": (1,)}, groups={"up": 2})
    assert yaml.safe_load(plan_to_yaml(made))["groups"] == {"up": 2}
    found = made.layer("up", ("up.weight",), (10, 8, 8), "float32", source="the model")
    assert found == Layer("up", ("up.weight",), (10, 8, 8), (1,), "float32", groups=2)


@pytest.mark.parametrize(
    ("shape", "axes", "groups"), [((10, 8, 4), (1,), 2), ((5, 16, 8), (1,), 2), ((20, 8), (1,), 2), ((16, 40), (2,), 1)]
)
def test_a_layer_of_another_shape_than_the_plan_says_is_refused(shape: tuple[int, ...], axes: tuple[int, ...], groups: int) -> None:
    made = plan(axes={"up": axes}, groups={"up": groups})
    with pytest.raises(MismatchError, match=r"^'up' is 16x40 in the plan and [0-9x]+ in the model: analyze it again$"):
        made.layer("up", ("up.weight",), shape, "float32", source="the model")


def test_a_plan_reads_like_a_list_of_layers() -> None:
    text = plan_to_yaml(plan())
    assert "budget:\n  limit: 4.5bits\n  scope: file\n" in text
    assert "layers:\n  conv1: int8  # pinned\n  up: int4-g32\n  fc: fp16\n" in text
    assert "shapes:\n  conv1: 8x27\n  up: 16x40\n  fc: 10x64\n" in text
    assert yaml.safe_load(text)["axes"] == {"up": [1]}


NAMES = [
    "on",
    "1",
    "a: b",
    "é",
    "~",
    "null",
    "- a",
    "#x",
    "1e3",
    "0x1f",
    "12:30:45",
    "2024-01-01",
    "=",
    "<<",
    "? x",
    "'",
    '"',
    "",
    " a ",
    "a\nb",
]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=4, unique=True))
@example(NAMES)
@example(["encoder." * 40 + "weight", "é" * 200, "1" * 130])
def test_any_layer_name_survives_yaml(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("plans") / "plan.yaml"
    write_plan(named(names), path)
    assert read_plan(path) == named(names)


def test_an_edited_scheme_is_taken_and_the_evidence_is_no_longer_current(tmp_path: Path) -> None:
    found = read_plan(edited(tmp_path / "plan.yaml", "fc: fp16", "fc: INT8-asym"))
    assert found.layers["fc"] == Scheme("int8", None, False)
    assert plan().evidence_is_current
    assert not found.evidence_is_current


def test_a_changed_assignment_has_no_evidence() -> None:
    changed = plan().with_layers({name: Scheme("int4") for name in CHOICE})
    assert changed.evidence == {}
    assert changed.budget == plan().budget


def test_the_size_is_computed_and_not_read(tmp_path: Path) -> None:
    size = plan().size
    found = read_plan(edited(tmp_path / "plan.yaml", f"file_bytes: {size.file_bytes}", "file_bytes: 1"))
    assert found.size == size


def test_bits_are_counted_over_the_searched_layers_and_over_the_file() -> None:
    size = plan().size
    weights = 8 * 27 + 16 * 40 + 10 * 64
    layer_bytes = (216 + 16) + (320 + 16 * 2 * 2) + 1280
    assert (size.layer_bytes, plan().weights) == (layer_bytes, weights)
    assert size.effective_bits == 8 * layer_bytes / weights
    assert size.file_effective_bits == 8 * size.file_bytes / (weights + REST.weights)


def test_what_a_budget_counts_follows_its_scope() -> None:
    size, weights = plan().size, plan().weights
    assert plan().original_bytes == 4 * weights
    assert plan().counted(Budget("8bits")) == (size.layer_bytes, weights, weights)
    assert plan().counted(Budget("50%")) == (size.layer_bytes, 2 * weights, weights)
    everything = weights + REST.weights
    assert plan().counted(Budget("8bits", "file")) == (size.file_bytes, everything, everything)
    assert plan().counted(Budget("50%", "file")) == (size.file_bytes, 2 * weights + REST.original_bytes // 2, everything)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    known = "mpq_plan, model, quantizer, layers, shapes, original_bytes, rest, data, analysis, budget, size, evidence, pinned, ties, axes, "
    known += "activations, equalization, sketches, groups"
    path = edited(tmp_path / "plan.yaml", "quantizer: rtn", "quantizer: rtn\ncolour: red")
    assert message(path) == f", line 10: it has the unknown key 'colour': use {known}; {REMEDY}"


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path / "plan.yaml", "mpq_plan: 1", "mpq_plan: 5")
    assert message(path) == " is a plan of version 5, this mpq reads up to 4: upgrade mpq"


def test_only_a_plan_that_names_its_analysis_is_of_version_2(tmp_path: Path) -> None:
    named = replace(plan(), analysis={"path": "model.sensitivity.jsonl", "sha256": "d" * 64})
    assert plan_to_yaml(plan()).startswith("mpq_plan: 1\n")
    assert plan_to_yaml(named).startswith("mpq_plan: 2\n")
    write_plan(named, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == named


def test_a_plan_with_activations_is_of_version_3_and_counts_their_bytes(tmp_path: Path) -> None:
    tensors = (RoundedTensor(("conv.0", "add.0.1"), 0.02, 3), RoundedTensor(("add.0.0",), 1e-05, 0))
    made = {"fc": ActivationGroup("a8", tensors), "head": ActivationGroup("a8d", (RoundedTensor(("linear.0",)),))}
    rounded = replace(plan(), activations=made)
    assert plan_to_yaml(rounded).startswith("mpq_plan: 3\n")
    write_plan(rounded, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == rounded
    assert rounded.assignment != plan().assignment
    assert 0 <= rounded.size.file_bytes - plan().size.file_bytes - header_bytes(made) + 8 < 16


def test_activations_are_checked_where_they_are_read(tmp_path: Path) -> None:
    group = "activations:\n  fc:\n    scheme: a8\n    tensors:\n    - readers: [conv.0]\n      scale: 0.5\nquantizer: rtn"
    path = edited(tmp_path / "plan.yaml", "quantizer: rtn", group)
    assert message(path) == ", line 11: tensor 0 of activations 'fc' is a8: give scale and zero_point"


def test_a_misspelt_scheme_is_refused_with_the_file(tmp_path: Path) -> None:
    path = edited(tmp_path / "plan.yaml", "fc: fp16", "fc: int4g32")
    assert (
        message(path, SchemeError)
        == ", line 31: 'int4g32' is not a scheme: write <format>[-asym][-gN][-s8], for example int4, int8-asym, int4-g128, fp16"
    )


def test_a_layer_without_its_shape_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path / "plan.yaml", "  fc: 10x64\n", "")
    assert message(path) == ", line 31: layer 'fc' is in only one of 'layers' and 'shapes': restore the line, or run `mpq search` again"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[1, 2", " is not YAML that mpq reads: line 2, did not find expected ',' or ']'; correct it"),
        (b"\xff\xfe\x00", " is not text in UTF-8 (byte 0): name a plan, as `mpq search` writes it"),
        (b"- a\n", " is not a plan: expected a mapping with mpq_plan, model and layers"),
        (b"", " is not a plan: expected a mapping with mpq_plan, model and layers"),
        (b"a: 1\n", " is not a plan: it has no mpq version"),
        (b"mpq_plan: true\n", " is not a plan: it has no mpq version"),
        (b"mpq_plan: 1\n", ": it lacks the key 'model'; correct it"),
        (b"mpq_plan: 1\nlayers: [1]\n", ", line 2: layers is [1]: give a mapping; correct it"),
        (b"? [1]\n: 2\n", " is not YAML that mpq reads: line 1, a list or a mapping cannot be a key: use text; correct it"),
        (b"mpq_plan: 1\n1: 2\na: 3\n", ", line 2: it has the unknown key '1': use mpq_plan, "),
        (
            b"a: !!python/name:os.system\n",
            " is not YAML that mpq reads: line 1, the tag 'tag:yaml.org,2002:python/name:os.system' is not supported",
        ),
        (b"a: &b [1]\nc: *b\n", " is not YAML that mpq reads: line 1, anchors such as &b are not supported: write the value out"),
        (b"a: 1\na: 2\n", " is not YAML that mpq reads: line 2, the key 'a' appears twice"),
        (b"[" * 100_000, " is not YAML that mpq reads: line 1, it is nested more than 32 levels deep"),
        (b"- " * 100_000, " is not YAML that mpq reads: line 1, it is nested more than 32 levels deep"),
        (b"a: 1e999\nb: .nan\n", " is not YAML that mpq reads: line 2, the number .nan is out of range"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "plan.yaml").write_bytes(content)
    found = message(tmp_path / "plan.yaml")
    assert found.startswith(expected)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fc: 10x64", "fc: 10", "shapes.fc is 10: give rows x columns, for example 64x128"),
        ("fc: 10x64", "fc: 640x", "the shape of 'fc' is '640x': give rows x columns, for example 64x128"),
        ("fc: 10x64", "fc: 10x-64", "the shape of 'fc' is '10x-64': give rows x columns, for example 64x128"),
        ("fc: 10x64", "fc: 10x0", "the shape of 'fc' is '10x0': give rows x columns, for example 64x128"),
        ("fc: 10x64", f"fc: {10**15}x{10**15}", "the layers have more than 281,474,976,710,656 weights; the largest is 'fc'"),
        (
            "fc: 10x64",
            f"fc: {10**30}x{10**30}",
            "shapes.fc is '1000000000000000000000000000000x1000000000000000000000000000000': give",
        ),
        (
            "header_bytes: 500",
            "header: 500",
            "rest has the unknown key 'header': use header_bytes, data_bytes, weights, original_bytes",
        ),
        ("header_bytes: 500", "header_bytes: -1", "rest.header_bytes is -1: give a whole number of 0 or more"),
        ("scope: file", "scope: both", "budget.scope is 'both': give one of layers, file"),
        ("conv1: int8", "conv1: [int8]", "layers.conv1 is ['int8']: give a scheme, for example int4 or int4-g32"),
        ("metric: kl_divergence", "metric: [1]", "evidence.metric is [1]: give text"),
        ("held_out: null", "held_out: much", "evidence.measured.held_out is 'much': give a number"),
        ("- conv1", "- {a: 1}", "pinned[0] is {'a': 1}: give text"),
        ("sha256: 51c0", f"sha256: {'f' * 200}", "model.sha256 is 'ffffffffffff"),
    ],
)
def test_a_damaged_part_is_refused_with_its_line_its_value_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    text = plan_to_yaml(plan())
    found = message(edited(tmp_path / "plan.yaml", old, new))
    line = text.count("\n", 0, text.index(old)) + 1
    assert found.startswith(f", line {line}: {expected}")
    assert found.endswith(REMEDY)


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    write_plan(plan(), str(tmp_path / "plan.yaml"))
    assert read_plan(str(tmp_path / "plan.yaml")) == read_plan(tmp_path / "plan.yaml")


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    assert (
        message(tmp_path / "plan.yaml")
        == f"cannot read {tmp_path / 'plan.yaml'}: No such file or directory; name a plan, as `mpq search` writes it"
    )


def test_a_plan_is_one_line_or_a_small_page_however_large_the_model() -> None:
    plan = search(random_table(0, count=2000), "6bits").plan
    size = plan.size
    assert (
        repr(plan) == f"<Plan: 2,000 layers, {size.effective_bits:.4g} bits per weight, {size.file_bytes:,} bytes, budget 6bits (layers)>"
    )
    page = plan._repr_html_()
    assert len(page) < 4000
    assert f"; predicted kl_divergence {figure(plan.evidence['predicted'])}" in page
    edited = replace(plan, layers={**plan.layers, "blocks.0.q": parse_scheme("fp32")})
    assert "kl_divergence" not in edited._repr_html_()  # the evidence belongs to other schemes


def test_the_frame_of_a_plan_has_a_row_for_each_layer_and_adds_up_to_its_size() -> None:
    plan = search(random_table(1), "6bits", pins={"blocks.1.k": "int8"}).plan
    frame = plan.frame()
    assert frame["layer"].tolist() == list(plan.layers)
    assert frame["scheme"].tolist() == [str(scheme) for scheme in plan.layers.values()]
    assert frame["bytes"].sum() == plan.size.layer_bytes
    assert frame["weights"].tolist() == (frame["rows"] * frame["columns"]).tolist()
    assert frame.loc[frame["pinned"], ["layer", "scheme"]].to_dict("records") == [{"layer": "blocks.1.k", "scheme": "int8"}]
