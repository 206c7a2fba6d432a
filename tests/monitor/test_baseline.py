import pytest

from mpq.calibration.baseline import sketched
from mpq.data.batch import Batch
from mpq.errors import UsageError
from mpq.monitor.baseline import baseline_of
from tests.monitor.conftest import data, model


def test_a_module_is_sketched_as_it_is() -> None:
    batches = [Batch((x,)) for x in data(0, calls=4)]
    assert baseline_of(model(), batches, ["2"]) == sketched(model(), batches, ["2"])


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(UsageError, match="str"):
        baseline_of("model", [])
