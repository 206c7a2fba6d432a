"""Registers mpq with a program when that program is imported, whichever of the two comes first, and imports neither by itself.

A finder waits in `sys.meta_path` for one module of the program. When that is imported, the finder leaves, has the module made as ever, and
then imports the module of mpq that registers itself. With a program that is there already it is imported at once.
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
        """The spec that the other finders have for the module, registering afterwards; None for any other module."""
        if fullname != self._name:
            return None
        with suppress(ValueError):  # another thread was faster
            sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._home)
        return spec


class _Loader(Loader):
    """Makes the module like its own loader, which the module has afterwards, and then registers."""

    def __init__(self, inner: Loader, home: str) -> None:
        self._inner, self._home = inner, home

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module that the own loader makes."""
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register."""
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        _register(module.__name__, self._home)


def install() -> None:
    """Register with every program of `REGISTRATIONS` that is imported already, and with the others when they are."""
    for name, home in REGISTRATIONS.items():
        if name in sys.modules:
            _register(name, home)
        else:
            sys.meta_path.insert(0, _Finder(name, home))


def _register(name: str, home: str) -> None:
    """Import what registers itself; a failure is a warning, for it must not break the import of the other program."""
    try:
        import_module(home)
    except (ImportError, AttributeError) as error:
        program = name.partition(".")[0]
        warnings.warn(f"mpq is not registered with this version of {program}: {error}", RuntimeWarning, stacklevel=2)
