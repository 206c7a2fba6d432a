import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest

from mpq.errors import UsageError
from mpq.export.registry import PROGRAMS as OF_TARGET
from mpq.verify.programs.base import imported
from mpq.verify.programs.registry import PROGRAMS
from mpq.verify.programs.torch import Torch


def test_a_missing_package_is_one_line_with_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"^nothing_of_the_kind is not installed here: pip install 'mpq-torch\[onnx\]'$"):
        imported("nothing_of_the_kind.inner", "mpq-torch[onnx]")


def test_the_version_is_that_of_the_package_that_has_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Yaml(Torch):
        packages = (("yaml", "pyyaml"),)

    class Odd(Torch):
        packages = (("odd_module", "odd-package"),)

    assert Yaml().check_installed() == version("pyyaml")
    with monkeypatch.context() as patch:
        patch.setitem(imported.__globals__, "packages_distributions", dict)  # not needed under its own name
        assert Torch().check_installed() == version("torch")
    module: Any = ModuleType("odd_module")
    monkeypatch.setitem(sys.modules, "odd_module", module)
    assert Odd().check_installed() == ""
    module.__version__ = "1.2"
    assert Odd().check_installed() == "1.2"


@pytest.mark.parametrize("target", list(OF_TARGET))
def test_every_target_with_weights_has_its_program(target: str) -> None:
    assert target in PROGRAMS.kind(OF_TARGET[target]).targets
