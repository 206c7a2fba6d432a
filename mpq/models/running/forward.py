"""One call of the model: the floating-point tensors that it returns, in a fixed order."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import DataError, ModelError, MpqError
from mpq.models.memory.devices import device_of, moved
from mpq.models.running.habits import minded
from mpq.models.running.sample_lists import stacked, without_place
from mpq.shown import first_line, listed

MAIN_OUTPUTS = ("logits", "last_hidden_state")
_SHOWN = 4
_CACHES = ("past_key_values", "cache_params", "mems")


class Outputs(tuple[Tensor, ...]):
    """A model's floating-point outputs in their own order, with their names.

    Attributes:
        names: the path of each output in the returned value: "logits", "0", "boxes.1"; "output" for a single tensor.
        complex: names of complex outputs; real and imaginary parts are along an additional last dimension.
        whole_numbers: names of tensors that are not among the outputs because they are integers or booleans.
    """

    names: tuple[str, ...]
    complex: tuple[str, ...] = ()
    whole_numbers: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Tensor]) -> Outputs:
        """Outputs from tensors by name."""
        made = cls(found.values())
        made.names = tuple(found)
        return made

    def detached(self) -> Outputs:
        """The same values without gradients."""
        made = Outputs.of({name: tensor.detach() for name, tensor in zip(self.names, self, strict=True)})
        made.complex, made.whole_numbers = self.complex, self.whole_numbers
        return made


def named(outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Outputs by name; those of a plain sequence are named by position, a single one "output"."""
    places = ("output",) if len(outputs) == 1 else tuple(map(str, range(len(outputs))))
    names = outputs.names if isinstance(outputs, Outputs) else places
    return dict(zip(names, outputs, strict=True))


def forward(module: nn.Module, batch: Batch, *, gradients: bool = False) -> Outputs:
    """The floating-point outputs of `module` for `batch`, without gradients unless requested.

    The samples are in the leading dimension, whatever the model's own axis. Tuples, lists, mappings and dataclasses are traversed in order;
    caches are neither requested nor returned. The caller decides which outputs count (`models/running/comparison.py`).

    Raises:
        DataError: if the module does not accept the batch; the message names the given dtypes and shapes.
        ModelError: if no output is a floating-point tensor.
    """
    with plain_attention():
        found = outputs_of(call(module, batch, gradients=gradients), batch)
    return found if gradients else found.detached()  # an output may be a parameter


@contextmanager
def plain_attention() -> Iterator[None]:
    """Disables the fast path of `nn.TransformerEncoder`, which packs padded batches so that operators cannot be watched or replayed."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def outputs_of(result: Any, batch: Batch) -> Outputs:
    """The floating-point tensors in the value that a model returned for `batch`, like `forward`.

    The samples are in the leading dimension, whatever the model's own axis; a batch that is one sample gets a leading dimension of one.
    Complex numbers become pairs of real ones; sparse and nested tensors become dense.

    Raises:
        ModelError: if there is none.
    """
    tensors = {name or "output": tensor for name, tensor in _tensors(result, "")}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()}
    if not floats:
        raise ModelError("the model returns no floating-point tensor, so no error can be measured: wrap it to return its scores")
    found = stacked(floats, batch.listed, batch.size)
    made = Outputs.of({name: _by_sample(name, _real(tensor), batch) for name, tensor in found.items()})
    made.complex = tuple(name for name, tensor in found.items() if tensor.is_complex())
    made.whole_numbers = tuple(dict.fromkeys(without_place(name, batch.listed)[0] for name in tensors if name not in floats))
    return made


def _real(output: Tensor) -> Tensor:
    """The same values as one dense tensor of real numbers; rows of a nested tensor are padded with zeros."""
    if output.is_nested:
        output = torch.nested.to_padded_tensor(output, 0.0)
    elif output.layout != torch.strided:
        output = output.to_dense()
    return torch.view_as_real(output) if output.is_complex() else output


def _by_sample(name: str, output: Tensor, batch: Batch) -> Tensor:
    if batch.whole:
        return output.unsqueeze(0)
    if name in batch.output_axes:
        return output.movedim(batch.output_axes[name], 0)
    rows = batch.axis and output.ndim > batch.axis and output.shape[batch.axis] == batch.size
    return output.movedim(batch.axis, 0) if rows else output


def call(module: nn.Module, batch: Batch, *, gradients: bool = False) -> Any:
    """The unchanged value that `module` returns for `batch`, without gradients unless requested.

    Raises:
        DataError: if the module does not accept the batch; the message names the given dtypes and shapes.
    """
    with minded(module, batch) as given, call_errors(batch), torch.set_grad_enabled(gradients):
        args, kwargs = moved((given.args, dict(given.kwargs)), device_of(module))
        if "use_cache" in accepted(module):
            kwargs.setdefault("use_cache", False)
        return module(*args, **kwargs)


@contextmanager
def call_errors(batch: Batch) -> Iterator[None]:
    """Turns any error of a model within the `with` into a DataError that describes the batch."""
    try:
        yield
    except MpqError:
        raise
    except Exception as error:
        raise DataError(f"the model does not accept a batch of {described(batch)}: {first_line(error)}") from error


def main_output(outputs: Any) -> tuple[str | None, Any]:
    """The main field, by name and value, or None and all of `outputs` if there is no main field."""
    fields = _fields(outputs) or {}
    name = next((name for name in MAIN_OUTPUTS if isinstance(fields.get(name), Tensor)), None)
    return (None, outputs) if name is None else (name, fields[name])


def described(batch: Batch) -> str:
    """The dtypes and shapes of a batch, for messages: "float32 [2, 1, 8, 8], attention_mask: int64 [2, 5]"."""
    parts = [_described(value) for value in batch.args]
    parts += [f"{name}: {_described(value)}" for name, value in batch.kwargs.items()]
    return listed(parts, _SHOWN)


def accepted(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The parameters of the module's forward by name; empty for compiled forwards, which have no signature."""
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}


def inputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The inputs of a call as `mpq analyze --calib` reads them: a tuple, or a dict of all by name where some were passed by name.

    None if positional inputs cannot be named.
    """
    if not kwargs:
        return args
    names = [name for name, each in accepted(module).items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    return None if len(names) < len(args) else dict(zip(names, args, strict=False)) | dict(kwargs)


def _fields(value: Any) -> dict[str, Any] | None:
    if isinstance(value, Mapping):
        return {str(name): field for name, field in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return None


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `value` with its path."""
    if isinstance(value, Tensor):
        yield path, value
        return
    fields = _fields(value)
    if fields is None and isinstance(value, (list, tuple)):
        fields = {str(place): item for place, item in enumerate(value)}
    for name, item in (fields or {}).items():
        if name not in _CACHES:
            yield from _tensors(item, f"{path}.{name}" if path else name)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(_described(item) for item in value)})"
    return repr(value)
