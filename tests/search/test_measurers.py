import numpy as np

from mpq.search.measurers import MeasurerInParts, MeasurerWithSlopes, parts_of
from tests.search.measuring import FakeMeasurer, FakeMeasurerInParts, FakeMeasurerWithSlopes
from tests.small import random_table

TABLE = random_table(0)
PLAN = {name: offered[0] for name, offered in TABLE.header.candidates.items()}


def test_what_a_measurer_can_do_is_seen_by_its_methods() -> None:
    assert isinstance(FakeMeasurerInParts(TABLE), MeasurerInParts)
    assert not isinstance(FakeMeasurer(TABLE), MeasurerInParts)
    assert isinstance(FakeMeasurerWithSlopes(TABLE), MeasurerWithSlopes)
    assert not isinstance(FakeMeasurer(TABLE), MeasurerWithSlopes)


def test_a_measurer_in_parts_gives_its_parts() -> None:
    measurer = FakeMeasurerInParts(TABLE)
    parts = list(parts_of(measurer)(PLAN))
    assert [len(part) for part in parts] == [8, 8, 8]
    assert np.array_equal(np.concatenate(parts), measurer.calibration(PLAN))


def test_any_other_measurer_gives_all_samples_as_one_part() -> None:
    measurer = FakeMeasurer(TABLE)
    (part,) = parts_of(measurer)(PLAN)
    assert np.array_equal(part, measurer.calibration(PLAN))
    assert len(part) == 24
