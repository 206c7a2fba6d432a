"""Side effects of a model: it keeps state between calls, changes its inputs, or draws random numbers.

Each of these would be measured as quantization error. `examine` finds them by running the model twice on one batch, with another batch in
between. State is restored before every call, inputs are passed as copies, and a random model is refused unless every call starts with the
same seed. The result is stored for the module, and `call` in `forward.py` uses it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mpq.data.batch import Batch
from mpq.data.sparse import same_tensors
from mpq.errors import ModelError
from mpq.models.running.kept_state import State, changed_state, copied, kept_state, restore_state, state_names
from mpq.models.running.kept_weights import renorm_notes, weights_kept
from mpq.models.running.positions import in_pieces
from mpq.models.running.swap import hooked
from mpq.shown import listed

SEED = 0
_TOLERANCE = 1e-5  # relative; other threads may add in a different order
_SHOWN = 4
_REPEATS = 6  # additional calls of a model that draws random numbers but gave the same outputs twice


@dataclass(frozen=True)
class Habits:
    """What calls of a module must take care of.

    Args:
        state: the state restored before every call.
        changes_inputs: whether the model modifies its inputs.
        seed: the random seed for every call; None leaves the random state alone.
    """

    state: State = field(default_factory=dict)
    changes_inputs: bool = False
    seed: int | None = None


_KNOWN: WeakKeyDictionary[nn.Module, Habits] = WeakKeyDictionary()


def habits_of(module: nn.Module) -> Habits | None:
    """The result of `examine`, or None if calls need no care."""
    return _KNOWN.get(module)


def share_habits(module: nn.Module, other: nn.Module) -> None:
    """Let calls of `other`, which does the same as `module`, take the same care."""
    if module in _KNOWN:
        _KNOWN[other] = _KNOWN[module]


def put_back(module: nn.Module) -> None:
    """Restore the state of `module` for the next call; the last call may have changed it."""
    habits = _KNOWN.get(module)
    if habits is not None:
        restore_state(module, habits.state)


@contextmanager
def as_found(module: nn.Module) -> Iterator[State]:
    """The state of `module`: every call within the `with` starts from it, and it is restored afterwards.

    Habits found earlier are forgotten, except for the state that they restore.
    """
    put_back(module)
    state = kept_state(module)
    _KNOWN[module] = Habits(state)
    try:
        yield state
    finally:
        _KNOWN.pop(module, None)
        restore_state(module, changed_state(module, state))


@contextmanager
def minded(module: nn.Module, batch: Batch) -> Iterator[Batch]:
    """The batch to pass to `module`; within the `with`, the module has its restored state and random numbers use its seed."""
    habits = _KNOWN.get(module)
    with weights_kept(module):
        if habits is None:
            yield batch
            return
        with _begun(module, habits, batch) as given:
            yield given


@contextmanager
def _begun(module: nn.Module, habits: Habits, batch: Batch) -> Iterator[Batch]:
    put_back(module)
    given = replace(batch, args=copied(batch.args), kwargs=copied(batch.kwargs)) if habits.changes_inputs else batch
    if habits.seed is None:
        yield given
        return
    with seeded(habits.seed):
        yield given


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the `with`, random numbers of torch, NumPy and Python start from `seed`; afterwards they continue as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def examine(module: nn.Module, batches: Sequence[Batch], run: Callable[[Batch], Sequence[Tensor]], *, seed: bool = False) -> list[str]:
    """Find the habits of a module, store them, and return notes on them.

    Args:
        module: in eval mode; its state is restored afterwards.
        batches: the first two and the last are run.
        run: gives the module's outputs, taking its habits into account.
        seed: whether every call starts with the same random seed.

    Raises:
        ModelError: if outputs differ although state and seed are restored, or because there is no seed.
    """
    put_back(module)
    _KNOWN.pop(module, None)
    first = replace(batches[0], args=copied(batches[0].args), kwargs=copied(batches[0].kwargs))
    before, random_before = kept_state(module), _random_state()
    outputs = [output.detach().clone() for output in run(first)]
    draws = _random_state() != random_before
    state = _state_changed_by(module, before, batches, run)
    touched = any(not same_tensors(now, old) for now, old in zip(first.tensors, batches[0].tensors, strict=True))
    habits = Habits(state, touched, SEED if seed else None)
    if state or touched or seed:
        _KNOWN[module] = habits
    if seed:
        outputs = [output.detach().clone() for output in run(batches[0])]
    if len(batches) > 1 and (state or seed):
        run(batches[1])
    often = draws and not seed
    alike = all(_alike(outputs, run(batches[0])) for _ in range(_REPEATS if often else 1))
    restore_state(module, state)
    if not alike:
        raise ModelError(_reason(module, batches[0], run, seed=seed))
    told = [f"the model draws random numbers, but its outputs were the same in {_REPEATS + 1} calls"] if often else []
    return [*_notes(habits), *told, *renorm_notes(module)]


def _random_state() -> tuple[Any, ...]:
    """The random states of torch, Python and NumPy."""
    name, words, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), name, np.asarray(words).tobytes(), *rest


def _state_changed_by(module: nn.Module, before: State, batches: Sequence[Batch], run: Callable[[Batch], Sequence[Tensor]]) -> State:
    """The state that calls with the first and with other batches change; it is restored.

    One batch may leave a value unchanged by chance, and the last batch often has a different size.
    """
    state = changed_state(module, before)
    for batch in (*batches[1:2], *batches[2:][-1:]):
        run(replace(batch, args=copied(batch.args), kwargs=copied(batch.kwargs)))
        state |= changed_state(module, before)
    restore_state(module, state)
    return state


def _notes(habits: Habits) -> list[str]:
    notes = []
    if habits.state:
        names = listed(state_names(habits.state), _SHOWN)
        notes.append(f"the model keeps state between calls ({names}); it is restored before every call")
    if habits.changes_inputs:
        notes.append("the model modifies its inputs, so every call gets a copy")
    if habits.seed is not None:
        notes.append(f"every call starts with the random seed {habits.seed}")
    return notes


def _reason(module: nn.Module, batch: Batch, run: Callable[[Batch], Sequence[Tensor]], *, seed: bool) -> str:
    places = _random_places(module, batch, run)
    where = f" (random numbers are drawn in {listed(places, _SHOWN)})" if places else ""
    if seed:
        return f"the model gives different outputs for the same inputs and the same random seed{where}: make it deterministic first"
    advice = (
        "add --seed-each-forward to start every call with the same seed" if places else "make it deterministic, or add --seed-each-forward"
    )
    return f"the model gives different outputs each time it runs on the same inputs{where}: {advice}"


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records in which modules random numbers are drawn."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack: list[str] = []
        self.found: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            name = str(func).removeprefix("aten.").partition(".")[0]
            self.found.setdefault(f"'{self.stack[-1]}' by {name}" if self.stack and self.stack[-1] else f"the model by {name}")
        return func(*args, **(kwargs or {}))


def _random_places(module: nn.Module, batch: Batch, run: Callable[[Batch], Sequence[Tensor]]) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return []
    watch, handles = _Watch(), []

    def leave(*_: Any) -> None:
        watch.stack.pop()

    for name, child in module.named_modules():
        handles.append(child.register_forward_pre_hook(lambda *_, name=name: watch.stack.append(name)))
        handles.append(child.register_forward_hook(leave))
    with hooked(handles), watch:
        run(batch)
    return list(watch.found)


def _alike(outputs: Sequence[Tensor], again: Sequence[Tensor]) -> bool:
    if len(outputs) != len(again):
        return False
    for before, now in zip(outputs, again, strict=True):
        if before.shape != now.shape:
            return False
        pairs = list(zip(in_pieces(before), in_pieces(now), strict=True))
        scale = max((float(one.abs().nan_to_num(0, 0, 0).max()) for one, _ in pairs), default=0.0)
        least = _TOLERANCE * 0.1 * scale
        if not all(torch.allclose(other, one, rtol=_TOLERANCE, atol=least, equal_nan=True) for one, other in pairs):
            return False
    return True
