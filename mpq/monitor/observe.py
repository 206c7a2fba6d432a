"""Sketches of one call: the inputs of the model and its layers, and the output, with the certainty of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.errors import UsageError
from mpq.models.running.forward import main_output
from mpq.monitor.sketch import Sketch

INPUT, OUTPUT, ENTROPY, MARGIN = "input", "output", "output entropy", "output margin"
_ROWS = 1024  # rows of an output for which entropy and margin are computed


class Observer:
    """Adds observed tensors to `sketches`.

    Args:
        module: the model.
        layers: names of its modules whose inputs are watched; unknown names are ignored.

    Raises:
        UsageError: if there are such modules in a TorchScript program, which calls no hooks inside.
    """

    def __init__(self, module: nn.Module, layers: Iterable[str] = ()) -> None:
        known = dict(module.named_modules())
        self._watched = {name: known[name] for name in layers if name in known and name}
        if self._watched and isinstance(module, torch.jit.ScriptModule):
            raise UsageError("layers inside a TorchScript program cannot be watched: leave `layers` out, or load the model as a module")
        self.sketches: dict[str, Sketch] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within the `with`, hooks on the watched modules."""
        handles = self.attach()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def attach(self) -> list[Any]:
        """Attach hooks to the watched modules; the caller removes them."""
        return [
            module.register_forward_pre_hook(lambda _, args, name=name: self._add(f"{name}.input", args))
            for name, module in self._watched.items()
        ]

    def see(self, inputs: Any, result: Any) -> None:
        """Add the inputs of the model and its main output."""
        self._add(INPUT, inputs)
        output = _first_float(main_output(result)[1])
        if output is None:
            return
        self._sketch(OUTPUT).add(output)
        if output.ndim > 1 and output.shape[-1] > 1:
            rows = output.detach().reshape(-1, output.shape[-1])
            rows = rows[:: -(-len(rows) // _ROWS)].float()
            chances = rows.log_softmax(-1)
            best = chances.exp().topk(2, dim=-1).values
            self._sketch(ENTROPY).add(-(chances.exp() * chances.nan_to_num(neginf=0.0)).sum(-1))
            self._sketch(MARGIN).add(best[:, 0] - best[:, 1])

    def _add(self, name: str, values: Any) -> None:
        tensor = _first_float(values)
        if tensor is not None:
            self._sketch(name).add(tensor)

    def _sketch(self, name: str) -> Sketch:
        return self.sketches.setdefault(name, Sketch())


def _first_float(values: Any) -> Tensor | None:
    return next((leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor) and torch.is_floating_point(leaf)), None)
