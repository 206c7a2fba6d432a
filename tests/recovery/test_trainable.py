import torch

from mpq.recovery.trainable import Trainable
from tests.recovery.training.making import job


def gradients(made: Trainable, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(made.values()[name].shape, generator=generator) for name in made.wanted}


def test_a_restored_one_goes_on_as_if_it_had_never_stopped() -> None:
    given = job()
    one, other = (Trainable(given.module, given.layers, given.state, codes="all") for _ in range(2))
    for seed in range(3):
        one.step(gradients(one, seed), 1.0)
    other.restore(one.tensors())
    for made in (one, other):
        made.step(gradients(made, 9), 1.0)
    assert one.values().keys() == other.values().keys()
    assert all(torch.equal(value, other.values()[name]) for name, value in one.values().items())


def test_codes_have_a_rate_of_their_own() -> None:
    given = job("int4-g8")
    made = Trainable(given.module, given.layers, given.state)
    for seed in range(5):
        made.step(gradients(made, seed), 1.0, codes=0.0)
    weights, vectors = made.snapshot()
    assert all(torch.equal(weight.codes, given.state.weights[name].codes) for name, weight in weights.items())
    assert any(not torch.equal(weight.dequantize(), given.state.weights[name].dequantize()) for name, weight in weights.items())
    assert vectors.keys() == {"0.bias", "2.weight", "2.bias", "3.bias", "5.bias"}
