import itertools

import pytest
import torch
from torch import Tensor

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.descent import State, descend
from mpq.tensors.hessian import blocks_of, conditioned, from_blocks, to_blocks
from mpq.tensors.scales import grouped, minmax_scales, round_to_scales
from mpq.tensors.small_scales import row_exponents
from tests.tensors.quantizers.making import statistics_of, weights

SCHEMES = ("int2-g16", "int3-asym-g16", "int4", "nf4-g16", "mxfp4", "int4-g16-s8", "ternary-g16")


def start(matrix: Tensor, scheme: Scheme, blocks: int = 1) -> State:
    """Rounded to nearest."""
    scales = minmax_scales(grouped(matrix, scheme), scheme)
    codes = round_to_scales(grouped(matrix, scheme), scales, scheme).view(len(matrix), -1)[:, : matrix.shape[1]]
    exponents = to_blocks(row_exponents(scales.scale), blocks) if scheme.small_scales else None
    size = min(scheme.group_size or matrix.shape[1], matrix.shape[1])
    return State(
        to_blocks(codes.contiguous(), blocks),
        to_blocks(scales.scale.float(), blocks),
        to_blocks(scales.zero_point, blocks),
        size,
        exponents,
    )


def moments(columns: int, groups: int = 0) -> Tensor:
    return conditioned(statistics_of(columns, groups=groups).hessian, 400, 0.01)


def loss(weights_: Tensor, state: State, hessian: Tensor) -> Tensor:
    """Naive, by row: e H e^T."""
    error = (weights_ - state.values()).double()
    return (error * (hessian.double() @ error)).sum(1)


def test_values_are_codes_less_zero_points_times_the_scale_of_their_group() -> None:
    state = State(
        torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[10.0], [100.0]]]), torch.tensor([[[1.0], [0.0]]]), 2
    )  # one row, groups of two
    assert state.values().tolist() == [[[0], [10], [300]]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_no_sweep_makes_any_row_worse_and_together_they_make_it_better(scheme: str, blocks: int) -> None:
    parsed, matrix, hessian = parse_scheme(scheme), weights(4, 40), moments(40, 0 if blocks == 1 else blocks)
    wanted, state = to_blocks(matrix, blocks), start(matrix, parsed, blocks)
    losses = [loss(wanted, state, hessian)]
    for _ in range(3):
        descend(wanted, state, hessian, parsed, sweeps=1)
        losses.append(loss(wanted, state, hessian))
    assert all(bool((later <= earlier * (1 + 1e-4)).all()) for earlier, later in itertools.pairwise(losses))
    assert losses[-1].sum() < 0.9 * losses[0].sum()


def test_codes_stay_among_those_that_there_are_and_scales_can_be_stored() -> None:
    scheme, matrix = parse_scheme("int3-asym-g16"), weights(4, 40)
    state = start(matrix, scheme)
    descend(to_blocks(matrix, 1), state, moments(40), scheme, sweeps=3)
    assert torch.equal(state.codes, state.codes.round().clamp(0, 7))
    assert torch.equal(state.scale, state.scale.half().float())


def best_alone(matrix: Tensor, state: State, hessian: Tensor, scheme: Scheme) -> Tensor:
    """Naive: for each row the least loss after a change of any one code to any other value."""
    rows, columns = matrix.shape
    values, least = from_blocks(state.values()).double(), []
    codes, scale, zero = from_blocks(state.codes), from_blocks(state.scale), from_blocks(state.zero)
    for row in range(rows):
        found = []
        for column, code in itertools.product(range(columns), range(2**scheme.bits)):
            trial = values[row].clone()
            group = column // state.size
            trial[column] = (code - zero[row, group].double()) * scale[row, group].double()
            off = matrix[row].double() - trial
            found.append(float(off @ hessian[0].double() @ off))
        least.append(min(found))
    assert codes.shape == matrix.shape
    return torch.tensor(least, dtype=torch.float64)


def test_where_it_comes_to_rest_no_other_single_code_is_better() -> None:
    scheme, matrix, hessian = parse_scheme("int3-g8"), weights(3, 20), moments(20)
    state = start(matrix, scheme)
    descend(to_blocks(matrix, 1), state, hessian, scheme, sweeps=40)
    found = loss(to_blocks(matrix, 1), state, hessian).view(-1)
    assert bool((found <= best_alone(matrix, state, hessian, scheme) * (1 + 1e-4)).all())


def test_the_scales_alone_are_fitted_where_codes_stay() -> None:
    scheme, hessian = parse_scheme("int4"), blocks_of(torch.diag(torch.tensor([1.0, 3.0])))
    wanted = torch.tensor([[[1.1], [2.0]]])  # columns of one row
    state = State(torch.tensor([[[9.0], [10.0]]]), torch.tensor([[[0.5]]]), torch.tensor([[[8.0]]]), 2)  # steps 1 and 2
    descend(wanted, state, hessian, scheme, sweeps=1, codes=False)
    assert state.codes.flatten().tolist() == [9, 10]
    expected = (1 * 1.1 * 1 + 3 * 2.0 * 2) / (1 * 1 + 3 * 2 * 2)  # weighted least squares
    assert state.scale.item() == torch.tensor(expected).half().item()


def test_a_group_whose_codes_are_all_zero_keeps_its_scale() -> None:
    scheme = parse_scheme("int4")
    state = State(torch.full((1, 2, 1), 8.0), torch.tensor([[[0.5]]]), torch.tensor([[[8.0]]]), 2)
    descend(torch.zeros(1, 2, 1), state, blocks_of(torch.eye(2)), scheme, sweeps=2)
    assert (state.codes.flatten().tolist(), state.scale.item()) == ([8, 8], 0.5)


def test_no_sweeps_change_nothing() -> None:
    scheme, matrix = parse_scheme("int3-g8"), weights(3, 20)
    state, before = start(matrix, scheme), start(matrix, scheme)
    descend(to_blocks(matrix, 1), state, moments(20), scheme, sweeps=0)
    assert torch.equal(state.codes, before.codes)
    assert torch.equal(state.scale, before.scale)
