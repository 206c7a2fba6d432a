"""Rounds the inputs of integer operators while a model runs, as a runtime does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from mpq.activations.operators import Numbers, Operator, operation_named, operator_of
from mpq.errors import MismatchError
from mpq.formats.activations import LEVELS, STATIC
from mpq.models.layers.dispatch_watch import named
from mpq.models.running.forward import plain_attention
from mpq.records.activations import ActivationGroup, Groups, RoundedTensor

Change = Callable[[Tensor], Tensor]
_SIGNED = 127  # the largest code of a token
_SIMULATED: WeakKeyDictionary[nn.Module, dict[str, Change]] = WeakKeyDictionary()


def rounded(values: Tensor, scale: float, zero_point: int) -> Tensor:
    """The values after uint8 codes `round(x / scale) + zero_point`, clipped to 0 to 255; of the same shape and dtype."""
    codes = (values.float() / scale).round_().add_(zero_point).clamp_(0, LEVELS)
    return codes.sub_(zero_point).mul_(scale).to(values.dtype)


def rounded_tokens(values: Tensor) -> Tensor:
    """The values after int8 codes with one scale for each vector along the last dimension, that of its largest magnitude over 127."""
    wide = values.float()
    scale = wide.abs().amax(-1, keepdim=True) / _SIGNED
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (wide / scale).round_().mul_(scale).to(values.dtype)


def changes_of(groups: Groups) -> dict[str, Change]:
    """What happens to each reader's input."""
    return {reader: _change(group, tensor) for group in groups.values() for tensor in group.tensors for reader in tensor.readers}


def _change(group: ActivationGroup, tensor: RoundedTensor) -> Change:
    if group.scheme != STATIC:
        return rounded_tokens
    scale, zero_point = float(tensor.scale or 0), int(tensor.zero_point or 0)
    return lambda values: rounded(values, scale, zero_point)


class Changed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Changes the inputs of operators while active.

    Args:
        changes: by reader; see `records/activations.py`.

    Attributes:
        missing: the readers that were not reached yet.
    """

    def __init__(self, changes: Mapping[str, Change]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._changes, self._numbers = changes, Numbers()
        self.missing = dict.fromkeys(changes)

    @property
    def counts(self) -> Counter[str]:
        """The operators that were called so far, by kind."""
        return self._numbers.counts

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = kwargs or {}
        operator = operator_of(operation_named(func), named(func, args, given))
        if operator is not None:
            args, given = self._seen(func, operator, args, given)
        return func(*args, **given)

    def _seen(self, func: Any, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        wanted = [(place, reader) for place, reader in enumerate(self._numbers.readers(operator)) if reader in self._changes]
        if not wanted:
            return args, kwargs
        new = [tensor for _, tensor in operator.inputs]
        for place, reader in wanted:
            self.missing.pop(reader, None)
            new[place] = self._changes[reader](new[place])
        if func._schema.is_mutable and new[0] is not operator.inputs[0][1]:  # x += y writes into its own first input
            new[0] = operator.inputs[0][1].copy_(new[0])
        return _replaced(func, operator, new, args, kwargs)


def _replaced(
    func: Any, operator: Operator, new: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = [argument.name for argument in func._schema.arguments]
    positional, by_name = list(args), dict(kwargs)
    values: dict[str, Any] = {"tensors": new} if operator.kind == "cat" else {name: new[n] for n, (name, _) in enumerate(operator.inputs)}
    for name, value in values.items():
        place = names.index(name)
        if place < len(positional):
            positional[place] = value
        else:
            by_name[name] = value
    return tuple(positional), by_name


@contextmanager
def changed(module: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Change the inputs of operators in every call of `module` inside the `with`.

    Raises:
        MismatchError: if a call does not reach one of the readers.
    """
    hooks = hooked(module, changes) if changes else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def simulate(module: nn.Module, groups: Groups) -> nn.Module:
    """Let every call of `module` round its tensors as `groups` say, from now on; the same module."""
    if groups:
        _SIMULATED[module] = changes_of(groups)
        hooked(module, _SIMULATED[module])
    return module


def changes_in(module: nn.Module) -> dict[str, Change]:
    """What `simulate` does in a module, by reader; it may be replaced there, entry by entry."""
    return _SIMULATED.get(module, {})


@contextmanager
def simulated(module: nn.Module, groups: Groups) -> Iterator[None]:
    """Round tensors as `groups` say in every call of `module` inside the `with`."""
    with changed(module, changes_of(groups)):
        yield


def hooked(module: nn.Module, changes: Mapping[str, Change]) -> list[RemovableHandle]:
    """Change the inputs of operators in every call of `module`, until the hooks that are returned are removed."""
    local = threading.local()

    def enter(*_: Any) -> None:
        mode, entered = Changed(changes), ExitStack()
        entered.enter_context(plain_attention())  # counts its products one by one, as `trace` did
        entered.enter_context(mode)
        local.calls = [*getattr(local, "calls", []), (mode, entered)]

    def leave(_module: Any, _inputs: Any, result: Any) -> None:
        mode, entered = local.calls.pop()
        entered.close()
        if mode.missing and result is not None:
            reader = next(iter(mode.missing))
            raise MismatchError(
                f"the model did not call '{reader}', whose input should be an integer: these activations belong to a different model"
            )

    # of nn.Module, because TorchScript refuses its own methods of these names, although it calls such hooks
    return [nn.Module.register_forward_pre_hook(module, enter), nn.Module.register_forward_hook(module, leave, always_call=True)]
