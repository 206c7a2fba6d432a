import pytest

from mpq.errors import UsageError
from mpq.models.layers.discover import discover
from mpq.recovery.base import Limits
from mpq.recovery.cost import forward_operations
from mpq.recovery.samples import recovery_samples
from tests.models.inputs.test_own_text import windows, writer
from tests.models.small import data, mlp


def test_missing_text_is_written_within_a_quarter_of_the_work() -> None:
    module, given = writer(), windows(4)
    layers = discover(module, given.batches[:1]).layers
    work = 4 * 10.5 * forward_operations(module, layers, given)
    found, line = recovery_samples(module, layers, given, Limits(work, 1), windows=None, seed=0)
    assert found.samples == 4 + 10
    assert line == "recovery uses the 4 calibration windows and 10 more that the model wrote itself"
    assert recovery_samples(module, layers, given, Limits(work / 100, 1), windows=None, seed=0) == (given, None)


def test_a_number_is_taken_as_it_is() -> None:
    module, given = writer(), windows(4)
    layers = discover(module, given.batches[:1]).layers
    found, _ = recovery_samples(module, layers, given, Limits(1.0, 1), windows=3, seed=0)
    assert found.samples == 7
    assert recovery_samples(module, layers, given, Limits(1.0, 1), windows=0, seed=0) == (given, None)


def test_models_without_text_keep_their_samples_and_refuse_a_number() -> None:
    module, given = mlp(), data(8)
    layers = discover(module, given.batches[:1]).layers
    assert recovery_samples(module, layers, given, Limits(1e12, 1), windows=None, seed=0) == (given, None)
    with pytest.raises(UsageError, match=r"^--own-text 5 needs a language model that decodes with a cache, and calibration windows of"):
        recovery_samples(module, layers, given, Limits(1e12, 1), windows=5, seed=0)
    with pytest.raises(UsageError, match=r"^-1 is not a number of windows: give 0 \(none\) or more$"):
        recovery_samples(module, layers, given, Limits(1e12, 1), windows=-1, seed=0)
