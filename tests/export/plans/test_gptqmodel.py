import json
import re
from pathlib import Path

import pytest

from mpq.data.dataset import Batch
from mpq.export.run import export
from mpq.export.source import open_source
from tests.export.artifacts import by_name, make, save_llama, tokens
from tests.export.plans.making import SCHEMES, plan


def test_gptqmodel_names_what_differs_from_the_most_common_scheme_and_leaves_floats_out(tmp_path: Path) -> None:
    done = export(plan(tmp_path, SCHEMES), "gptqmodel")
    config = json.loads(done.path.read_text())
    assert (config["bits"], config["group_size"], config["sym"], config["lm_head"]) == (4, 32, True, False)
    assert config["dynamic"] == {
        r"-:^model\.layers\.0\.mlp\.down_proj$": {},
        r"+:^model\.layers\.0\.self_attn\.v_proj$": {"bits": 8, "group_size": 32, "sym": True},
    }
    assert done.notes[0] == "not quantized by this target: model.embed_tokens (int4-g32)"


def test_gptqmodel_expressions_match_only_their_own_layer(tmp_path: Path) -> None:
    config = json.loads(export(plan(tmp_path, SCHEMES), "gptqmodel").path.read_text())
    for pattern in config["dynamic"]:
        matching = [name for name in [*SCHEMES, "model.layers.0.mlp.down_proj.extra"] if re.match(pattern[2:], name)]
        assert len(matching) == 1


def test_an_artifact_excludes_by_name_what_was_not_searched(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "llama", tie_word_embeddings=True)
    ignored = "model.layers.1.mlp.up_proj"
    _, artifact = make(model, Batch((), {"input_ids": tokens()}), by_name({}, "int4-g32"), tmp_path, without=(ignored,))
    assert open_source(artifact).others == (f"{ignored}.weight",)
    done = export(artifact, "gptqmodel")
    assert json.loads(done.path.read_text())["dynamic"] == {rf"-:^{re.escape(ignored)}$": {}}
    assert not any("may take the program's default" in note for note in done.notes)


def test_the_whole_file_is_what_the_program_reads(tmp_path: Path) -> None:
    done = export(plan(tmp_path, {"lm_head": "int4-g32", "a": "int3-asym"}), "gptqmodel")
    assert done.path.name == "llama.quantize_config.json"
    assert json.loads(done.path.read_text()) == {
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "dynamic": {r"+:^a$": {"bits": 3, "group_size": -1, "sym": False}},
        "desc_act": False,
        "lm_head": True,
        "method": "gptq",
        "quant_method": "gptq",
        "format": "gptq",
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
    }
    assert done.notes[-1] == (
        "use: QuantizeConfig.from_quant_config(json.load(open('llama.quantize_config.json'))), "
        "then GPTQModel.load(model, config).quantize(...)"
    )


@pytest.mark.parametrize("scheme", ["int5", "int6-g32", "int7", "nf4"])
def test_what_its_kernels_lack_is_rounded_up_to_8_bits_where_asked(tmp_path: Path, scheme: str) -> None:
    done = export(plan(tmp_path, {"a": "int4", "b": scheme}), "gptqmodel", nearest=True)
    assert done.replaced["b"][1].bits in (8, 16)
