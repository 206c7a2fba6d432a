"""Types of the fields of records: ranges, lengths, and what the JSON schemas say of them. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mpq.formats.grammar import scheme_schema
from mpq.limits import NAME_TEXT

_EXACT = 2**53  # integers up to here are floats, too
_DIGEST = "^[0-9a-f]{64}$"
_LIMIT = r"^\s*([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*([bB][iI][tT][sS]?|[bB][pP][wW]|%|[kKmMgG]?[iI]?[bB])\s*$"
_BYTES = r"^\s*([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*([kKmMgG]?[iI]?[bB])\s*$"
_PERCENT = r"^[0-9]+(\.[0-9]+)?%$"
Name = Annotated[str, Meta(max_length=NAME_TEXT)]
Text = Annotated[str, Meta(max_length=NAME_TEXT)]
Loose = Annotated[str, Meta(max_length=NAME_TEXT)] | int | float
"""Text that YAML may take for a number."""
Sha256 = Annotated[str, Meta(max_length=128, extra_json_schema={"pattern": _DIGEST}, extra={"give": "64 hexadecimal digits"})]
Integer = int
Count = Annotated[int, Meta(ge=1, le=_EXACT)]
Size = Annotated[int, Meta(ge=0, le=_EXACT)]
Number = float
Figure = Annotated[float, Meta(ge=-1e150, le=1e150)]  # may be squared, and drawn on a logarithmic scale
Positive = Annotated[float, Meta(ge=0, extra={"give": "a number of 0 or more"})]
Share = Annotated[float, Meta(ge=0, lt=1)]
Axis = Annotated[int, Meta(ge=0, le=31)]
Dtype = Literal["float32", "float16", "bfloat16"]
RestDtype = Literal["bf16", "fp16", "fp32"]
Scope = Annotated[Literal["layers", "file"], Meta(description="layers: the searched layers with their scales; file: the whole artifact")]
SchemeText = Annotated[
    str, Meta(max_length=64, extra_json_schema=scheme_schema(), extra={"give": "a scheme, for example int4 or int4-g32"})
]
"""Read by `parse_scheme`, whose grammar the pattern repeats for editors."""
Limit = Annotated[
    str,
    Meta(
        max_length=64,
        description="bits per weight (4.5bits), bytes (12MB, 12MiB, 900kB) or a share of the original (30%)",
        examples=["4.5bits", "12MB", "30%"],
        extra_json_schema={"pattern": _LIMIT},
        extra={"give": "a size, for example 4.5bits, 12MB or 30%"},
    ),
]
"""Read by `Budget`."""
Bytes = Annotated[
    Count | Annotated[str, Meta(max_length=64, extra_json_schema={"pattern": _BYTES})],
    Meta(description="bytes: 12MB, 12MiB, 900kB", examples=["12MB", "900kB"], extra={"give": "bytes, for example 12MB"}),
]
Percent = Annotated[
    str,
    Meta(max_length=64, examples=["1%"], extra_json_schema={"pattern": _PERCENT}, extra={"give": "a percentage, for example 1%"}),
]
