"""Tensors that can be integers, in groups that are integers together or not at all.

A convolution or matrix product with a layer's weight can read an integer alone. An addition, concatenation or average is worth it only
inside of an island: where all that it reads comes from integer operators (through what runtimes fuse into them: ReLU, batch norm), and all
that reads it is an integer operator. So residual additions of a CNN are included, and the residual stream of a transformer, which norms
read, is not. Softmax, norms and attention scores stay in floating point. Tensors that one addition or concatenation reads form a group;
each of them keeps a range of its own, as all runtimes allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mpq.activations.trace import Source, Trace

_JOINED = ("add", "cat")
_INNER = (*_JOINED, "average")
_INTEGER = ("conv", "linear", *_INNER)


@dataclass(frozen=True)
class Candidate:
    """Tensors that may be integers together.

    Args:
        name: the first layer that reads one of them, else the first operator.
        tensors: the readers of each tensor.
        layers: the layers that read them.
        work: multiplications of these layers, for the batch of the trace.
    """

    name: str
    tensors: tuple[tuple[str, ...], ...]
    layers: tuple[str, ...]
    work: int

    @property
    def readers(self) -> list[str]:
        """All readers."""
        return [reader for tensor in self.tensors for reader in tensor]

    @property
    def only_products(self) -> bool:
        """Whether all readers are matrix products, so that one scale per token is possible."""
        return all(reader.startswith("linear.") for reader in self.readers)


def candidates(trace: Trace) -> list[Candidate]:
    """All groups of a model, in the order in which it computes their first tensor."""
    inner = _islands(trace)
    readers = {number: [each for each in source.readers if _operator(each) in inner] for number, source in enumerate(trace.sources)}
    readers = {number: found for number, found in readers.items() if found}
    found: list[Candidate] = []
    for members in _joined(readers):
        tensors = tuple(tuple(readers[number]) for number in members)
        every = [reader for tensor in tensors for reader in tensor]
        layers = tuple(dict.fromkeys(trace.layers[reader] for reader in every if reader in trace.layers))
        name = _free((*layers, every[0]), [other.name for other in found])
        found.append(Candidate(name, tensors, layers, sum(trace.work.get(reader, 0) for reader in every)))
    return found


def _free(names: Iterable[str], used: list[str]) -> str:
    return next(name for name in names if name not in used)


def _operator(reader: str) -> str:
    """The operator of a reader: "add.3" of "add.3.1"."""
    return ".".join(reader.split(".")[:2])


def _islands(trace: Trace) -> set[str]:
    """The operators that compute in integers: all products, and what lies inside of islands."""
    inner = {source.name: number for number, source in enumerate(trace.sources) if source.kind in _INNER}
    kept = {reader for source in trace.sources for reader in source.readers if reader.startswith(("conv.", "linear."))}
    while True:
        whole = {name for name, number in inner.items() if _is_inside(trace.sources, number, kept | set(inner))}
        if whole == set(inner):
            return kept | whole
        inner = {name: inner[name] for name in whole}


def _is_inside(sources: list[Source], number: int, kept: set[str]) -> bool:
    """Whether all that an operator reads comes from integer operators, and all that reads its result is one."""
    made = all(_comes_from(sources, each, kept) for each in sources[number].inputs)
    return made and _goes_to(sources, number, kept)


def _comes_from(sources: list[Source], number: int, kept: set[str]) -> bool:
    source = sources[number]
    if source.kind == "fused":
        return _comes_from(sources, source.inputs[0], kept)
    return source.kind in _INTEGER and source.name in kept


def _goes_to(sources: list[Source], number: int, kept: set[str]) -> bool:
    source = sources[number]
    if source.is_output or not (source.readers or source.others):
        return False
    fused = [other for _, other in source.others]
    return all(_operator(reader) in kept for reader in source.readers) and all(
        sources[other].kind == "fused" and _goes_to(sources, other, kept) for other in fused
    )


def _joined(readers: Mapping[int, list[str]]) -> list[list[int]]:
    """Numbers of tensors in groups: those that one addition or concatenation reads are together."""
    leader = {number: number for number in readers}

    def find(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    first: dict[str, int] = {}
    for number, found in readers.items():
        for reader in found:
            if reader.startswith(_JOINED):
                other = first.setdefault(_operator(reader), number)
                low, high = sorted((find(number), find(other)))
                leader[high] = low
    groups: dict[int, list[int]] = {}
    for number in readers:
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())
