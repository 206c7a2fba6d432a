"""Which weights of a checkpoint fit a module, and under which names: the module's own load_state_dict judges.

What torch accepts is accepted, hooks that convert older checkpoints included. Names are read otherwise only where that makes everything
fit. A trial may write to the module; loading what fits in the end overwrites all that a trial wrote.
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
        entry: where they are.
        naming: under which names of the module.
        state: as load_state_dict takes it.
        missing: names of the module that it lacks.
        unexpected: names that the module does not have.
        error: what load_state_dict says otherwise; empty where it says nothing.
        counters: names left out because averaging wrappers count with them.
        outside: names that do not begin with the naming's prefix.
        known: how many names the module has too.
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
        """What chooses these weights: the entry's key, and the prefix where other names are not below it; empty for the whole file."""
        return ".".join(filter(None, (self.entry.key, self.naming.prefix if self.outside else "")))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names that are not read, without the counters of wrappers."""
        old = {new: old for old, new in self.naming.names.items()}
        return (*(old.get(name, name) for name in self.unexpected), *self.outside)

    def same_as(self, other: Fit) -> bool:
        """Whether both load equal tensors."""
        return self.state.keys() == other.state.keys() and all(_equal(value, other.state[name]) for name, value in self.state.items())


def fits_of(entry: Entry, module: nn.Module) -> list[Fit]:
    """The ways in which an entry fills `module`: one that reads every name if there is one; else the nearest miss, if that is close."""
    found: list[Fit] = []
    for naming in _namings(module).of(list(entry.state)):
        fit = try_naming(entry, naming, module)
        if fit.fills and not fit.left_out:
            return [fit]
        found.append(fit)
    plain = next((fit for fit in found if fit.fills and not fit.outside), None)
    return [plain] if plain is not None else [fit for fit in found if fit.fills] or _nearest(found)


def fit_below(entry: Entry, prefix: str, module: nn.Module) -> Fit | None:
    """The names of an entry below `prefix`, tried; those outside are not counted as left out. None if there are none."""
    naming = _namings(module).below(prefix, list(entry.state))
    if not naming.names:
        return None
    below = Entry(".".join(filter(None, (entry.key, prefix))), {name: entry.state[name] for name in naming.names})
    return try_naming(below, naming, module)


def try_naming(entry: Entry, naming: Naming, module: nn.Module) -> Fit:
    """Load an entry under the names of `naming`, with and without the versions it states, and with the other names of tied tensors."""
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
    """Load what fits, strictly, in place; what the module does not have is left out.

    Raises:
        RuntimeError: of torch, if it does not fit after all.
    """
    state = OrderedDict((name, value) for name, value in fit.state.items() if name not in fit.unexpected)
    _copy_metadata(fit.state, state)
    module.load_state_dict(state, strict=True)


def _tried(fit: Fit, module: nn.Module) -> Fit:
    try:
        missing, unexpected = module.load_state_dict(fit.state, strict=False)
    except Exception as error:  # the module's own code, and shapes that differ
        return replace(fit, error=_wrong_shape(fit.state, module) or first_line(error))
    return replace(fit, missing=tuple(missing), unexpected=tuple(unexpected))


def _with_ties(fit: Fit, module: nn.Module) -> Fit:
    """The same with missing names that are other names of a tensor that is there."""
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    given = {_place(own[name]): value for name, value in fit.state.items() if name in own}
    tied = {name: given[_place(own[name])] for name in fit.missing if name in own and _place(own[name]) in given}
    if not tied:
        return fit
    state = OrderedDict({**fit.state, **tied})
    _copy_metadata(fit.state, state)
    return _tried(replace(fit, state=state), module)


def _versions(state: Mapping[str, Any], entry: Entry, naming: Naming) -> Iterator[Mapping[str, Any]]:
    """The state with the versions of modules that its checkpoint states, then without: older ones are converted, newer taken strictly."""
    stated = getattr(entry.state, "_metadata", None)
    if isinstance(stated, Mapping):
        found: Any = OrderedDict(state)
        found._metadata = {new: stated[old] for old, new in _paths(naming) if old in stated}
        yield found
    yield OrderedDict(state)


def _namings(module: nn.Module) -> Namings:
    return Namings(list(module.state_dict()), [name for name, _ in module.named_modules(remove_duplicate=False)])


def _nearest(found: list[Fit]) -> list[Fit]:
    """The miss that leaves the fewest names over on both sides."""
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
    """Paths of modules in the checkpoint, each with the module's."""
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
