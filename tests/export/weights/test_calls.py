from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from mpq.apply.run import apply
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source, open_source
from mpq.export.weights.calls import Call, Tokens, call_of, takes_tokens
from mpq.models.sources.load import load_model
from tests.apply.making import plan_of
from tests.models.small import inputs, mlp

BARE = Source(Path("m"), {"kind": "state_dict", "sha256": "a"}, {}, {}, 0)
HF = Source(Path("m"), {"kind": "hf", "sha256": "a"}, {}, {}, 0)


def program(folder: Path, dynamic: Any) -> Source:
    """The artifact of a program that was exported with these dynamic shapes."""
    torch.export.save(torch.export.export(mlp(), (inputs(8, 8),), dynamic_shapes=dynamic), folder / "m.pt2")
    model = load_model(folder / "m.pt2")
    apply(model, plan_of(model, "mlp"), folder / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    return open_source(folder / "m.mpq.safetensors")


@pytest.mark.parametrize(("dynamic", "changing"), [(None, frozenset()), (({0: Dim("batch")},), frozenset({0}))])
def test_a_program_brings_its_inputs_as_zeros_with_its_own_dynamic_dims(tmp_path: Path, dynamic: Any, changing: frozenset[int]) -> None:
    found = call_of(mlp(), program(tmp_path, dynamic), Options())
    (x,) = found.args
    assert (x.shape[1:], x.dtype, bool(x.any()), found.kwargs) == ((8,), torch.float32, False, {})
    assert found.dynamic == ((changing,), {})
    if not changing:
        assert len(x) == 8


def test_other_models_take_the_samples_that_are_given_of_any_batch(tmp_path: Path) -> None:
    torch.save({"x": inputs(3, 8), "y": inputs(3, 2)}, tmp_path / "data.pt")

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x.sum(-1) + y.sum(-1)

    found = call_of(Two(), BARE, Options(data=str(tmp_path / "data.pt")))
    assert found.args == ()
    assert torch.equal(found.kwargs["x"], inputs(3, 8)[:2])
    assert found.dynamic == ((), {"x": frozenset({0}), "y": frozenset({0})})
    with pytest.raises(ExportError, match=r"^a state_dict model has no example inputs to trace it with: "):
        call_of(Two(), BARE, Options())


def test_shapes_are_as_torch_export_wants_them() -> None:
    none, batch = frozenset[int](), frozenset({0})
    assert Call((1,), {}, ((batch,), {})).shapes("any") == {"args": ({0: "any"},)}
    assert Call((), {"a": 1}, ((), {"a": frozenset({0, 1})})).shapes("any") == {"kwargs": {"a": {0: "any", 1: "any"}}}
    assert Call((1,), {}, ((none,), {})).shapes("any") == {"args": (None,)}
    assert Call((), {}, ((), {})).shapes("any") == {}


class Cached(nn.Module):
    """A language model that keeps a cache unless it is told not to."""

    def forward(self, input_ids: Tensor, use_cache: bool = True) -> dict[str, Any]:
        return {"logits": input_ids.float(), "cache": use_cache} if use_cache else {"logits": 2 * input_ids.float()}


class Plain(nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids + 1.0


def test_tokens_give_the_main_output_without_a_cache() -> None:
    ids = torch.arange(6).view(2, 3)
    assert torch.equal(Tokens(Cached())(ids), 2.0 * ids)
    assert torch.equal(Tokens(Plain())(ids), ids + 1.0)


@pytest.mark.parametrize(
    ("module", "source", "options", "expected"),
    [
        (Plain(), HF, Options(), True),
        (Plain(), HF, Options(data="x.pt"), False),
        (Plain(), BARE, Options(), False),
        (mlp(), HF, Options(), False),
    ],
)
def test_a_hugging_face_model_takes_tokens_unless_data_is_given(
    module: nn.Module, source: Source, options: Options, expected: bool
) -> None:
    assert takes_tokens(module, source, options) is expected
