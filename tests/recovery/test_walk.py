from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.layers.discover import discover
from mpq.models.running.swap import swapped
from mpq.recovery.blocks import Block, blocks_of, call_of, output_of
from mpq.recovery.walk import Walk


class Part(nn.Module):
    """Counts its runs, and overwrites what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.runs = nn.Linear(4, 4), 0

    def forward(self, values: Tensor, scale: float = 1.0) -> tuple[Tensor, str]:
        self.runs += 1
        found = values + scale * self.inner(values).relu()
        values.zero_()
        return found, "done"


class Chain(nn.Module):
    """Three parts; `around` adds what the first gave to what the last gets."""

    def __init__(self, *, around: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.parts, self.head, self.around = nn.Linear(3, 4), nn.ModuleList(Part() for _ in range(3)), nn.Linear(4, 2), around

    def forward(self, values: Tensor) -> Tensor:
        values = first = self.stem(values)
        for number, part in enumerate(self.parts):
            given = values + first if self.around and number == 2 else values.clone()
            values, _ = part(given, scale=2.0)
            first = values.clone() if number == 0 else first
        return cast("Tensor", self.head(values))


def chain(**options: Any) -> tuple[Chain, list[Block], list[Batch]]:
    module, generator = Chain(**options).eval(), torch.Generator().manual_seed(1)
    batches = [Batch((torch.randn(5, 3, generator=generator),)) for _ in range(2)]
    return module, blocks_of(module, discover(module, batches).layers, batches[0]), batches


def runs(module: Chain) -> list[int]:
    parts = [cast("Part", part) for part in module.parts]
    found = [part.runs for part in parts]
    for part in parts:
        part.runs = 0
    return found


@pytest.mark.parametrize("around", [False, True])
def test_every_block_gets_what_it_gets_in_a_whole_pass(around: bool) -> None:
    module, blocks, batches = chain(around=around)
    assert [block.name for block in blocks] == ["parts.0", "parts.1", "parts.2"]
    walk = Walk(module, blocks, batches)
    for block in blocks:
        calls, outputs = walk.calls(), walk.outputs()
        for batch, call, output in zip(batches, calls, outputs, strict=True):
            whole = call_of(module, block, batch)
            assert torch.equal(call.args[0], whole.args[0])
            assert call.kwargs == whole.kwargs
            assert torch.equal(output, output_of(module, block, batch))
        walk.advance()
    assert walk.skips is not around
    with walk.at(1) as batch:
        assert torch.equal(module(*batch.args), module(*batches[1].args))


def test_blocks_behind_run_no_more() -> None:
    module, blocks, batches = chain()
    walk = Walk(module, blocks, batches)
    walk.advance()
    walk.advance()
    runs(module)
    walk.outputs()
    assert runs(module) == [0, 0, 2]
    walk.advance()  # with these outputs; one whole pass compares
    assert runs(module) == [1, 1, 1]
    with walk.at(0) as batch:
        module(*batch.args)
    assert runs(module) == [0, 0, 0]
    module(*batches[0].args)
    assert runs(module) == [1, 1, 1]


def test_a_block_is_passed_with_the_values_of_that_moment() -> None:
    module, blocks, batches = chain()
    walk, other = Walk(module, blocks, batches), {"parts.0.inner.weight": torch.eye(4)}
    with swapped(module, other):
        walk.advance()
        wanted = call_of(module, blocks[1], batches[1]).args[0]
    assert torch.equal(walk.calls()[1].args[0], wanted)


def test_the_walk_goes_to_the_block_of_some_layers_and_not_back() -> None:
    module, blocks, batches = chain()
    walk = Walk(module, blocks, batches)
    walk.to(["parts.1.inner"])
    walk.to(["head"])
    walk.to(["parts.0.inner", "parts.1.inner"])
    assert (walk.passed, walk.skips) == (1, True)
    walk.to(["parts.0.inner"])
    assert (walk.passed, walk.skips) == (0, False)
    assert torch.equal(walk.calls()[0].args[0], call_of(module, blocks[0], batches[0]).args[0])


def test_whole_passes_where_outputs_take_too_much_memory() -> None:
    module, blocks, batches = chain()
    enough = Walk(module, blocks, batches, limit_bytes=2 * 5 * 4 * 4)
    enough.advance()
    few = Walk(module, blocks, batches, limit_bytes=2 * 5 * 4 * 4 - 1)
    few.advance()
    assert (enough.skips, few.skips) == (True, False)
    assert torch.equal(enough.calls()[1].args[0], few.calls()[1].args[0])


def test_a_forward_of_the_instance_comes_back() -> None:
    module, blocks, batches = chain()
    own = module.parts[0].forward
    module.parts[0].forward = own
    walk = Walk(module, blocks, batches)
    walk.advance()
    assert module.parts[0].__dict__["forward"] is own
    assert "forward" not in module.parts[1].__dict__
