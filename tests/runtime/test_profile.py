"""The time of each layer inside the model."""

import pytest
import torch
from torch import nn

from mpq.data.batch import Batch
from mpq.errors import ModelError
from mpq.formats.scheme import Scheme
from mpq.models.layers.discover import discover
from mpq.runtime.profile import profile, profiled_batch, threads

INT4, INT8, FP16 = Scheme("int4"), Scheme("int8"), Scheme("fp16")


def test_every_layer_has_a_time_under_every_scheme_and_the_model_keeps_its_weights() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 1024), nn.ReLU(), nn.Linear(1024, 8)).eval()
    batch = Batch((torch.randn(4, 32),))
    layers = discover(module, [batch]).layers
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in module.named_parameters()}
    found = profile(module, layers, {"0": (INT4, INT8, FP16), "2": (INT8,)}, batch, seconds=0.02)
    assert set(found.layers) == {("0", INT4), ("0", INT8), ("0", FP16), ("2", INT8)}
    assert all(0 < spent < 1 for spent in found.layers.values())
    assert 0 <= found.rest < found.whole
    assert len(found.uniform) == 3
    for place, (predicted, measured) in enumerate(found.uniform):
        assert predicted >= found.rest + found.layers["0", (INT4, INT8, FP16)[place]]
        assert measured > 0
    now = dict(module.named_parameters())
    assert all(now[name] is parameter and torch.equal(parameter, value) for name, (parameter, value) in before.items())


def test_a_larger_layer_takes_longer() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 4)).eval()
    batch = Batch((torch.randn(64, 16),))
    layers = discover(module, [batch]).layers
    found = profile(module, layers, {layer.name: (INT8,) for layer in layers}, batch, seconds=0.2)
    assert found.layers["1", INT8] > found.layers["2", INT8]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # not all versions of torch warn
def test_torchscript_is_refused() -> None:
    batch = Batch((torch.randn(4, 8),))
    module: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(8, 4)).eval())
    layers = discover(nn.Sequential(nn.Linear(8, 4)).eval(), [batch]).layers
    with pytest.raises(ModelError, match="a TorchScript module holds plain tensors only"):
        profile(module, layers, {"0": (INT8,)}, batch, seconds=0.01)


def test_a_batch_is_copies_of_the_first_sample() -> None:
    batch = Batch((torch.arange(6).view(3, 2),))
    assert profiled_batch(batch, 4).args[0].tolist() == [[0, 1]] * 4
    whole = batch.as_whole()
    assert profiled_batch(whole, 4) is whole
    assert threads() == torch.get_num_threads()
