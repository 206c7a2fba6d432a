import pytest

from mpq.errors import UsageError
from mpq.export.registry import PROGRAMS as OF_TARGET
from mpq.verify.programs.base import imported
from mpq.verify.programs.registry import PROGRAMS


def test_a_missing_package_is_one_line_with_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"^nothing_of_the_kind is not installed here: pip install 'mpq-torch\[onnx\]'$"):
        imported("nothing_of_the_kind.inner", "mpq-torch[onnx]")


@pytest.mark.parametrize("target", list(OF_TARGET))
def test_every_target_with_weights_has_its_program(target: str) -> None:
    assert target in PROGRAMS.kind(OF_TARGET[target]).targets
