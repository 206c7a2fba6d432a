from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from mpq.export.run import export
from tests.export.plans.making import SCHEMES, plan


def test_modelopt_disables_all_then_enables_each_layer(tmp_path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(export(plan(tmp_path, {**SCHEMES, "head": "int6"}), "modelopt").path.read_text())
    assert recipe["metadata"]["recipe_type"] == "ptq"
    first, *entries = recipe["quantize"]["quant_cfg"]
    assert first == {"quantizer_name": "*", "enable": False}
    assert [entry["quantizer_name"] for entry in entries] == [
        "model.layers.0.self_attn.q_proj.weight_quantizer",
        "model.layers.0.self_attn.v_proj.weight_quantizer",
        "model.layers.1.mlp.down_proj.weight_quantizer",
        "head.weight_quantizer",
    ]
    assert entries[0]["cfg"] == {"num_bits": 4, "block_sizes": {-1: 32, "type": "static"}}
    assert entries[-1]["cfg"] == {"num_bits": 6, "axis": 0}


def test_signs_of_globs_in_names_stand_for_themselves(tmp_path: Path) -> None:
    names = ["experts[0]", "any*thing", "wh?t"]
    recipe = yaml.safe_load(export(plan(tmp_path, dict.fromkeys(names, "int4")), "modelopt").path.read_text())
    patterns = [entry["quantizer_name"] for entry in recipe["quantize"]["quant_cfg"][1:]]
    others = [*names, "experts0", "anything", "any-thing", "what"]
    for name, pattern in zip(names, patterns, strict=True):
        assert [other for other in others if fnmatchcase(f"{other}.weight_quantizer", pattern)] == [name]


def test_the_algorithm_the_origin_and_the_use_are_told(tmp_path: Path) -> None:
    done = export(plan(tmp_path, {"a": "int3-g32"}), "modelopt")
    recipe = yaml.safe_load(done.path.read_text())
    assert recipe["quantize"]["algorithm"] == "max"
    assert recipe["metadata"]["description"] == "Mixed-precision weights, from plan.yaml."
    assert recipe["quantize"]["quant_cfg"][1]["enable"] is True
    assert done.notes == (f"use: mtq.quantize(model, load_recipe('{done.path.name}').quantize, forward_loop)",)
