import random

from mpq.monitor.reservoir import Reservoir


def test_every_item_has_the_same_chance_and_memory_is_constant() -> None:
    counts = [0] * 20
    for seed in range(2000):
        kept: Reservoir[int] = Reservoir(5, random.Random(seed))
        for item in range(20):
            if (place := kept.next_place()) is not None:
                kept.put(place, item)
        assert len(kept.items) == len(set(kept.items)) == 5
        for item in kept.items:
            counts[item] += 1
    assert 400 < min(counts) <= max(counts) < 600


def test_it_starts_again_and_may_keep_nothing() -> None:
    kept: Reservoir[str] = Reservoir(1, random.Random(0))
    place = kept.next_place()
    assert place == 0
    kept.put(place, "first")
    kept.clear()
    assert kept.items == []
    assert kept.next_place() == 0
    assert Reservoir(0, random.Random(0)).next_place() is None
