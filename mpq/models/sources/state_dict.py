"""State dicts: making the module that they fit, and loading them into it strictly."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mpq.errors import ModelError, UsageError

State = Mapping[str, Tensor]
_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile
_SHOWN = 4
_DEPTH = 3
_BY_FILE: ContextVar[bool] = ContextVar("_BY_FILE", default=False)


def find_state(content: object, depth: int = _DEPTH) -> State | None:
    """The state dict in what torch.load gave: the thing itself, or under a usual key of a checkpoint; None when there is none."""
    if not isinstance(content, Mapping) or not depth:
        return None
    if content and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return content
    found = (find_state(content[key], depth - 1) for key in _NESTED if key in content)
    return next((state for state in found if state is not None), None)


def build_module(state: State, *, factory: str | None, path: Path) -> nn.Module:
    """The module that `factory` makes, holding `state` in the dtypes of the checkpoint, in eval mode.

    Raises:
        UsageError: if `factory` cannot be imported or called.
        ModelError: if there is no factory, or names or shapes do not fit.
    """
    if factory is None:
        raise ModelError(f"{path} holds weights without a module: add --model package.module:callable, which makes the module")
    module = make_module(factory)
    tensors = _strip_prefixes(state, module)
    _check_fit(tensors, module, f"{path} does not fit the module of {factory}")
    _adopt_dtypes(tensors, module)
    module.load_state_dict(tensors, strict=False)  # names were checked, and tied ones may be missing
    return module.eval()


def make_module(factory: str) -> nn.Module:
    """What "package.module:callable" returns; modules of the current directory can be imported.

    Raises:
        UsageError: if it is not of that form, cannot be imported or called, or does not return a module.
    """
    try:
        with working_directory_importable():
            module = named(factory, option="--model")()
    except UsageError:
        raise
    except Exception as error:  # the user's own code, which may fail in any way
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"--model {factory} failed with {type(error).__name__}: {reason}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"--model {factory} returned {type(module).__name__}: it must return a torch.nn.Module")
    return module


def named(text: str, *, option: str) -> Any:
    """What "package.module:name" stands for. Importing may raise whatever that module raises.

    Raises:
        UsageError: if `text` is not of that form.
    """
    name, _, attribute = text.partition(":")
    if not name or not attribute:
        raise UsageError(f"'{text}' does not name a callable: write {option} package.module:callable")
    target: Any = importlib.import_module(name)
    for part in attribute.split("."):
        target = getattr(target, part)
    return target


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Imports find modules of the current directory: before all others, or after them where a file named the code."""
    here = str(Path.cwd())
    before = list(sys.path)
    sys.path.insert(len(before) if _BY_FILE.get() else 0, here)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def code_named_by_file() -> Iterator[None]:
    """What is imported meanwhile was named by a file that the user trusts, not by the user."""
    token = _BY_FILE.set(True)
    try:
        yield
    finally:
        _BY_FILE.reset(token)


def _strip_prefixes(state: State, module: nn.Module) -> dict[str, Tensor]:
    """`state` without a prefix that all its names share and the module's names do not."""
    own = set(module.state_dict())
    tensors = dict(state)
    while not own & set(tensors):
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _check_fit(tensors: State, module: nn.Module, complaint: str) -> None:
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    given = {_storage(own[name]) for name in tensors if name in own}
    missing = [name for name in own if name not in tensors and _storage(own[name]) not in given]
    unexpected = [name for name in tensors if name not in own]
    problems = [f"{word}: {_listed(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names]
    if problems:
        raise ModelError(f"{complaint}: {'; '.join(problems)}; give the factory that made this checkpoint")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{list(tensor.shape)} in the file and {list(own[name].shape)} in the module"
            raise ModelError(f"{complaint}: '{name}' is {shapes}; give the factory that made this checkpoint")


def _adopt_dtypes(tensors: State, module: nn.Module) -> None:
    """Give the module the checkpoint's floating dtypes, in place; tied parameters stay tied."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        module.to(dtypes.pop())  # computed buffers too, as they were when the model was cast
        return
    for name, own in [*module.named_parameters(), *module.named_buffers()]:
        if name in tensors and own.is_floating_point() and own.dtype != tensors[name].dtype:
            own.data = own.data.to(tensors[name].dtype)


def _storage(tensor: Tensor) -> object:
    return id(tensor) if tensor.is_meta or not tensor.numel() else (tensor.data_ptr(), tensor.shape)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
