from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import data_from_batches
from mpq.models.running.operations import OperationCounter, operations
from tests.models.small import saved_and_loaded


def test_products_and_convolutions_are_counted_alike_in_all_kinds_of_models() -> None:
    module, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), torch.randn(50, 8)
    (batch,) = data_from_batches([x]).batches
    expected = 2 * 50 * (8 * 16 + 16 * 4)
    assert operations(module, batch) == expected
    assert operations(torch.export.export(module, (x,)).module(check_guards=False), batch) == expected
    convolution = nn.Conv2d(2, 3, 3).eval()
    assert operations(convolution, data_from_batches([torch.randn(4, 2, 5, 5)]).batches[0]) == 2 * 4 * 9 * 3 * 2 * 9


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_of_torchscript_are_counted_too() -> None:
    module = saved_and_loaded(torch.jit.trace(nn.Linear(8, 16).eval(), torch.randn(50, 8)))  # type: ignore[no-untyped-call]
    assert operations(module, data_from_batches([torch.randn(50, 8)]).batches[0]) == 2 * 50 * 8 * 16


STEPS, SAMPLES = 7, 3
SEQUENCE = torch.randn(STEPS, SAMPLES, 16)


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (nn.LSTM(16, 8), 4 * 8 * (16 + 8)),
        (nn.LSTM(16, 8, 2, bidirectional=True), 2 * 4 * 8 * (16 + 8) + 2 * 4 * 8 * (16 + 8)),
        (nn.GRU(16, 8), 3 * 8 * (16 + 8)),
        (nn.LSTM(16, 8, proj_size=5), 4 * 8 * (16 + 5) + 5 * 8),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_recurrent_layers_multiply_by_all_their_weights_at_each_step(layer: nn.Module, weights: int) -> None:
    with OperationCounter() as counter, torch.no_grad():
        layer.eval()(SEQUENCE)
    assert counter.products == 2 * STEPS * SAMPLES * weights


def attention(x: Tensor) -> Tensor:
    heads = x.reshape(STEPS, 1, SAMPLES, 16)
    return torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)


def test_attention_is_counted_in_every_kernel() -> None:
    products = 4 * STEPS * SAMPLES**2 * 16
    projections = 4 * 2 * STEPS * SAMPLES * 16**2
    heads, encoder = nn.MultiheadAttention(16, 2, batch_first=True).eval(), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    for fused in (True, False):
        torch.backends.mha.set_fastpath_enabled(fused)
        try:
            for call, expected in (
                (attention, products),
                (lambda x: heads(x, x, x), products + projections),
                (encoder, products + projections + 2 * 2 * STEPS * SAMPLES * 16 * 32),
            ):
                with OperationCounter() as counter, torch.no_grad():
                    call(SEQUENCE)
                assert counter.products == expected
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: nn.Bilinear(3, 4, 5, bias=False)(torch.randn(6, 3), torch.randn(6, 4)), 2 * 6 * 3 * 4 * 5),
        (lambda: torch.eye(9).to_sparse() @ torch.randn(9, 5), 2 * 9 * 5),
        (lambda: torch.sparse.mm(torch.eye(9).to_sparse(), torch.randn(9, 5)), 2 * 9 * 5),
        (lambda: torch.cdist(torch.randn(4, 3), torch.randn(5, 3)), 3 * 4 * 5 * 3),
        (lambda: torch.fft.rfft(torch.randn(3, 16)), 5 * 3 * 16 * 4),
    ],
)
def test_other_kernels_have_formulas(call: Callable[[], Tensor], expected: float) -> None:
    with OperationCounter() as counter, torch.no_grad():
        call()
    assert counter.products == expected


def test_a_pass_takes_at_least_as_many_operations_as_its_operators_read_and_write() -> None:
    table, tokens = nn.Embedding(1000, 8), torch.randint(0, 1000, (4, 5))
    assert operations(table, data_from_batches([tokens]).batches[0]) == 2 * 4 * 5 * 8
    bags = nn.EmbeddingBag(1000, 8)
    with OperationCounter() as counter, torch.no_grad():
        bags(tokens)
    assert counter.products == 0
    assert 4 * 5 * 8 <= counter.total <= 2 * 4 * 5 * 8 + 200  # not the whole table
    with OperationCounter() as counter:
        (torch.ones(10) + torch.ones(10)).relu_().view(2, 5).t()
    assert counter.total == 20 + 30 + 20  # ones write, the sum reads two and writes one, relu reads and writes; views are free
