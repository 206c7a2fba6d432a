import json
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.export.plans.read import read_assignment
from mpq.export.run import export
from mpq.formats.scheme import parse_scheme
from mpq.records.layer import Layer
from mpq.records.plan import plan_for, write_plan
from tests.small import REST, linear

LAYERS = (
    linear("model.layers.0.q_proj", 8, 64),
    linear("model.layers.0.down_proj", 8, 64),
    linear("model.layers.1.q_proj", 8, 64),
    linear("model.layers.1.down_proj", 8, 64, dtype="bfloat16"),
)
NAMES = tuple(layer.name for layer in LAYERS)
PLAN = dict(zip(NAMES, ("int4-g32", "int8", "int4-g32", "bf16"), strict=True))


def read(path: Path, content: Any) -> dict[str, str]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return {name: str(scheme) for name, scheme in read_assignment(path, LAYERS).items()}


@pytest.mark.parametrize("target", ["auto-round", "gptqmodel", "modelopt"])
def test_what_was_exported_reads_back(tmp_path: Path, target: str) -> None:
    chosen = {name: parse_scheme(text) for name, text in PLAN.items()}
    plan = plan_for(LAYERS, chosen, model={"path": "m", "sha256": "a" * 64, "kind": "hf"}, quantizer="rtn", rest=REST)
    write_plan(plan, tmp_path / "plan.yaml")
    found = read_assignment(export(tmp_path / "plan.yaml", target).path, LAYERS)
    assert {name: str(scheme) for name, scheme in found.items()} == PLAN


def test_csv_takes_bits_or_schemes(tmp_path: Path) -> None:
    text = f"layer,bits,group_size,symmetric\n{NAMES[0]},4,32,\n{NAMES[1]},8,,true\n{NAMES[2]}.weight, 3, 16, false\n{NAMES[3]},16,,\n"
    assert read(tmp_path / "a.csv", text) == dict(zip(NAMES, ("int4-g32", "int8", "int3-asym-g16", "bf16"), strict=True))
    assert read(tmp_path / "a.csv", f"layer,scheme\n{NAMES[1]},int4-asym-g32\n") == {NAMES[1]: "int4-asym-g32"}


def test_partial_names_and_presets_of_a_layer_config(tmp_path: Path) -> None:
    config = {".*q_proj": {"bits": 2, "group_size": 32, "sym": False}, "layers.0.down_proj$": "W8A16"}
    found = read(tmp_path / "a.json", config)
    assert found == {NAMES[0]: "int2-asym-g32", NAMES[1]: "int8-g128", NAMES[2]: "int2-asym-g32"}


def test_a_checkpoint_of_auto_round_has_a_base_and_exceptions(tmp_path: Path) -> None:
    config = {"bits": 4, "group_size": 128, "sym": True, "extra_config": {NAMES[1]: {"bits": 8}, NAMES[3]: {"bits": 16}}}
    assert list(read(tmp_path / "a.json", config).values()) == ["int4-g128", "int8-g128", "int4-g128", "bf16"]


def test_a_search_state_names_recipes(tmp_path: Path) -> None:
    recipe = {
        "layer0.quant_recipe": "INT4_BLOCKWISE_WEIGHT_ONLY_CFG(effective-bits: 4.0)",
        f"{NAMES[1]}.quant_recipe": "NVFP4_DEFAULT_CFG(effective-bits: 4.5)",
        f"{NAMES[3]}.quant_recipe": "NONE(effective-bits: 16.0)",
    }
    state = {"best": {"recipe": recipe}, "candidate_stats": {"layer0.quant_recipe": {"module_names": [NAMES[0], NAMES[2]]}}}
    assert list(read(tmp_path / "a.json", state).values()) == ["int4-g128", "int4-g16", "int4-g128", "bf16"]


def test_a_recipe_takes_the_last_match(tmp_path: Path) -> None:
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4, "block_sizes": {"-1": 32, "type": "static"}}},
        {"quantizer_name": "*layers.1.*", "cfg": {"num_bits": [4, 3]}},
        {"quantizer_name": f"{NAMES[3]}.weight_quantizer", "enable": False},
    ]
    assert list(read(tmp_path / "a.json", {"quant_cfg": entries}).values()) == ["int4-g32", "int4-g32", "int8", "bf16"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name,bits\nx,4\n", "a CSV needs a first line with the columns layer and bits, or layer and scheme"),
        (
            "a.csv",
            "layer,bits\nmodel.layers.0.q_prj,4\n",
            "line 2: there is no layer 'model.layers.0.q_prj': did you mean 'model.layers.0.q_proj'?",
        ),
        ("a.json", {".*k_proj": {"bits": 4}}, "'.*k_proj' matches no layer"),
        ("a.json", {NAMES[0]: "W4"}, f"'{NAMES[0]}' is given 'W4': expected bits and group_size"),
        ("a.json", {"dynamic": {"(": {}}, "bits": 4}, "'(' is not a regular expression: missing ), unterminated subpattern at position 0"),
        ("a.json", {"dynamic": {}}, "an entry lacks bits: give a whole number"),
        ("a.json", "[1]", "expected a mapping: a layer_config, a quantize_config, or a recipe"),
        ("a.json", {"best": {"recipe": {NAMES[0]: "X"}}}, f"'{NAMES[0]}' uses 'X', which mpq has no name for: use a CSV of layer,scheme"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(tmp_path / name, content)
    assert str(caught.value) == f"{tmp_path / name}{', ' if message.startswith('line') else ': '}{message}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{:", " is not YAML that mpq reads: line 1, "),
        ('{"quant_cfg": 3}', ": quant_cfg is 3: give a mapping or a list; "),
        ('{"a": 4}', ": a is 4: give text or a mapping; "),
        ('{"a": {"bits": [4]}}', ": a.bits is [4]: give a whole number; "),
        (
            '{"bits": 4, "extra_config": {"a": {"group_size": 1' + "0" * 30 + "}}}",
            " is not YAML that mpq reads: line 1, the number 1000000000000000000000000000000 is out of range; ",
        ),
        ("[" * 100_000, " is not YAML that mpq reads: line 1, it is nested more than 32 levels deep; "),
    ],
)
def test_damage_is_one_line(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(tmp_path / "a.json", content)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}{reason}")
    assert "\n" not in str(caught.value)


def test_an_alias_of_a_tied_weight_is_its_layer(tmp_path: Path) -> None:
    tied = Layer("embed", ("embed.weight", "head.weight"), (8, 64), (0,), "float32")
    (tmp_path / "a.csv").write_text("layer,bits\nhead,4\n")
    assert {name: str(scheme) for name, scheme in read_assignment(tmp_path / "a.csv", [tied]).items()} == {"embed": "int4"}
