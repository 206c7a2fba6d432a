"""Block types of GGUF files: what each one stores, and which one a scheme becomes. 32 weights of a row share an fp16 scale.

    Q4_0  Q5_0  Q8_0    symmetric codes of 4, 5, 8 bits: weight = (code - middle) * scale       4.5, 5.5, 8.5 bits per weight
    Q4_1  Q5_1          codes of 4, 5 bits, and an fp16 minimum: weight = code * scale + minimum    5, 6 bits per weight

A symmetric scheme of mpq in groups of 32 and a block type of as many bits store the same numbers; of an asymmetric one the minimum is
rounded to fp16.
"""

from __future__ import annotations

from mpq.export.base import Abilities
from mpq.schemes import Scheme

BLOCK = 32
ABILITIES = Abilities(bits=(4, 5, 8), asymmetric_bits=(4, 5), group_sizes=(BLOCK,), whole_row=False)
_TYPES = {
    "int4-g32": "Q4_0",
    "int5-g32": "Q5_0",
    "int8-g32": "Q8_0",
    "int4-asym-g32": "Q4_1",
    "int5-asym-g32": "Q5_1",
    "fp16": "F16",
    "bf16": "BF16",
    "fp32": "F32",
}


def block_type(scheme: Scheme) -> str:
    """The block type, in capitals, of a scheme that `ABILITIES` allow."""
    return _TYPES[str(scheme)]
