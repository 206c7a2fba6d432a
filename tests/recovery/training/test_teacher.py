"""How the outputs of the unquantized model are kept."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import DataError
from mpq.models.running.comparison import Comparison, Part
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE
from mpq.models.running.reference import Reference
from mpq.recovery.training import teacher
from mpq.recovery.training.teacher import LikeliestClasses, teacher_for

GIGA = 10**9


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wide(classes: int = 300) -> tuple[nn.Module, Data]:
    torch.manual_seed(0)
    return nn.Linear(4, classes).eval(), data_from_batches([Batch((seeded(8, 4),)), Batch((seeded(8, 4, seed=1),))])


def test_all_classes_give_the_divergence_and_fewer_a_lower_bound() -> None:
    logits, others = seeded(2, 3, 6), seeded(2, 3, 6, seed=1)
    exact = KLDivergence()
    expected = exact.errors(exact.prepare([logits]), [others])
    found = {}
    for count in (2, 4, 5, 6):
        metric = LikeliestClasses(exact, classes=count)
        found[count] = metric.errors(metric.prepare([logits]), [others])
    assert torch.allclose(found[5], expected, atol=1e-6)  # the sixth is the only other class
    assert torch.equal(found[6], found[5])  # one is always left over
    assert bool((found[2] < found[4]).all())
    assert bool((found[4] < expected).all())


def test_two_classes_and_the_rest_by_hand() -> None:
    shares, others = torch.tensor([[0.5, 0.3, 0.1, 0.1]]), torch.tensor([[0.25, 0.25, 0.25, 0.25]])
    metric = LikeliestClasses(KLDivergence(probabilities=True), classes=2)
    prepared = metric.prepare([shares])
    assert metric.kept(prepared) == pytest.approx(0.8)
    expected = 0.5 * torch.tensor(2.0).log() + 0.3 * torch.tensor(1.2).log() + 0.2 * torch.tensor(0.4).log()
    assert float(metric.errors(prepared, [others])) == pytest.approx(float(expected))
    assert float(metric.errors(prepared, [shares])) == pytest.approx(0, abs=1e-7)


def test_padding_does_not_count_and_gradients_are_those_of_the_divergence_with_nearly_all_classes() -> None:
    logits, mask = seeded(2, 3, 5), torch.tensor([[True, True, False], [True, False, False]])
    exact, metric = KLDivergence(), LikeliestClasses(KLDivergence(), classes=4)
    gradients = []
    for each in (exact, metric):
        others = seeded(2, 3, 5, seed=1).requires_grad_()
        errors = each.errors(each.prepare([logits], mask), [others])
        (gradient,) = torch.autograd.grad(errors.sum(), others)
        gradients.append((errors, gradient))
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-6)
    assert float(gradients[1][1][1, 1:].abs().sum()) == 0


def test_a_class_that_the_rest_never_has_gives_finite_gradients() -> None:
    logits, others = torch.tensor([[40.0, 0.0, -60.0]]), torch.zeros(1, 3, requires_grad=True)
    metric = LikeliestClasses(KLDivergence(), classes=1)
    metric.errors(metric.prepare([logits]), [others]).sum().backward()  # type: ignore[no-untyped-call]
    assert others.grad is not None
    assert bool(others.grad.isfinite().all())


def test_outputs_that_fit_stay_in_memory(tmp_path: Path) -> None:
    module, data = wide()
    found = teacher_for(module, data, exact := KLDivergence(), folder=tmp_path / "c")
    assert (found.metric, found.offload, found.note) == (exact, None, "")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("metric", [KLDivergence(), Comparison([Part("output", "kl_divergence")])])
def test_where_memory_is_short_the_likeliest_classes_go_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric) -> None:
    module, data = wide()
    monkeypatch.setattr(teacher, "available_bytes", lambda: 20_000)
    found = teacher_for(module, data, metric, folder=tmp_path / "c")
    assert isinstance(found.metric, LikeliestClasses)
    assert found.offload is not None
    assert found.memory == 10_000
    assert found.note.startswith(
        "the original's outputs on 16 samples would take 1.9e-05 GB of memory, and 1e-05 GB are allowed: they are on disk"
    )
    assert "(8.2e-06 GB), the 64 likeliest of 300 classes of each, with " in found.note
    reference = Reference(module, data, found.metric, cache_bytes=found.memory, offload=found.offload)
    assert float(reference.errors({}).abs().max()) < 1e-6


def test_outputs_without_many_classes_go_to_disk_whole_or_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = wide(classes=20)
    monkeypatch.setattr(teacher, "available_bytes", lambda: 100)
    for metric in (KLDivergence(), RelativeMSE()):
        found = teacher_for(module, data, metric, folder=tmp_path / "c")
        assert found.metric is metric
        assert found.offload is not None
        assert found.note.endswith(" GB)")
        again = teacher_for(module, data, metric, folder=None)
        assert (again.metric, again.offload, again.memory) == (metric, None, 50)


def test_a_disk_without_room_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    def usage(path: Any) -> Usage:
        assert path == tmp_path
        return Usage(1000)

    module, data = wide()
    monkeypatch.setattr(teacher, "available_bytes", lambda: 100)
    monkeypatch.setattr("mpq.recovery.training.teacher.shutil.disk_usage", usage)
    with pytest.raises(
        DataError, match=r"outputs on 16 samples take 8\.2e-06 GB on disk, and 1e-06 GB are free at .*: give fewer with --num-samples$"
    ):
        teacher_for(module, data, KLDivergence(), folder=tmp_path / "a" / "b")
