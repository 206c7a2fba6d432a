import json
from typing import Any

import msgspec
import numpy as np

from mpq.records.sketch import BINS, Sketch, SketchFacts, add_to, sketch_in


def sketched(*arrays: Any) -> Sketch:
    found = Sketch()
    for array in arrays:
        found.add(np.asarray(array, dtype=np.float32))
    return found


def normal(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=4000)


def test_values_are_counted_by_sign_and_magnitude() -> None:
    found = sketched([1.0, 1.49, 1.5, 2.0, 3.0, -1.0, -3.0, 0.0, -0.0, 1e-9, -1e-40, 1e9, 2.0**-16, np.nan, -np.nan, -np.inf, np.inf])
    middle = BINS // 2
    counts = {place - middle: int(count) for place, count in enumerate(found.counts) if count}
    assert counts == {-36: 1, -33: 1, 0: 4, 1: 1, 33: 2, 34: 1, 35: 1, 36: 1, 64: 1}
    assert (found.values, found.not_finite, found.samples) == (13, 4, 1)
    assert (found.minimum, found.maximum) == (-3.0, 1e9)


def test_a_record_reads_back_and_takes_less_than_a_kilobyte() -> None:
    found = sketched(*(normal(seed) for seed in range(50)))
    text = json.dumps(found.to_dict())
    assert sketch_in(msgspec.json.decode(text, type=SketchFacts)) == found
    assert len(text) < 1000
    assert sketch_in(msgspec.convert(Sketch().to_dict(), SketchFacts)) == Sketch()


def test_values_beyond_a_range_are_a_share() -> None:
    seen = sketched([-1.0, 0.5, 3.0])
    assert sketched([1.0, 2.0, 8.0, -8.0]).beyond(seen) == 0.5
    assert sketched([1.0]).beyond(Sketch()) == 0.0


def test_two_sketches_join() -> None:
    first, second = normal(0), 3 * normal(1)
    assert sketched(first).merged(sketched(second)) == sketched(first, second)


def test_several_sketches_at_once_are_as_one_by_one() -> None:
    arrays = [np.asarray(values, dtype=np.float32) for values in (normal(0), [], [np.nan, 1.0, -np.inf], normal(1)[:7])]
    together = [Sketch() for _ in arrays]
    for _ in range(2):
        add_to(together, arrays, samples=3)
    alone = [Sketch() for _ in arrays]
    for sketch, values in zip(alone, arrays, strict=True):
        sketch.add(values, samples=3)
        sketch.add(values, samples=3)
    assert together == alone
    assert (together[2].minimum, together[2].maximum, together[2].not_finite, together[2].samples) == (1.0, 1.0, 4, 6)
    assert [sketch.values for sketch in together] == [8000, 0, 2, 14]
