import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpq.data.batch import Batch
from mpq.errors import ModelError
from mpq.models.layers.discover import discover
from mpq.models.layers.outside_state import bytes_of, outside_notes, outside_weights
from tests.models.layers.discovering import Lambda, X, quiet, weight


class Outside(nn.Module):
    """A plain attribute and a buffer that is not saved, both multiplied with; a position table that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 6)
        self.plain = weight(6, 4)
        self.unsaved: Tensor
        self.register_buffer("unsaved", weight(5, 4), persistent=False)
        self.positions = weight(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear((self.first(x) + self.positions) @ self.plain, self.unsaved)


def names(module: nn.Module, *inputs: Tensor) -> list[str]:
    return list(outside_weights(module.eval(), Batch(inputs or (X,))))


def test_attributes_and_unsaved_buffers_that_products_use_are_found() -> None:
    found = outside_weights(Outside().eval(), Batch((X,)))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"plain": (6, 4), "unsaved": (5, 4)}
    assert bytes_of(found) == 4 * (6 * 4 + 5 * 4)


def test_a_name_says_in_which_module_a_tensor_is() -> None:
    assert names(nn.Sequential(Outside())) == ["0.plain", "0.unsaved"]


def scripted(module: nn.Module) -> nn.Module:
    with quiet():
        made: nn.Module = torch.jit.script(module.eval())
    return made


def frozen(module: nn.Module) -> nn.Module:
    with quiet():
        made: nn.Module = torch.jit.freeze(torch.jit.script(module.eval()))
    return made


def traced(module: nn.Module) -> nn.Module:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.jit.trace(module.eval(), X)  # type: ignore[no-untyped-call]
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [(scripted, {(6, 4)}), (frozen, {(6, 8), (6, 4), (5, 4)}), (traced, {(6, 4)})],
    ids=["script", "freeze", "trace"],
)
def test_attributes_and_constants_of_torchscript_are_found(made: Callable[[nn.Module], nn.Module], expected: set[tuple[int, ...]]) -> None:
    with quiet():
        found = outside_weights(made(Outside()), Batch((X,)))
    assert expected <= {tuple(tensor.shape) for tensor in found.values()}


def _remember(module: Any, x: Tensor) -> Tensor:
    found: Tensor = module.linear(x) + x @ module.state
    module.state = module.state * 0.5 + 1
    return found


def test_state_is_not_a_weight() -> None:
    module = Lambda(_remember, linear=nn.Linear(8, 8))
    object.__setattr__(module, "state", weight(8, 8))
    assert names(module) == []


def test_a_view_of_a_parameter_is_not_outside() -> None:
    module = Lambda(lambda m, x: m.linear(x) @ m.tied, linear=nn.Linear(8, 6))
    object.__setattr__(module, "tied", module.get_submodule("linear").get_parameter("weight").detach())
    assert names(module) == []


def test_the_note_gives_names_and_the_share_of_the_bytes() -> None:
    found = {f"w{number}": torch.zeros(5, 5) for number in range(5)}
    assert outside_notes(found, 500) == [
        "used as weights but not in the state dict, so neither searched nor stored in artifacts: w0, w1, w2 and 2 more (500 bytes, "
        "50.0% of all); make them parameters or buffers, and save TorchScript without torch.jit.freeze"
    ]
    assert outside_notes({}, 500) == []


def test_a_model_whose_weights_are_all_outside_is_refused_with_the_remedy() -> None:
    with quiet(), pytest.raises(ModelError, match=r"its matrices are not in the state dict \('.*', …\): make them parameters or buffers"):
        discover(frozen(nn.Sequential(nn.Linear(8, 6))), [Batch((X,))])


def test_a_list_of_modules_in_a_trace_has_no_program() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.parts[0](x)
            return found

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.jit.trace(Listed().eval(), torch.ones(3, 4))  # type: ignore[no-untyped-call]
        assert outside_weights(made, Batch((torch.ones(3, 4),))) == {}
