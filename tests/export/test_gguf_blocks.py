"""Blocks as ggml reads them, by a reader of its own written from the layouts in ggml-common.h."""

from typing import Any

import numpy as np
import pytest
import torch

from mpq.export.gguf_blocks import ABILITIES, BLOCK, block_type, pack_blocks
from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import quantizer_named

TYPES = {"int4-g32": "Q4_0", "int5-g32": "Q5_0", "int8-g32": "Q8_0", "int4-asym-g32": "Q4_1", "int5-asym-g32": "Q5_1"}
SIZES = {"Q4_0": 18, "Q5_0": 22, "Q8_0": 34, "Q4_1": 20, "Q5_1": 24}


def read(block: np.ndarray[Any, Any], kind: str) -> list[float]:
    """The 32 weights of one block, one at a time."""
    raw = block.tobytes()
    scale = float(np.frombuffer(raw[:2], np.float16)[0])
    minimum = float(np.frombuffer(raw[2:4], np.float16)[0]) if kind.endswith("1") else None
    rest = raw[2 if minimum is None else 4 :]
    if kind == "Q8_0":
        return [scale * code for code in np.frombuffer(rest, np.int8).tolist()]
    high = int.from_bytes(rest[:4], "little") if kind.startswith("Q5") else 0
    low = rest[4:] if kind.startswith("Q5") else rest
    found = []
    for place in range(32):
        code = (low[place] & 15 if place < 16 else low[place - 16] >> 4) | ((high >> place) & 1) << 4
        middle = 8 if kind == "Q4_0" else 16
        found.append(scale * (code - middle) if minimum is None else scale * code + minimum)
    return found


@pytest.mark.parametrize("text", TYPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_each_block_holds_the_weights_as_ggml_reads_them(text: str, rows: int) -> None:
    torch.manual_seed(0)
    weight = quantizer_named("rtn").quantize(torch.randn(rows, 96) + 0.3, parse_scheme(text))
    kind = block_type(weight.scheme)
    assert kind == TYPES[text]
    packed = pack_blocks(weight)
    assert packed.shape == (rows, 3 * SIZES[kind])
    found = torch.tensor([[value for block in row.reshape(3, -1) for value in read(block, kind)] for row in packed])
    tolerance = 0.0 if "asym" not in text else 2.0**-9  # the minimum is rounded to fp16
    assert float((found - weight.dequantize()).abs().max()) <= tolerance


@pytest.mark.parametrize(("text", "expected"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_floating_point_has_types_of_its_own(text: str, expected: str) -> None:
    assert block_type(parse_scheme(text)) == expected


def test_every_scheme_of_the_abilities_has_a_type() -> None:
    symmetric = [f"int{bits}-g{BLOCK}" for bits in ABILITIES.bits]
    asymmetric = [f"int{bits}-asym-g{BLOCK}" for bits in ABILITIES.asymmetric_bits]
    assert len({block_type(parse_scheme(text)) for text in (*symmetric, *asymmetric, *ABILITIES.floats)}) == 8
    assert (ABILITIES.group_sizes, ABILITIES.whole_row) == ((BLOCK,), False)
