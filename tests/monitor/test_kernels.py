"""The kernels that ran in a packed model, and injected fallbacks."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import mpq
from mpq.monitor.kernels import Kernels
from mpq.monitor.log import append
from mpq.monitor.values import values
from mpq.monitor.watch import Monitor, monitor
from mpq.records.baseline import Baseline, write_baseline
from mpq.records.monitor_log import Fallback, kernels_line, read_last
from mpq.tensors.kernels import bags, watched
from mpq.tensors.packed import PackedTensor
from tests.apply.making import in_memory, plan_of
from tests.models.small import inputs, mlp

pytestmark = pytest.mark.skipif(not bags.available(), reason="this build of torch has no FBGEMM")
BARE = Baseline({}, {})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    model = in_memory("mlp")
    return mpq.apply(model, plan_of(model, "mlp", ("int4-g8", "int8", "fp32")), tmp_path / "a.mpq.safetensors").path


def watching(module: nn.Module, artifact: Path) -> Monitor:
    write_baseline(BARE, artifact)
    return monitor(module, artifact, sample=1.0)


def test_each_packed_layer_has_the_kernel_that_show_names(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    with watching(module, artifact) as seen, torch.no_grad():
        for _ in range(3):
            module(inputs(1, 8))
        module(inputs(1024, 8))
        assert seen.kernels.by_layer() == {"0": {"bags4": 3, "blocks": 1}, "3": {"bags8": 3, "blocks": 1}}
        assert seen.kernels.fallbacks() == []
        assert [alarm for alarm in seen.alarms() if alarm.kind == "kernel"] == []
        seen.restart()
        assert seen.kernels.by_layer() == {}
    module(inputs(1, 8))
    assert watched.notes == ()


def fallbacks(module: nn.Module, artifact: Path, call: object) -> list[tuple[str, str, str]]:
    with watching(module, artifact) as seen:
        call()  # type: ignore[operator]
        assert {alarm.name for alarm in seen.alarms() if alarm.kind == "kernel"} <= {each.layer for each in seen.kernels.fallbacks()}
        return [(each.layer, each.ran, each.expected) for each in seen.kernels.fallbacks()]


def test_autocast_and_gradients_are_seen_as_fallbacks(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)

    def under_autocast() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            module(inputs(1, 8))

    expected = [("0", "dequantize", "bags4"), ("3", "dequantize", "bags8")]
    assert fallbacks(module, artifact, under_autocast) == expected
    assert fallbacks(module, artifact, lambda: module(inputs(1, 8).requires_grad_())) == expected


def test_a_layer_that_is_not_packed_is_named(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    layer = module.get_submodule("3")
    packed = layer.weight
    assert isinstance(packed, PackedTensor)
    layer.weight = nn.Parameter(packed.dequantize())
    with torch.no_grad():
        assert fallbacks(module, artifact, lambda: module(inputs(1, 8))) == [("3", "dense", "bags8")]


def test_without_an_artifact_packed_layers_are_still_seen(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    with monitor(module, BARE, sample=1.0) as seen, torch.no_grad():
        module(inputs(1, 8))
        assert seen.kernels.by_layer() == {"0": {"bags4": 1}, "3": {"bags8": 1}}


def test_nothing_is_known_of_a_model_that_is_not_packed(artifact: Path, tmp_path: Path) -> None:
    module = mpq.load(artifact, mlp())
    with watching(module, artifact) as seen, torch.no_grad():
        module(inputs(1, 8))
        assert not seen.kernels.known
        assert seen.kernels.by_layer() is None
        append(seen, tmp_path / "log.jsonl")
    line = read_last(tmp_path / "log.jsonl")
    assert (line.kernels, line.fallbacks) == (None, [])
    assert kernels_line(line) == "which kernels ran is not known, because no layer is packed"


def test_only_sampled_calls_are_counted(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    with monitor(module, BARE, sample=0.2, seed=3) as seen, torch.no_grad():
        for _ in range(100):
            module(inputs(1, 8))
        assert 0 < seen.sampled < 60
        assert seen.kernels.by_layer() == {"0": {"bags4": seen.sampled}, "3": {"bags8": seen.sampled}}


def test_the_log_and_the_metrics_name_kernels_and_fallbacks(artifact: Path, tmp_path: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    with monitor(module, BARE, sample=1.0) as seen, torch.no_grad():
        module(inputs(1, 8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(inputs(1, 8))
        points = {(point.name, *sorted(point.labels.items())): point.value for point in values(seen) if "_kernel_" in point.name}
        append(seen, tmp_path / "log.jsonl")
    assert points["mpq_kernel_runs", ("kernel", "dequantize")] == 2
    assert points["mpq_kernel_runs", ("kernel", "bags4")] == points["mpq_kernel_runs", ("kernel", "bags8")] == 1
    assert points["mpq_kernel_fallbacks", ("expected", "bags4"), ("kernel", "dequantize"), ("layer", "0")] == 1
    line = read_last(tmp_path / "log.jsonl")
    assert line.kernels == {"0": {"bags4": 1, "dequantize": 1}, "3": {"bags8": 1, "dequantize": 1}}
    assert line.fallbacks == [Fallback("0", "dequantize", "bags4", 1), Fallback("3", "dequantize", "bags8", 1)]
    assert kernels_line(line) == "kernels that ran: bags4 1 times, bags8 1 times, dequantize 2 times"
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["fallbacks"][0]["ran"] == "dequantize"


def test_a_model_that_is_moved_after_the_monitor_began_is_found_again(artifact: Path) -> None:
    module = mpq.load(artifact, mlp(), packed=True)
    kernels = Kernels(module, None)
    module.to(torch.bfloat16)
    watch = kernels.attach()
    with torch.no_grad():
        module(inputs(1, 8).bfloat16())
    watch.remove()
    assert set(kernels.by_layer() or {}) == {"0", "3"}
    assert kernels.fallbacks() == []
