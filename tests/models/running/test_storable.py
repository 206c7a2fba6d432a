import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.running.storable import sixteen_bits, storable_candidates
from tests.small import linear


@pytest.mark.parametrize(
    ("dtype", "largest", "expected"),
    [("float32", 65504.0, "fp16"), ("float32", 65536.0, "bf16"), ("float16", 1.0, "fp16"), ("bfloat16", 1e6, "bf16")],
)
def test_sixteen_bits_keep_the_layers_own_format_and_its_range(dtype: str, largest: float, expected: str) -> None:
    module = nn.Sequential(nn.Linear(4, 4)).to(getattr(torch, dtype))
    with torch.no_grad():
        module.get_parameter("0.weight")[0, 0] = -largest
    assert sixteen_bits(module, linear("0", 4, 4, dtype=dtype)) == expected


def test_coded_candidates_without_room_for_their_tables_are_left_out_with_a_line() -> None:
    module = nn.Sequential(nn.Linear(40, 4), nn.Linear(4, 96), nn.Linear(96, 96))
    layers = [linear("0", 4, 40), linear("1", 96, 4), linear("2", 96, 96)]
    offered = tuple(map(parse_scheme, ("ec1", "ec4", "int8")))
    kept, lines = storable_candidates(module, layers, dict.fromkeys("012", offered))
    assert {name: [str(scheme) for scheme in found] for name, found in kept.items()} == {
        "0": ["ec4", "int8"],
        "1": ["ec4", "int8"],
        "2": ["ec1", "ec4", "int8"],
    }
    named = r"0 \(160 weights, at least ec\d\.\d+\), 1 \(384 weights, at least ec\d\.\d+\)"
    assert len(lines) == 1
    assert re.fullmatch(rf"ec1 left out for 2 layers with too few weights for the code tables: {named}", lines[0])


def test_a_layer_too_small_for_every_coded_format_stays_at_16_bits() -> None:
    rates = tuple(parse_scheme(f"ec{rate}") for rate in range(1, 9))
    kept, lines = storable_candidates(nn.Sequential(nn.Linear(2, 3)), [linear("0", 3, 2)], {"0": rates})
    assert kept == {"0": (Scheme("fp16"),)}
    assert lines == ["ec1 to ec8 left out for 1 layer with too few weights for the code tables: 0 (6 weights; it stays at fp16)"]


def test_rows_that_are_one_common_row_count_once() -> None:
    module = nn.Sequential(nn.Linear(8, 300))
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(torch.ones(300, 8))
    offered = {"0": tuple(map(parse_scheme, ("ec4", "int8")))}
    assert storable_candidates(module, [linear("0", 300, 8)], offered) == ({"0": offered["0"]}, [])
    kept, lines = storable_candidates(module, [replace(linear("0", 300, 8), alike=300)], offered)
    assert kept == {"0": (Scheme("int8"),)}
    assert lines == ["ec4 left out for 1 layer with too few weights for the code tables: 0 (8 weights)"]
