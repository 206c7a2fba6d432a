"""An artifact in several safetensors files, read as if it were one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mpq.errors import FormatError
from mpq.formats.scheme import Scheme
from mpq.records.layer import Layer
from mpq.shown import shown


class Files:
    """Several open safetensors files, read like one."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._homes = {name: file for file in files for name in file.keys()}  # noqa: SIM118

    def keys(self) -> list[str]:
        """The names of all tensors."""
        return list(self._homes)

    def get_tensor(self, name: str) -> Any:
        """A tensor."""
        return self._homes[name].get_tensor(name)

    def get_slice(self, name: str) -> Any:
        """A tensor that has not been read yet."""
        return self._homes[name].get_slice(name)


@contextmanager
def unpacking(path: Path, layer: str) -> Iterator[None]:
    """Say of which layer and file the codes are damaged.

    Raises:
        FormatError: instead of one that names neither.
    """
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{path} is damaged (layer {shown(layer)}: {error}): run `mpq apply` again") from error


def parts_in(file: Any, layer: Layer, scheme: Scheme) -> dict[str, Any]:
    """The stored parts of a layer, by the part names of `Scheme.stored`."""
    return {each.part: file.get_tensor(f"{layer.name}.{each.part}") for each in scheme.stored(layer.matrix)}


@contextmanager
def opened(files: Sequence[Path]) -> Iterator[Files]:
    """Several safetensors files as one."""
    with ExitStack() as stack:
        yield Files([stack.enter_context(safe_open(path, framework="pt")) for path in files])
