"""Finds which weights of a checkpoint match a module, and under which names; the module's own load_state_dict decides.

Everything that torch accepts is accepted, including hooks that convert older checkpoints. Names are changed only if that makes everything
match. A trial may write to the module; the final load overwrites everything that a trial wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpq.models.sources.checkpoint_entries import Entry
from mpq.models.sources.checkpoint_names import Naming, Namings
from mpq.shown import first_line

_COUNTERS = frozenset(("n_averaged", "initted", "step", "num_updates", "updates", "decay"))


@dataclass(frozen=True)
class Fit:
    """How the weights of one entry are read.

    Args:
        entry: the entry with the weights.
        naming: maps their names to those of the module.
        state: the argument of load_state_dict.
        missing: names of the module that the entry lacks.
        unexpected: names that the module does not have.
        error: any other error of load_state_dict; empty if there is none.
        counters: names left out because they are counters of averaging wrappers.
        outside: names that do not start with the naming's prefix.
        known: number of names that the module has too.
    """

    entry: Entry
    naming: Naming
    state: Mapping[str, Any]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    error: str = ""
    counters: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    known: int = 0

    @property
    def fills(self) -> bool:
        """Whether every tensor of the module gets its value."""
        return not self.missing and not self.error

    @property
    def label(self) -> str:
        """The `--checkpoint-key` of these weights: the entry's key, plus the prefix if there are other names; empty for the whole file."""
        return ".".join(filter(None, (self.entry.key, self.naming.prefix if self.outside else "")))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names that are not read, except counters of wrappers."""
        old = {new: old for old, new in self.naming.names.items()}
        return (*(old.get(name, name) for name in self.unexpected), *self.outside)

    def same_as(self, other: Fit) -> bool:
        """Whether both load equal tensors."""
        return self.state.keys() == other.state.keys() and all(_equal(value, other.state[name]) for name, value in self.state.items())


def fits_of(entry: Entry, module: nn.Module) -> list[Fit]:
    """The ways in which an entry fills `module`: one that reads every name, if possible; else the nearest miss, if it is close."""
    found: list[Fit] = []
    for naming in _namings(module).of(list(entry.state)):
        fit = try_naming(entry, naming, module)
        if fit.fills and not fit.left_out:
            return [fit]
        found.append(fit)
    plain = next((fit for fit in found if fit.fills and not fit.outside), None)
    return [plain] if plain is not None else [fit for fit in found if fit.fills] or _nearest(found)


def fit_below(entry: Entry, prefix: str, module: nn.Module) -> Fit | None:
    """The fit of an entry's names below `prefix`; names outside do not count as left out. None if there are none."""
    naming = _namings(module).below(prefix, list(entry.state))
    if not naming.names:
        return None
    below = Entry(".".join(filter(None, (entry.key, prefix))), {name: entry.state[name] for name in naming.names})
    return try_naming(below, naming, module)


def try_naming(entry: Entry, naming: Naming, module: nn.Module) -> Fit:
    """Try to load an entry with the names of `naming`, with and without its recorded versions, and with the other names of tied tensors."""
    own = module.state_dict()
    read = {new: entry.state[old] for old, new in naming.names.items()}
    outside = tuple(name for name in entry.state if name not in naming.names)
    counters = tuple(name for name in read if name not in own and _is_counter(name, read[name]))
    skipped = {name for name in outside if _is_counter(name, entry.state[name])}
    kept = {name: value for name, value in read.items() if name not in counters}
    first = Fit(entry, naming, kept, counters=(*counters, *sorted(skipped)), outside=tuple(n for n in outside if n not in skipped))
    first = replace(first, known=sum(name in own for name in kept))
    found: list[Fit] = []
    for state in _versions(kept, entry, naming):
        found.append(_tried(replace(first, state=state), module))
        if found[-1].fills and not found[-1].unexpected:
            return found[-1]
    best = min(found, key=_distance)
    return _with_ties(best, module) if best.missing and not best.error else best


def load_fit(fit: Fit, module: nn.Module) -> None:
    """Load a fit strictly, in place; names that the module does not have are left out.

    Raises:
        RuntimeError: from torch, if it does not match after all.
    """
    state = OrderedDict((name, value) for name, value in fit.state.items() if name not in fit.unexpected)
    _copy_metadata(fit.state, state)
    module.load_state_dict(state, strict=True)


def _tried(fit: Fit, module: nn.Module) -> Fit:
    try:
        missing, unexpected = module.load_state_dict(fit.state, strict=False)
    except Exception as error:  # errors of the module's own code, and different shapes
        return replace(fit, error=_wrong_shape(fit.state, module) or first_line(error))
    return replace(fit, missing=tuple(missing), unexpected=tuple(unexpected))


def _with_ties(fit: Fit, module: nn.Module) -> Fit:
    """The state with missing names filled in if they are other names of a present tensor."""
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    given = {_place(own[name]): value for name, value in fit.state.items() if name in own}
    tied = {name: given[_place(own[name])] for name in fit.missing if name in own and _place(own[name]) in given}
    if not tied:
        return fit
    state = OrderedDict({**fit.state, **tied})
    _copy_metadata(fit.state, state)
    return _tried(replace(fit, state=state), module)


def _versions(state: Mapping[str, Any], entry: Entry, naming: Naming) -> Iterator[Mapping[str, Any]]:
    """The state with the module versions recorded in its checkpoint, then without: older ones are converted, newer ones read strictly."""
    stated = getattr(entry.state, "_metadata", None)
    if isinstance(stated, Mapping):
        found: Any = OrderedDict(state)
        found._metadata = {new: stated[old] for old, new in _paths(naming) if old in stated}
        yield found
    yield OrderedDict(state)


def _namings(module: nn.Module) -> Namings:
    return Namings(list(module.state_dict()), [name for name, _ in module.named_modules(remove_duplicate=False)])


def _nearest(found: list[Fit]) -> list[Fit]:
    """The miss with the fewest unmatched names on both sides."""
    nearest = min(found, key=_distance, default=None)
    return [] if nearest is None else [nearest]


def _distance(fit: Fit) -> tuple[int, bool, int]:
    return (-fit.known, bool(fit.error), len(fit.missing) + len(fit.left_out))


def _wrong_shape(state: Mapping[str, Any], module: nn.Module) -> str:
    for name, own in module.state_dict().items():
        given = state.get(name)
        known = isinstance(own, Tensor) and isinstance(given, Tensor) and not is_lazy(own)
        if known and given is not None and given.shape != own.shape:
            return f"'{name}' is {list(given.shape)} in the file and {list(own.shape)} in the module"
    return ""


def _is_counter(name: str, value: object) -> bool:
    single = value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)
    return single and name.rpartition(".")[2] in _COUNTERS


def _copy_metadata(source: object, target: Any) -> None:
    if hasattr(source, "_metadata"):
        target._metadata = source._metadata


def _paths(naming: Naming) -> set[tuple[str, str]]:
    """Paths of modules in the checkpoint, each with the matching path in the module."""
    found = set()
    for old, new in naming.names.items():
        while old and new and old.rpartition(".")[2] == new.rpartition(".")[2]:
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            found.add((old, new))
    return found if any(not new for _, new in found) else found | {("", "")}


def _place(tensor: Tensor) -> object:
    hollow = is_lazy(tensor) or tensor.is_meta or not tensor.numel()
    return id(tensor) if hollow else (tensor.data_ptr(), tensor.shape)


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    return first is second or (type(first) is type(second) is int and first == second)
