import pytest

from mpq.errors import UsageError
from mpq.models.layers.discover import discover
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.recovery.base import Limits, Task
from mpq.recovery.passes import planned, rate, schedule
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import data, mlp


def test_work_too_little_for_all_samples_is_spent_on_some() -> None:
    assert schedule(100.0, 168, 1e9, 16) == (16, 168)
    assert schedule(100.0, 168, 16 * 3 * 100.0 * 168, 16) == (16, 168)
    assert schedule(100.0, 168, 5 * 3 * 100.0 * 168, 16) == (5, 168)
    assert schedule(100.0, 168, 2 * 3 * 100.0 * 168, 16) == (4, 84)
    assert schedule(100.0, 4, 4 * 3 * 100.0 * 4, 16) == (4, 4)
    with pytest.raises(UsageError, match=r"^4 passes over 8 samples take 9\.6e\+03 operations, and 9\.5e\+03 are allowed \(--tune-work\)$"):
        schedule(100.0, 168, 9.5e3, 16)


def test_fewer_passes_than_four_where_a_step_makes_fewer() -> None:
    assert schedule(100.0, 168, 3 * 100.0 * 168, 1, least=1) == (1, 168)
    assert schedule(100.0, 168, 3 * 100.0 * 84, 1, least=1) == (1, 84)
    with pytest.raises(UsageError, match=r"^1 pass over 8 samples takes 2\.4e\+03 operations, and 2\.3e\+03 are allowed \(--tune-work\)$"):
        schedule(100.0, 168, 2.3e3, 1, least=1)


def test_other_work_leaves_fewer_passes() -> None:
    assert schedule(100.0, 168, (3 * 8 + 5) * 100.0 * 168, 8, extra=5) == (8, 168)
    assert schedule(100.0, 168, (3 * 6 + 5) * 100.0 * 168, 8, extra=5) == (6, 168)
    assert schedule(100.0, 168, (3 * 4 + 5) * 100.0 * 84, 8, extra=5) == (4, 84)


def test_an_eighth_is_kept_aside_and_a_pass_has_several_steps() -> None:
    module, samples = mlp(), data(64, batch_size=64)
    task = Task(
        Variants(module, discover(module, samples.batches).layers, quantizer_named("rtn")), samples, RelativeMSE(), 0, Limits(1e12, 1)
    )
    passes, used, aside = planned(task, 5)
    assert (passes, used.samples, aside.samples) == (5, 56, 8)
    assert [batch.size for batch in used.batches] == [7] * 8


def test_the_rate_falls_to_zero() -> None:
    assert [rate(0), rate(0.5), rate(1), rate(2)] == pytest.approx([1, 0.5, 0, 0])
