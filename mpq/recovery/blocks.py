"""The blocks of a model: modules that are called one after another, each with its own layers; and running a model up to one of them.

A block is a child of a `ModuleList`, `ModuleDict` or `Sequential`, such as a transformer layer or a residual block. A child that holds more
than half of all layers is divided further. Layers that are used outside their block, such as a tied table, belong to none. The blocks of an
exported program are found in its graph (`recovery/exported_blocks.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mpq.calibration.input_moments import plain_kernels
from mpq.data.batch import Batch
from mpq.errors import DataError, MpqError
from mpq.models.running.forward import forward
from mpq.models.running.kept_state import copied
from mpq.models.running.swap import hooked
from mpq.records.layer import Layer
from mpq.recovery.exported_blocks import Divided

_CONTAINERS = (nn.Sequential, Divided)


@dataclass(frozen=True)
class Block:
    """A module that is called once in a forward pass.

    Args:
        name: of the module.
        module: itself.
        layers: those that are used in it alone.
        channels: dimension of its output that counts channels.
    """

    name: str
    module: nn.Module
    layers: tuple[Layer, ...]
    channels: int

    def holds(self, parameter: str) -> bool:
        """Whether a tensor of the state dict belongs to the module."""
        return parameter.startswith(f"{self.name}.")


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a block.

    Args:
        args: positional ones.
        kwargs: the others.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(leaf.nbytes for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor))

    def output(self, module: nn.Module) -> Tensor:
        """What the block makes of copies of the arguments, which it may overwrite."""
        args, kwargs = copied((self.args, dict(self.kwargs)))
        with plain_kernels(module):
            return main_tensor(module(*args, **kwargs))


def blocks_of(module: nn.Module, layers: Sequence[Layer], batch: Batch) -> list[Block]:
    """The blocks in the order in which they are called; runs one batch. Empty if there are fewer than two."""
    names = {id(child): name for name, child in module.named_modules()}
    chosen = {id(child): child for child in _candidates(module, layers, names)}
    called: list[int] = []
    tensors: dict[int, Tensor | None] = {}

    def note(child: nn.Module, _: Any, output: Any) -> None:
        called.append(id(child))
        tensors[id(child)] = _first(output)

    if len(chosen) > 1:
        with hooked([child.register_forward_hook(note) for child in chosen.values()]), plain_kernels(module):
            forward(module, batch)
    once = [(key, tensor) for key in called if called.count(key) == 1 and (tensor := tensors[key]) is not None]
    made = [_block(names[key], chosen[key], layers, tensor) for key, tensor in once]
    made = [block for block in made if block.layers]
    return made if len(made) > 1 else []


def main_tensor(output: Any) -> Tensor:
    """The first floating-point tensor in what a block returned.

    Raises:
        DataError: if there is none.
    """
    found = _first(output)
    if found is None:
        raise DataError("a block returned no floating-point tensor")
    return found


def call_of(module: nn.Module, block: Block, batch: Batch) -> Call:
    """The arguments that a block gets in a forward pass, which ends there."""
    found: list[Call] = []

    def take(_: nn.Module, args: Any, kwargs: Any) -> None:
        found.append(Call(*copied((args, kwargs))))
        raise _EnoughError("the block is reached")

    with hooked([block.module.register_forward_pre_hook(take, with_kwargs=True)]):
        _until_enough(module, batch)
    return found[0]


def output_of(module: nn.Module, block: Block, batch: Batch) -> Tensor:
    """The main tensor of what a block returns in a forward pass, which ends there."""
    return main_tensor(whole_output_of(module, block, batch))


def whole_output_of(module: nn.Module, block: Block, batch: Batch) -> Any:
    """What a block returns in a forward pass, which ends there; tensors are copies."""
    found: list[Any] = []

    def take(_: nn.Module, __: Any, output: Any) -> None:
        found.append(copied(output))
        raise _EnoughError("the block is done")

    with hooked([block.module.register_forward_hook(take)]):
        _until_enough(module, batch)
    return found[0]


class _EnoughError(MpqError):
    """Ends a forward pass."""


def _until_enough(module: nn.Module, batch: Batch) -> None:
    try:
        with plain_kernels(module):
            forward(module, batch)
    except _EnoughError:
        return
    raise DataError("a block that one batch reached is not called with another")


def _candidates(module: nn.Module, layers: Sequence[Layer], names: Mapping[int, str]) -> Iterator[nn.Module]:
    """Children of containers that hold layers, the outermost ones of no more than half of all layers."""
    listing = isinstance(module, _CONTAINERS) or _is_never_called(module)
    for child in module.children():
        held = _inside(names[id(child)], layers)
        if not held:
            continue
        if listing and 2 * len(held) <= len(layers) and not _is_never_called(child):
            yield child
        else:
            yield from _candidates(child, layers, names)


def _is_never_called(module: nn.Module) -> bool:
    """Whether a module only holds others."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict)) or type(module) is nn.Module


def _inside(name: str, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers that belong only to the module called `name`; the layers of a plan do not say where they are used."""
    return tuple(
        layer
        for layer in layers
        if all(f"{consumer}.".startswith(f"{name}.") for consumer in layer.consumers)
        and all(parameter.startswith(f"{name}.") for parameter in layer.parameters)
    )


def _block(name: str, module: nn.Module, layers: Sequence[Layer], output: Tensor) -> Block:
    held = _inside(name, layers)
    convolutional = any(len(layer.shape) == output.ndim > 2 for layer in held)
    return Block(name, module, held, 1 if convolutional else output.ndim - 1)


def _first(output: Any) -> Tensor | None:
    return next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
