"""Channels of tensors between layers that are scaled by powers of two: a block of a sensitivity file and of a plan. No torch.

The rows of the tensors before (weight and bias of a norm or layer) are multiplied, the input channels of the weights behind are divided.
The model computes the same, to the bit while nothing overflows; what changes is what rounding to integers costs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from mpq.reading.fields import Name

MOST = 16  # the largest exponent
Exponent = Annotated[int, Meta(ge=-MOST, le=MOST)]


class ChainFacts(Struct, forbid_unknown_fields=True):
    """One tensor between layers whose channels are scaled."""

    tensor: Annotated[Name, Meta(description="the operator that reads it")]
    multiplied: Annotated[list[Name], Meta(min_length=1, description="tensors of the model whose rows are multiplied by 2^exponent")]
    divided: Annotated[list[Name], Meta(min_length=1, description="weights whose input channels are divided by it")]
    exponents: Annotated[list[Exponent], Meta(min_length=1, description="one for each channel")]


@dataclass(frozen=True)
class Chain:
    """One tensor between layers whose channels are scaled.

    Args:
        tensor: the first operator that reads it, for example "conv.3".
        multiplied: names in the state dict of tensors whose rows are multiplied by 2^exponent.
        divided: names of weights whose input channels are divided by it.
        exponents: one for each channel.
    """

    tensor: str
    multiplied: tuple[str, ...]
    divided: tuple[str, ...]
    exponents: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        lists = {"multiplied": list(self.multiplied), "divided": list(self.divided), "exponents": list(self.exponents)}
        return {"tensor": self.tensor, **lists}


def chains_of(facts: Iterable[ChainFacts]) -> tuple[Chain, ...]:
    """The chains that validated records describe."""
    return tuple(Chain(each.tensor, tuple(each.multiplied), tuple(each.divided), tuple(each.exponents)) for each in facts)


def chains_text(chains: Iterable[Chain]) -> str:
    """The block of a plan file, with one line for each fact of a chain: there are as many exponents as channels."""
    text = "# Channels that are scaled by powers of two before weights are quantized: the model computes the same. From the analysis.\n"
    text += "equalization:\n"
    for chain in chains:
        lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in chain.to_dict().items())
        text += "- " + "\n  ".join(lines) + "\n"
    return text
