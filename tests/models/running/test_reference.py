import copy

import pytest
import torch
from torch import nn

from mpq.errors import NumericsError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.running.comparison import metric_named
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.reference import Reference
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.models.small import bits, data, inputs, mlp

METRIC, INT4 = metric_named("relative_mse"), parse_scheme("int4")


def test_errors_are_those_of_a_changed_copy_sample_by_sample() -> None:
    module, samples = mlp(), data(20)
    weights = {"3.weight": torch.ones(12, 16), "5.weight": torch.zeros(4, 12)}
    changed = copy.deepcopy(module)
    with torch.no_grad():
        for name, value in weights.items():
            changed.get_parameter(name).copy_(value)
        expected = [METRIC.errors(METRIC.prepare([module(*b.args)]), [changed(*b.args)]) for b in samples.batches]
    assert torch.equal(Reference(module, samples, METRIC).errors(weights), torch.cat(expected))


def test_the_module_is_as_it_was_between_measurements() -> None:
    module = mlp()
    before = bits(module)
    reference = Reference(module, data(), METRIC)
    reference.errors({"3.weight": torch.ones(12, 16)})
    assert bits(module) == before
    assert not reference.errors({}).any()


def test_the_reference_runs_once_per_batch_when_there_is_memory_and_again_when_there_is_none() -> None:
    weights = {"3.weight": torch.ones(12, 16)}
    rich, poor = (Reference(mlp(), data(24), METRIC, cache_bytes=size) for size in (1 << 20, 200))
    assert (rich.forwards, poor.forwards) == (3, 3)
    assert torch.equal(rich.errors(weights), poor.errors(weights))
    assert (rich.forwards, poor.forwards) == (6, 8)


@pytest.mark.parametrize(("cache_bytes", "times"), [(1 << 20, 1), (300, 2), (0, 3)])
def test_a_plan_is_made_of_its_codes_once_for_all_batches_whose_reference_is_kept(
    cache_bytes: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, module, samples = list[str](), mlp(), data(24)
    variants = Variants(module, discover(module, samples.batches).layers, RoundToNearest(), cache_bytes=0)
    reference, quantized = Reference(module, samples, METRIC, cache_bytes=cache_bytes), variants.quantized
    weights, before = variants.weights({"0": INT4, "5": INT4}), bits(module)

    def counted(name: str, scheme: Scheme) -> QuantizedWeight:
        made.append(name)
        return quantized(name, scheme)

    monkeypatch.setattr(variants, "quantized", counted)
    found = reference.errors(weights)
    assert made == ["0", "5"] * times
    assert (found.tolist(), bits(module)) == (torch.cat([reference.batch_errors(index, weights) for index in range(3)]).tolist(), before)


def test_the_module_is_as_it_was_when_parts_are_closed() -> None:
    module = mlp()
    before = bits(module)
    parts = Reference(module, data(24), METRIC).parts({"3.weight": torch.ones(12, 16)})
    assert len(next(parts)) == 8
    assert bits(module) != before
    parts.close()
    assert bits(module) == before


def test_an_output_that_is_not_finite_is_nan() -> None:
    found = Reference(mlp(), data(), METRIC).errors({"5.weight": torch.full((4, 12), 3e38)})
    assert found.isnan().any()
    assert not found.isinf().any()


def test_a_reference_that_is_not_finite_is_refused() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        module.get_parameter("0.weight").fill_(3e38)
    with pytest.raises(NumericsError) as error:
        Reference(module, data(), METRIC)
    message = "the unquantized model gives NaN or infinity on the calibration data: check the data's scale and the weights"
    assert str(error.value) == message


def test_outputs_that_the_caller_has_are_compared() -> None:
    module, samples = mlp(), data()
    outputs = (inputs(8, 4, seed=9),)
    with torch.no_grad():
        expected = METRIC.errors(METRIC.prepare([module(*samples.batches[1].args)]), outputs)
    assert torch.equal(Reference(module, samples, METRIC).compared(1, outputs), expected)
