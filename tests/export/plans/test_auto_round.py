import json
from pathlib import Path

import pytest

from mpq.export.run import export
from tests.export.plans.making import SCHEMES, plan


def test_auto_round_names_every_layer(tmp_path: Path) -> None:
    config = json.loads(export(plan(tmp_path, SCHEMES), "auto-round").path.read_text())
    assert config == {
        "model.layers.0.self_attn.q_proj": {"bits": 4, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.0.self_attn.v_proj": {"bits": 8, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.1.mlp.down_proj": {"bits": 4, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16},
        "model.layers.0.mlp.down_proj": {"bits": 16, "data_type": "float"},
    }


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("zero_points", [True, False])
def test_whole_rows_are_groups_of_minus_one_and_zero_points_are_not_symmetric(tmp_path: Path, bits: int, zero_points: bool) -> None:
    done = export(plan(tmp_path, {"a": f"int{bits}{'-asym' if zero_points else ''}"}), "auto-round")
    expected = {"bits": bits, "group_size": -1, "sym": not zero_points, "data_type": "int", "act_bits": 16}
    assert json.loads(done.path.read_text()) == {"a": expected}


def test_the_use_is_told(tmp_path: Path) -> None:
    done = export(plan(tmp_path, SCHEMES), "auto-round")
    assert done.path.name == "llama.layer_config.json"
    assert done.notes[-1] == (
        "use: AutoRound(model, layer_config=json.load(open('llama.layer_config.json'))).quantize_and_save(folder, format='auto_round')"
    )
