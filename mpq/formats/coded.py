"""Entropy-coded integers: ec1 to ec8, in steps of a hundredth of a bit.

All weights of a layer are rounded to multiples of one step, and the codes are compressed. Small codes are frequent and take few bits, large
ones are rare, and none is clipped. The name gives the bits per weight in a file, including all overhead: the encoder chooses the smallest
step for which the layer fits, and pads with zeros. So the size is known before anything is encoded. An entropy-coded uniform grid is within
a quarter of a bit of the best possible code (Gish and Pierce 1968). In memory the codes take 8 bits and run on the int8 kernels.
`tensors/coding.py` has the layout of the bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mpq.formats.base import MOST_BITS, Format

CODED = r"ec[0-9]{1,3}(?:\.[0-9]{1,9})?"
"""What is meant as a coded format, as a regular expression; rates that there are not included."""
CODED_RATES = r"([1-7](\.[0-9]{1,2})?|8(\.0{1,2})?)"
"""The rates that there are, as a regular expression."""
_NAME = re.compile(f"ec{CODED_RATES}")


@lru_cache(maxsize=1024)
def coded_format(name: str) -> Format | None:
    """The coded format of this name, without trailing zeros in its rate; None if there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    hundredths = round(100 * float(match[1]))
    rate = f"{hundredths / 100:g}"
    return Format(f"ec{rate}", MOST_BITS, "integers", f"whole numbers, compressed to {rate} bits per weight", hundredths=hundredths)
