"""ONNX Runtime sessions as modules, so that their inputs and outputs can be watched. Layers inside a session cannot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpq.errors import UsageError


class Session(nn.Module):
    """An `onnxruntime.InferenceSession` whose calls go through this module, so that hooks on it see them.

    Args:
        session: stays as it is until `attach`.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session, self._run = session, session.run
        self._names = [each.name for each in session.get_inputs()]
        self._now = threading.local()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """Run the session: tensors in the order of its inputs, or by name. Returns its outputs by name, if they are numbers."""
        feeds = {name: tensor.detach().cpu().numpy() for name, tensor in [*zip(self._names, args, strict=False), *kwargs.items()]}
        names, options = getattr(self._now, "asked", (None, None))
        found = self._run(names, feeds, options)
        self._now.found = found
        known = names or [each.name for each in self._session.get_outputs()]
        return {name: torch.from_numpy(value) for name, value in zip(known, found, strict=True) if _is_numeric(value)}

    def attach(self) -> None:
        """From now on, calls of `session.run` go through this module.

        Raises:
            UsageError: if they already go through another one.
        """
        if isinstance(getattr(vars(self._session).get("run"), "__self__", None), Session):
            raise UsageError("this session is already watched: close its monitor first")
        self._session.run = self._through

    def remove(self) -> None:
        """Give the session its own `run` back."""
        vars(self._session).pop("run", None)

    def _through(self, output_names: Any, input_feed: Mapping[str, Any], run_options: Any = None) -> Any:
        arrays = {name: np.asarray(value) for name, value in input_feed.items()}
        if not all(_is_numeric(value) for value in arrays.values()):
            return self._run(output_names, input_feed, run_options)
        self._now.asked = (output_names, run_options)
        try:
            self(**{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()})
            return self._now.found
        finally:
            del self._now.asked


def as_module(model: Any) -> nn.Module:
    """The model itself, or a module around an ONNX Runtime session.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(model, nn.Module):
        return model
    if hasattr(model, "run") and hasattr(model, "get_inputs"):
        return Session(model)
    raise UsageError(f"a {type(model).__name__} cannot be watched: give an nn.Module or an onnxruntime.InferenceSession")


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype not in (np.uint16, np.uint32, np.uint64)
