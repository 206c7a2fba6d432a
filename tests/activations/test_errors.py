import torch
from torch import nn

from mpq.activations.errors import rounded_errors
from mpq.activations.rounding import changes_of, rounded
from mpq.data.dataset import data_from_batches
from mpq.models.running.comparison import metric_named
from mpq.models.running.reference import Reference
from mpq.records.activations import ActivationGroup, RoundedTensor


def test_errors_are_those_of_rounded_inputs_and_other_weights() -> None:
    module, inputs = nn.Linear(3, 2, bias=False).eval(), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    reference = Reference(module, data_from_batches([inputs[:4], inputs[4:]]), metric_named("relative_mse"), cache_bytes=0)
    changes = changes_of({"x": ActivationGroup("a8", (RoundedTensor(("linear.0",), 0.5, 10),))})
    other = module.weight.detach() * 1.1
    with torch.no_grad():
        expected, found = module(inputs), rounded(inputs, 0.5, 10) @ other.T
    wanted = (found - expected).double().square().sum(-1) / expected.double().square().sum(-1)
    torch.testing.assert_close(rounded_errors(reference, changes, {"weight": other}), wanted)
    torch.testing.assert_close(rounded_errors(reference, {}), torch.zeros(6, dtype=torch.float64))
