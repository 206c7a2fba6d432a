import pytest
import torch
from torch import nn

from mpq.activations.rounding import changed, changes_of, rounded, rounded_tokens, simulate, simulated
from mpq.activations.trace import trace
from mpq.data.batch import Batch
from mpq.errors import MismatchError
from mpq.records.activations import ActivationGroup, RoundedTensor
from tests.activations.networks import images, layers_of, residual
from tests.models.small import saved_and_loaded

HALVES = ActivationGroup("a8", (RoundedTensor(("linear.0",), 0.5, 10),))


def test_values_lie_on_steps_and_inside_of_the_range() -> None:
    assert rounded(torch.tensor([-9.0, -0.3, 0.2, 0.76, 500.0]), 0.5, 10).tolist() == [-5.0, -0.5, 0.0, 1.0, 122.5]
    assert rounded(torch.tensor([0.25, 0.75]), 0.5, 0).tolist() == [0.0, 1.0]  # halves go to even codes
    assert rounded(torch.ones(2, dtype=torch.bfloat16), 0.5, 0).dtype == torch.bfloat16


def test_each_token_has_its_own_scale() -> None:
    values = torch.tensor([[1.27, 0.014], [127.0, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(rounded_tokens(values), torch.tensor([[1.27, 0.01], [127.0, 0.0], [0.0, 0.0]]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("form", ["module", "export", "traced", "loaded"])
def test_a_matrix_product_reads_rounded_inputs_in_every_form(form: str) -> None:
    plain, x = nn.Linear(2, 3), torch.tensor([[0.3, -0.2], [7.1, 0.9]])
    module: nn.Module = plain
    if form == "export":
        module = torch.export.export(nn.Sequential(plain), (x,)).module()
    if form in ("traced", "loaded"):
        module = torch.jit.trace(nn.Sequential(plain), x)  # type: ignore[no-untyped-call]
    module = saved_and_loaded(module) if form == "loaded" and isinstance(module, torch.jit.ScriptModule) else module
    expected = plain(rounded(x, 0.5, 10))
    with simulated(module, {"linear": HALVES}):
        assert torch.equal(module(x), expected)
        assert torch.equal(module(x), expected)
    assert torch.equal(module(x), plain(x))


@pytest.mark.parametrize("inplace", [False, True])
def test_additions_in_place_and_joins_read_rounded_inputs(*, inplace: bool) -> None:
    readers = (("conv.1", "add.0.1"), ("add.0.0",), ("conv.2", "conv.3"), ("cat.0.0",), ("cat.0.1",), ("average.0",), ("linear.0",))
    group = ActivationGroup("a8", tuple(RoundedTensor(each, 0.25, 60) for each in readers))
    module, x = residual(inplace=inplace), images()

    def step(values: torch.Tensor) -> torch.Tensor:
        return rounded(values, 0.25, 60)

    with torch.no_grad():
        a = step(module.norm(module.first(x)).relu())  # type: ignore[operator]
        b = step((step(module.second(a)) + a).relu())  # type: ignore[operator]
        joined = torch.cat([step(module.left(b)), step(module.right(b))], 1)  # type: ignore[operator]
        expected = module.head(step(step(joined).mean((2, 3))))  # type: ignore[operator]
        assert torch.equal(simulate(module, {"all": group})(x), expected)


def test_a_call_that_misses_a_reader_is_of_another_model() -> None:
    group = ActivationGroup("a8", (RoundedTensor(("linear.0", "conv.7"), 0.5, 10),))
    with simulated(module := nn.Linear(2, 3), {"x": group}), pytest.raises(MismatchError, match=r"did not call 'conv\.7'"):
        module(torch.ones(1, 2))


def test_an_error_inside_of_the_model_leaves_no_mode_behind() -> None:
    module = simulate(nn.Linear(2, 3), {"linear": HALVES})
    with pytest.raises(RuntimeError, match="shape"):
        module(torch.ones(1, 5))
    assert torch.equal(torch.ones(1, 2).mm(torch.ones(2, 2)), torch.full((1, 2), 2.0))
    assert module(torch.full((1, 2), 0.3)).shape == (1, 3)


def test_dynamic_groups_round_tokens() -> None:
    group = ActivationGroup("a8d", (RoundedTensor(("linear.0", "linear.1")),))
    changes = changes_of({"x": group})
    assert list(changes) == ["linear.0", "linear.1"]
    assert changes["linear.1"](torch.tensor([[127.0, 0.4]])).tolist() == [[127.0, 0.0]]


def test_a_transformer_has_the_same_operators_whoever_calls_it() -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 3)
    module = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), head).eval()
    x = torch.randn(2, 5, 8)
    found = trace(module, Batch((x,)), layers_of(module, x))
    assert found.layers["linear.0"] == "0.self_attn.in_proj_weight"
    last = f"linear.{found.counts['linear'] - 1}"
    assert found.layers[last] == "1"
    with torch.no_grad():
        plain = module(x)
        with changed(module, {last: lambda values: values * 2}):
            doubled = module(x)
    assert torch.allclose(doubled - head.bias, 2 * (plain - head.bias), atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()
