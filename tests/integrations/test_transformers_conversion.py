import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from mpq.integrations.transformers_conversion import conversion_of

PARTS = {"block.q.codes": ("block.q.weight", "codes"), "block.q.scales": ("block.q.weight", "scales"), "table.values": ("table", "values")}


def conversion() -> Any:
    def parameter_of(name: str, parts: Any, model: Any) -> nn.Parameter:
        return nn.Parameter(torch.tensor([float(len(parts))]), requires_grad=False)

    return conversion_of(PARTS, SimpleNamespace(parameter_of=parameter_of))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_layer_leads_to_its_parameter(name: str) -> None:
    assert conversion().rename_source_key(name) == PARTS[name]


@pytest.mark.parametrize("name", ["block.q.weight", "other.codes", "codes", "block.q.codes.scales"])
def test_other_tensors_keep_their_names(name: str) -> None:
    assert conversion().rename_source_key(name) == (name, None)


def test_a_copy_knows_the_same_layers_and_has_the_same_quantizer() -> None:
    made = conversion()
    other = copy.deepcopy(made)
    assert other.rename_source_key("block.q.codes") == ("block.q.weight", "codes")
    assert other.operations[0] is made.operations[0]


def test_the_parts_become_one_parameter() -> None:
    found = (
        conversion()
        .operations[0]
        .convert(
            {"codes": [torch.zeros(2)], "scales": [torch.zeros(1)]}, full_layer_name="block.q.weight", model=nn.Module(), missing_keys=set()
        )
    )
    assert {name: value.item() for name, value in found.items()} == {"block.q.weight": 2.0}
