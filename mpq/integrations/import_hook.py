"""Registers mpq with a program when that program is imported, before or after mpq; it does not import the program itself.

A finder in `sys.meta_path` waits for one module of the program. When that is imported, the finder removes itself, lets the module load as
usual, and then imports mpq's registration module. If the program is already imported, registration happens at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

REGISTRATIONS = {
    "transformers.quantizers.auto": "mpq.integrations.transformers_quantizer",
    "lm_eval.api.registry": "mpq.integrations.lm_eval_registration",
}
"""The module to wait for, and mpq's module that registers with it when imported."""


class _Finder(MetaPathFinder):
    """Waits for one module."""

    def __init__(self, name: str, home: str) -> None:
        self._name, self._home = name, home

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give for the module, extended to register afterwards; None for any other module."""
        if fullname != self._name:
            return None
        with suppress(ValueError):  # another thread was faster
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._home)
        return spec


class _Loader(Loader):
    """Loads the module with its own loader, restores that loader, and then registers."""

    def __init__(self, inner: Loader, home: str) -> None:
        self._inner, self._home = inner, home

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module created by its own loader."""
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register."""
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        _register(module.__name__, self._home)


def install() -> None:
    """Register with every program of `REGISTRATIONS` that is already imported, and with the others when they are imported."""
    for name, home in REGISTRATIONS.items():
        if name in sys.modules:
            _register(name, home)
        else:
            sys.meta_path.insert(0, _Finder(name, home))


def _register(name: str, home: str) -> None:
    """Import the registration module; a failure is only a warning, because it must not break the import of the other program."""
    try:
        import_module(home)
    except (ImportError, AttributeError) as error:
        program = name.partition(".")[0]
        warnings.warn(f"mpq is not registered with this version of {program}: {error}", RuntimeWarning, stacklevel=2)
