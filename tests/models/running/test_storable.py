import pytest
import torch
from torch import nn

from mpq.formats.scheme import parse_scheme
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
    assert lines == [
        "left out for '0', whose 160 weights are too few for the code tables: ec1",
        "left out for '1', whose 384 weights are too few for the code tables: ec1",
    ]
