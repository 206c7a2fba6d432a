"""Which tensors between layers are 8-bit integers: a block of a plan, and part of an artifact's header. No torch.

A tensor is known by the operators that read it, which are counted in the order in which the model calls them: `conv.3` is the fourth
convolution, `add.0.1` the second input of the first addition. `a8` is uint8 with a fixed scale and zero point; `a8d` is int8 with one scale
per token, found while the model runs, for the inputs of matrix products.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from mpq.formats.activations import DYNAMIC, LEVELS, MIDDLE, STATIC
from mpq.reading.documents import Document
from mpq.reading.fields import Name
from mpq.shown import shown

Scheme = Annotated[Literal["a8", "a8d"], Meta(description="a8: uint8, fixed range; a8d: int8, one scale per token, found at run time")]
_READER = r"^(linear|conv|average)\.[0-9]{1,6}$|^(add|cat)\.[0-9]{1,6}\.[0-9]{1,4}$"
Reader = Annotated[str, Meta(max_length=32, pattern=_READER, extra={"give": "an operator, for example conv.3 or add.0.1"})]
Scale = Annotated[float, Meta(gt=0, le=3e38)]
Code = Annotated[int, Meta(ge=0, le=LEVELS)]


class TensorFacts(Struct, forbid_unknown_fields=True):
    """One tensor: who reads it, and its range where that is fixed."""

    readers: Annotated[list[Reader], Meta(min_length=1)]
    scale: Annotated[Scale | None, Meta(description="of one step; with a8")] = None
    zero_point: Annotated[Code | None, Meta(description="the code of 0; with a8")] = None


class GroupFacts(Struct, forbid_unknown_fields=True):
    """Tensors that are integers together or not at all, since one operator reads them."""

    scheme: Scheme
    tensors: Annotated[list[TensorFacts], Meta(min_length=1)]


@dataclass(frozen=True)
class RoundedTensor:
    """One tensor.

    Args:
        readers: the operators that read it as integers.
        scale: of one step, where the range is fixed.
        zero_point: the code of 0, where the range is fixed.
    """

    readers: tuple[str, ...]
    scale: float | None = None
    zero_point: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        ranged = {} if self.scale is None else {"scale": self.scale, "zero_point": self.zero_point}
        return {"readers": list(self.readers), **ranged}


@dataclass(frozen=True)
class ActivationGroup:
    """Tensors that are integers together.

    Args:
        scheme: "a8" or "a8d".
        tensors: one or more.
    """

    scheme: str
    tensors: tuple[RoundedTensor, ...]

    @property
    def readers(self) -> list[str]:
        """All readers of its tensors."""
        return [reader for tensor in self.tensors for reader in tensor.readers]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {"scheme": self.scheme, "tensors": [tensor.to_dict() for tensor in self.tensors]}


Groups = Mapping[str, ActivationGroup]


def group_of(facts: GroupFacts) -> ActivationGroup:
    """The group that a validated record describes."""
    tensors = (RoundedTensor(tuple(each.readers), each.scale, each.zero_point) for each in facts.tensors)
    return ActivationGroup(facts.scheme, tuple(tensors))


def groups_in(document: Document, facts: Mapping[Name, GroupFacts]) -> dict[str, ActivationGroup]:
    """The groups of a plan or an artifact.

    Raises:
        MpqError: of the document's type, if a range is missing or not wanted, or a reader stands in two tensors.
    """
    seen: dict[str, str] = {}
    for name, group in facts.items():
        for number, tensor in enumerate(group.tensors):
            ranged = tensor.scale is not None and tensor.zero_point is not None
            if ranged != (group.scheme == STATIC) or (tensor.scale is None) != (tensor.zero_point is None):
                wanted = "give scale and zero_point" if group.scheme == STATIC else "leave out scale and zero_point"
                raise document.refuse(f"tensor {number} of activations {shown(name)} is {group.scheme}: {wanted}", "activations", name)
            for reader in tensor.readers:
                if reader in seen:
                    reason = f"activations {shown(seen[reader])} and {shown(name)} both hold {shown(reader)}: give it to one tensor"
                    raise document.refuse(reason, "activations", name)
                seen[reader] = name
                if group.scheme == DYNAMIC and not reader.startswith("linear."):
                    reason = f"activations {shown(name)} has the reader {shown(reader)}, and a8d is for matrix products: use a8"
                    raise document.refuse(reason, "activations", name)
    return {name: group_of(group) for name, group in facts.items()}


def around_zero(groups: Groups) -> dict[str, ActivationGroup]:
    """The groups with ranges that reach as far below 0 as above it, so that the code of 0 is 128; each holds the range that it had."""
    return {name: replace(group, tensors=tuple(_around_zero(tensor) for tensor in group.tensors)) for name, group in groups.items()}


def _around_zero(tensor: RoundedTensor) -> RoundedTensor:
    if tensor.scale is None or tensor.zero_point is None:
        return tensor
    steps = max(tensor.zero_point, LEVELS - tensor.zero_point)
    return replace(tensor, scale=tensor.scale * steps / (MIDDLE - 1), zero_point=MIDDLE)


def header_bytes(groups: Groups) -> int:
    """What the groups add to the header of an artifact, in bytes: the header holds JSON inside of JSON."""
    if not groups:
        return 0
    text = json.dumps({"activations": to_dict(groups)}, separators=(",", ":"), ensure_ascii=False)[1:-1] + ","
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def to_dict(groups: Groups) -> dict[str, Any]:
    """The groups as a JSON object."""
    return {name: group.to_dict() for name, group in groups.items()}


def without_ranges(groups: Groups) -> dict[str, tuple[str, list[tuple[str, ...]]]]:
    """The scheme of each group, and the readers of its tensors."""
    return {name: (group.scheme, [tensor.readers for tensor in group.tensors]) for name, group in groups.items()}


def summary(groups: Groups) -> str:
    """How many tensors are integers, for people: "27 tensors in 21 groups: 20 a8, 1 a8d"."""
    if not groups:
        return "all in floating point"
    counts = {scheme: sum(group.scheme == scheme for group in groups.values()) for scheme in (STATIC, DYNAMIC)}
    tensors = sum(len(group.tensors) for group in groups.values())
    kinds = ", ".join(f"{count} {scheme}" for scheme, count in counts.items() if count)
    return f"{tensors} tensor{'s' * (tensors != 1)} in {len(groups)} group{'s' * (len(groups) != 1)}: {kinds}"
