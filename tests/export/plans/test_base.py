import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpq.data.dataset import Batch
from mpq.export.abilities import ExportError
from mpq.export.run import export
from mpq.export.source import open_source
from mpq.formats.scheme import parse_scheme
from mpq.records.plan import plan_for, write_plan
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.small import REST, linear

SCHEMES = {
    "model.embed_tokens": "int4-g32",
    "model.layers.0.self_attn.q_proj": "int4-g32",
    "model.layers.0.self_attn.v_proj": "int8-g32",
    "model.layers.0.mlp.down_proj": "fp16",
    "model.layers.1.mlp.down_proj": "int4-g32",
}


def plan(folder: Path, schemes: dict[str, str], *, columns: int = 64) -> Path:
    layers = [linear(name, 8, columns) for name in schemes]
    chosen = {name: parse_scheme(text) for name, text in schemes.items()}
    model = {"path": "llama", "sha256": "a" * 64, "kind": "hf"}
    write_plan(plan_for(layers, chosen, model=model, quantizer="rtn", rest=REST), folder / "plan.yaml")
    return folder / "plan.yaml"


def test_gptqmodel_names_what_differs_from_the_most_common_scheme_and_leaves_floats_out(tmp_path: Path) -> None:
    done = export(plan(tmp_path, SCHEMES), "gptqmodel")
    config = json.loads(done.path.read_text())
    assert (config["bits"], config["group_size"], config["sym"], config["lm_head"]) == (4, 32, True, False)
    assert config["dynamic"] == {
        r"-:^model\.layers\.0\.mlp\.down_proj$": {},
        r"+:^model\.layers\.0\.self_attn\.v_proj$": {"bits": 8, "group_size": 32, "sym": True},
    }
    assert done.notes[0] == "not quantized by this target, stays as it is: model.embed_tokens (int4-g32)"


def test_gptqmodel_expressions_match_only_their_own_layer(tmp_path: Path) -> None:
    config = json.loads(export(plan(tmp_path, SCHEMES), "gptqmodel").path.read_text())
    for pattern in config["dynamic"]:
        matching = [name for name in [*SCHEMES, "model.layers.0.mlp.down_proj.extra"] if re.match(pattern[2:], name)]
        assert len(matching) == 1


def test_auto_round_names_every_layer(tmp_path: Path) -> None:
    config = json.loads(export(plan(tmp_path, SCHEMES), "auto-round").path.read_text())
    assert config == {
        "model.layers.0.self_attn.q_proj": {"bits": 4, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.0.self_attn.v_proj": {"bits": 8, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.1.mlp.down_proj": {"bits": 4, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.0.mlp.down_proj": {"bits": 16, "data_type": "float"},
    }


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


def test_llama_cpp_writes_nothing_but_expression_and_type(tmp_path: Path) -> None:
    assert export(plan(tmp_path, SCHEMES), "llama.cpp").path.read_text().splitlines() == [
        r"^token_embd\.weight$=q4_0",
        r"^blk\.0\.attn_q\.weight$=q4_0",
        r"^blk\.0\.attn_v\.weight$=q8_0",
        r"^blk\.0\.ffn_down\.weight$=f16",
        r"^blk\.1\.ffn_down\.weight$=q4_0",
    ]


def test_llama_cpp_refuses_other_families(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(plan(tmp_path, {"features.0": "int4-g32"}), "llama.cpp")
    assert str(caught.value) == "'features.0' has no name in a GGUF file: this target takes Llama-family models with Hugging Face names"


def test_a_scheme_that_a_target_lacks_is_listed(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(plan(tmp_path, {"a": "int4", "b": "int5", "c": "int6-g32"}), "auto-round")
    assert str(caught.value) == "auto-round cannot express b (int5), c (int6-g32): --nearest takes the next larger scheme for each"


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
        "the next larger schemes that auto-round has are 176 bytes over the plan's budget of 5.5bits (layers): "
        "search again with --candidates '*=2,3,4,8,16'"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_without_linear_layers_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path, {"embed_tokens": "int4", "head": "fp16"})
    with pytest.raises(ExportError, match="leaves nothing for this target to quantize"):
        export(path, "modelopt")


def test_an_artifact_excludes_by_name_what_was_not_searched(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True)
    ignored = "model.layers.1.mlp.up_proj"
    _, artifact = make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), tmp_path, without=(ignored,))
    assert open_source(artifact).others == (f"{ignored}.weight",)
    done = export(artifact, "gptqmodel")
    assert json.loads(done.path.read_text())["dynamic"] == {rf"-:^{re.escape(ignored)}$": {}}
    assert not any("may take the program's default" in note for note in done.notes)
