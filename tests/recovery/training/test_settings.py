import pytest

from mpq.errors import UsageError
from mpq.recovery.training.settings import TrainSettings, level_for
from tests.small import schemes


@pytest.mark.parametrize(
    ("texts", "level", "fewest"),
    [(("int4", "int8"), "codes", "4"), (("int3",), "codes", "3"), (("int2", "int8"), "weights", "2"), (("int1",), "weights", "1")],
)
def test_the_level_follows_from_the_fewest_bits(texts: tuple[str, ...], level: str, fewest: str) -> None:
    assert level_for(schemes(*texts)) == (level, f"the fewest bits of a layer are {fewest}")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"level": "all"}, "'all' is not a level: give one of scales, codes, weights"),
        ({"epochs": 0}, "0 epochs is not a training length: give 1 or more"),
        ({"minutes": 0.0}, "0 minutes is not a training time: give a positive number"),
        ({"minutes": float("inf")}, "inf minutes is not a training time"),
        ({"rate": -1.0}, "a rate of -1 trains nothing"),
    ],
)
def test_what_trains_nothing_is_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainSettings(**({"level": "codes"} | choices))  # type: ignore[arg-type]


def test_levels_say_whose_codes_move() -> None:
    assert [TrainSettings(level).codes for level in ("scales", "codes", "weights")] == ["none", "integers", "all"]


def test_blocks_come_first_unless_only_scales_move_and_take_their_part_of_the_time() -> None:
    assert [TrainSettings(level).by_blocks for level in ("scales", "codes", "weights")] == [False, True, True]
    assert not TrainSettings("codes", blocks=False).by_blocks
    limited = TrainSettings("codes", minutes=10.0)
    assert [limited.after(seconds).minutes for seconds in (0, 180, 9000)] == [10.0, 7.0, 1.0]
    assert TrainSettings("codes").after(60) == TrainSettings("codes")


def test_few_samples_make_small_batches_so_that_there_are_enough_steps() -> None:
    three, six = TrainSettings("codes"), TrainSettings("codes", epochs=6)
    assert [three.size_for(samples, 32) for samples in (100, 2000, 5000, 50_000)] == [4, 6, 15, 32]
    assert [six.size_for(samples, 32) for samples in (100, 2000, 5000)] == [4, 12, 30]
    assert three.size_for(100, 2) == 2
    assert TrainSettings("codes", batch_size=7).size_for(100, 2) == 7
