import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpq.errors import NumericsError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.tensors.scales import Scales, best_scales, grouped, minmax_scales, round_to_scales, storable

integer_schemes = st.builds(
    Scheme, st.sampled_from(["int2", "int3", "int4", "int6", "int8"]), st.none() | st.integers(2, 40), st.booleans()
)


def random_matrix(seed: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * 10 ** torch.randn(rows, 1, generator=generator)


def losses(groups: Tensor, scales: Scales, scheme: Scheme) -> Tensor:
    values = (round_to_scales(groups, scales, scheme) - scales.zero_point.unsqueeze(-1)) * scales.scale.float().unsqueeze(-1)
    return (values - groups).square().sum(-1)


@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("group_size", [None, 2, 5, 10, 16])
def test_groups_are_runs_of_a_row_filled_with_zeros(group_size: int | None, order: str) -> None:
    matrix = torch.arange(1.0, 31).view(3, 10)
    given_matrix = matrix if order == "rows" else matrix.t().contiguous().t()
    scheme = Scheme("int4", group_size)
    size = group_size or 10
    groups = grouped(given_matrix, scheme)
    assert groups.shape == (3, scheme.groups(10), size)
    flat = groups.reshape(3, -1)
    assert torch.equal(flat[:, :10], matrix)
    assert not flat[:, 10:].any()


@settings(deadline=None)
@given(integer_schemes, st.integers(1, 4), st.integers(1, 50), st.integers(0, 99))
def test_codes_stay_in_range_and_covering_scales_are_off_by_half_a_step(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    groups = grouped(random_matrix(seed, rows, columns), scheme)
    scales = minmax_scales(groups, scheme)
    codes = round_to_scales(groups, scales, scheme)
    assert torch.equal(codes, codes.round())
    assert codes.min() >= 0
    assert codes.max() <= 2**scheme.bits - 1
    step = scales.scale.float().unsqueeze(-1)
    off = ((codes - scales.zero_point.unsqueeze(-1)) * step - groups).abs()
    room = 0.5 if scheme.symmetric else 1.0  # an asymmetric zero point is rounded as well
    fp16 = 2.0**-10 * groups.abs().amax(-1, keepdim=True)  # the scale is rounded to fp16
    assert bool((off <= room * step * 1.01 + fp16 + 1e-6).all())


@settings(deadline=None)
@given(integer_schemes, st.integers(1, 4), st.integers(1, 50), st.integers(0, 99))
def test_the_best_scales_never_lose_more_than_covering_ones(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    groups = grouped(random_matrix(seed, rows, columns), scheme)
    best = best_scales(groups, scheme)
    assert bool((losses(groups, best, scheme) <= losses(groups, minmax_scales(groups, scheme), scheme)).all())
    assert best.scale.dtype == torch.float16
    assert bool((best.scale != 0).all())
    assert torch.equal(best.zero_point, best.zero_point.round().clamp(0, 2**scheme.bits - 1))


def test_the_groups_are_not_changed() -> None:
    groups = grouped(random_matrix(0, 3, 40), parse_scheme("int4-g8"))
    before = groups.clone()
    for symmetric in (True, False):
        best_scales(groups, Scheme("int4", 8, symmetric))
    assert torch.equal(groups, before)


def test_importance_moves_the_loss_to_where_it_matters_less() -> None:
    groups = torch.tensor([[[0.3, 0.3, 0.3, 2.0]]])
    importance = torch.tensor([[[1.0, 1.0, 1.0, 1e-6]]])
    scheme = parse_scheme("int2")
    values = [
        (round_to_scales(groups, scales, scheme) - scales.zero_point.unsqueeze(-1)) * scales.scale.float().unsqueeze(-1)
        for scales in (best_scales(groups, scheme), best_scales(groups, scheme, importance))
    ]
    error = [float((found - groups)[..., :3].square().sum()) for found in values]
    assert error[1] < error[0]


@pytest.mark.parametrize("scheme", [parse_scheme("int4"), parse_scheme("int4-asym")])
def test_a_group_of_zeros_stays_zero(scheme: Scheme) -> None:
    groups = torch.zeros(2, 1, 8)
    for scales in (minmax_scales(groups, scheme), best_scales(groups, scheme)):
        assert not losses(groups, scales, scheme).any()


def test_scales_are_fp16_keep_their_sign_and_are_never_zero() -> None:
    found = storable(torch.tensor([0.0, 1e-12, -1e-12, 1.0, -65504.0]))
    assert found.tolist() == [2.0**-24, 2.0**-24, -(2.0**-24), 1.0, -65504.0]


@pytest.mark.parametrize(("value", "shown"), [(1e6, "1e+06"), (-70000.0, "70000"), (float("inf"), "inf"), (float("nan"), "nan")])
def test_a_scale_beyond_fp16_is_refused(value: float, shown: str) -> None:
    with pytest.raises(NumericsError) as error:
        storable(torch.tensor([1.0, value]))
    assert str(error.value) == f"a scale of {shown} does not fit fp16 (at most 65504): keep this layer at bf16 or fp32"
