"""Choose the weights of a checkpoint that match a module, and report what was chosen, renamed and left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from mpq.errors import ModelError, UsageError
from mpq.models.sources.checkpoint_entries import WHOLE, Entry
from mpq.models.sources.detect_kind import shard_remedy
from mpq.models.sources.fit_checkpoint import Fit, fit_below, fits_of
from mpq.shown import listed, shown, shown_bare

_SHOWN = 4
_LISTED = 20


def choose_weights(
    entries: Sequence[Entry], module: nn.Module, *, what: str, maker: str, key: str | None = None, allow_unexpected: bool = False
) -> Fit:
    """The only way to fill `module` from a checkpoint.

    Args:
        entries: the checkpoint's dicts of tensors.
        module: overwritten while trying, so its values are undefined until the choice is loaded.
        what: the file, for messages.
        maker: the function that built the module, for messages.
        key: the entry to read, or a prefix of names in one.
        allow_unexpected: leave out names that the module does not have.

    Raises:
        ModelError: if nothing matches, or several different sets of weights match.
        UsageError: if there is nothing under `key`.
    """
    found = [fit for entry in entries for fit in fits_of(entry, module)] if key is None else _under(key, entries, module, what)
    filling = [fit for fit in found if fit.fills]
    whole = [fit for fit in filling if not fit.left_out]
    different = _different(whole or filling)
    if len(different) > 1:
        names = ", ".join(_named(fit) for fit in different)
        first = next(filter(None, (fit.label for fit in different)), WHOLE)
        raise ModelError(f"{what} has several sets of weights that match: {names}; choose one, for example --checkpoint-key {first}")
    complaint = f"{what} does not fit the module of {maker}"
    if not different:
        remedy = shard_remedy(Path(what)) or "give the builder that made this checkpoint"
        raise ModelError(f"{complaint}: {_problem(max(found, key=lambda fit: fit.known))}; {remedy}")
    if different[0].left_out and not allow_unexpected:
        names = _listed(different[0].left_out, _SHOWN)
        raise ModelError(
            f"{complaint}: unexpected: {names}; give the builder that made this checkpoint, or leave them out with --allow-unexpected"
        )
    return different[0]


def notes_on(fit: Fit, module: nn.Module, *, what: str, key: str | None) -> tuple[str, ...]:
    """One line each for the entry, for renamed names, and for names that were left out or missing."""
    notes = [] if key is not None or not fit.label else [f"{what}: weights of {shown(fit.label)}, which alone match the module"]
    read = {old: new for old, new in fit.naming.names.items() if new not in (*fit.counters, *fit.unexpected)}
    changed = [(old, new) for old, new in read.items() if old != new]
    if changed:
        old, new = changed[0]
        count = f"{len(changed)} of {len(read)} names renamed to those of the module"
        notes.append(f"{what}: {count}, for example {shown(old)} to {shown(new)}")
    notes += _converted(fit, module, what)
    left_out = [*fit.counters, *fit.left_out]
    if left_out:
        notes.append(f"{what}: left out {_count(left_out, 'name')} that the module does not have: {_listed(left_out, _LISTED)}")
    return tuple(notes)


def _converted(fit: Fit, module: nn.Module, what: str) -> list[str]:
    """How load_state_dict itself converted names."""
    own = module.state_dict()
    old = [name for name in fit.state if name not in own and name not in fit.unexpected]
    new = [name for name in own if name not in fit.state]
    if old and new:
        return [f"{what}: torch converts {_count(old, 'name')} to {len(new)} of the module, for example {shown(old[0])} to {shown(new[0])}"]
    if old:
        return [f"{what}: the module's load_state_dict does not use {_count(old, 'name')}: {_listed(old, _LISTED)}"]
    if new:
        return [f"{what}: {_count(new, 'value')} not in the file, so the builder's own are kept:  {_listed(new, _SHOWN)}"]
    return []


def _under(key: str, entries: Sequence[Entry], module: nn.Module, what: str) -> list[Fit]:
    """The fit of the entry with this key, or of the names below this prefix."""
    exact = [entry for entry in entries if (entry.key or WHOLE) == key]
    if exact:
        return [fit for entry in exact for fit in fits_of(entry, module)]
    for entry in sorted(entries, key=lambda entry: len(entry.key), reverse=True):
        if entry.key and not key.startswith(f"{entry.key}."):
            continue
        fit = fit_below(entry, key.removeprefix(f"{entry.key}.") if entry.key else key, module)
        if fit is not None:
            return [fit]
    names = ", ".join(shown_bare(entry.key or WHOLE) for entry in entries)
    raise UsageError(f"--checkpoint-key {key} is not in {what}: it has tensors in  {names}")


def _different(fits: Sequence[Fit]) -> list[Fit]:
    """The fits without those that load the same tensors as an earlier one."""
    found: list[Fit] = []
    for fit in fits:
        if not any(fit.same_as(other) for other in found):
            found.append(fit)
    return found


def _named(fit: Fit) -> str:
    return shown_bare(fit.label) if fit.label else f"{WHOLE} (the file itself)"


def _problem(fit: Fit) -> str:
    if fit.error:
        return fit.error
    left_out = (("missing", fit.missing), ("unexpected", fit.left_out))
    told = "; ".join(f"{word}: {_listed(names, _SHOWN)}" for word, names in left_out if names)
    return f"{shown_bare(fit.label)}: {told}" if fit.label else told


def _count(things: Sequence[str], word: str) -> str:
    return f"{len(things)} {word}" + ("" if len(things) == 1 else "s")


def _listed(names: Sequence[str], most: int) -> str:
    return listed([shown_bare(name) for name in names], most)
