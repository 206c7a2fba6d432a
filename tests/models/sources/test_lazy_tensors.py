import torch
from torch import nn

from mpq.models.sources.lazy_tensors import materialize, without_shape


def test_lazy_tensors_get_the_shapes_of_a_file_and_keep_its_values_in_the_first_call() -> None:
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    state = made.state_dict()
    lazy = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 2)).eval()
    assert without_shape(lazy) == "0.weight"
    materialize(lazy, lambda name: tuple(state[name].shape) if name != "1.bias" else None)
    assert without_shape(lazy) == "1.bias"
    materialize(lazy, lambda name: tuple(state[name].shape))
    assert without_shape(lazy) is None
    with torch.no_grad():
        for name, tensor in lazy.state_dict().items():
            tensor.copy_(state[name])
        x = torch.randn(5, 3)
        assert torch.equal(lazy(x), made(x))
