from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.errors import DataError
from mpq.models.layers.discover import discover
from mpq.recovery.blocks import Block, blocks_of, call_of, main_tensor, output_of


class Residual(nn.Module):
    """Overwrites what it is given and takes a keyword."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, values: Tensor, *, factor: float = 1.0) -> tuple[Tensor, str]:
        found = values + factor * self.second(self.first(values).relu())
        values.zero_()
        return found, "done"


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.parts, self.head = nn.Linear(3, 4), nn.ModuleList(Residual(4) for _ in range(3)), nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        values = self.stem(values)
        for part in self.parts:
            values, _ = part(values, factor=2.0)
        return cast("Tensor", self.head(values))


def stacked() -> tuple[nn.Module, list[Block], Batch]:
    module, batch = Stacked().eval(), Batch((torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),))
    return module, blocks_of(module, discover(module, [batch]).layers, batch), batch


def names(module: nn.Module, *args: Any) -> list[str]:
    batch = Batch(args)
    return [block.name for block in blocks_of(module.eval(), discover(module, [batch]).layers, batch)]


def test_children_of_a_list_are_blocks_with_their_own_layers() -> None:
    _, blocks, _ = stacked()
    assert [block.name for block in blocks] == ["parts.0", "parts.1", "parts.2"]
    assert [layer.name for layer in blocks[1].layers] == ["parts.1.first", "parts.1.second"]
    assert {block.channels for block in blocks} == {1}
    assert blocks[1].holds("parts.1.first.weight")
    assert not blocks[1].holds("parts.10.first.weight")


def test_a_pass_ends_at_the_block_and_gives_what_it_got_and_returned() -> None:
    module, blocks, batch = stacked()
    values = module.get_submodule("stem")(*batch.args)
    for block in blocks:
        call = call_of(module, block, batch)
        assert torch.equal(call.args[0], values)
        assert call.kwargs == {"factor": 2.0}
        assert call.bytes == 5 * 4 * 4
        values = block.module(values.clone(), factor=2.0)[0]
        assert torch.equal(output_of(module, block, batch), values)
        assert torch.equal(call.output(block.module), values)
        assert torch.equal(call.output(block.module), values)  # the block overwrote a copy
    module.get_submodule("head").register_forward_pre_hook(lambda *_: pytest.fail("the pass went on"))
    call_of(module, blocks[2], batch)


def test_layers_of_a_plan_that_do_not_say_where_they_are_used_have_the_same_blocks() -> None:
    module, blocks, batch = stacked()
    layers = [replace(layer, consumers=(), operator="other") for layer in discover(module, [batch]).layers]
    assert [block.name for block in blocks_of(module, layers, batch)] == [block.name for block in blocks]


def test_a_child_with_most_layers_is_divided() -> None:
    body = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3)))
    assert names(nn.Sequential(body, nn.Linear(4, 2)), torch.randn(2, 4)) == ["0.0", "0.1", "0.2", "1"]


def test_channels_of_maps_come_second() -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))).eval()
    batch = Batch((torch.randn(2, 3, 5, 5),))
    assert {block.channels for block in blocks_of(module, discover(module, [batch]).layers, batch)} == {1}


def test_what_is_called_twice_or_shared_or_alone_is_no_block() -> None:
    shared = nn.Linear(4, 4)
    assert names(nn.Sequential(shared, nn.Linear(4, 4), shared, nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(2, 4)) == ["1", "3", "4"]
    assert names(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4)) == []
    assert names(nn.Linear(4, 2), torch.randn(2, 4)) == []


def test_a_tied_table_belongs_to_no_block() -> None:
    table, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = table.weight
    assert names(nn.Sequential(table, nn.Linear(4, 4), nn.Linear(4, 4), head), torch.randint(0, 7, (2, 3))) == ["1", "2"]


def test_an_exported_program_calls_no_modules() -> None:
    module, batch = torch.export.export(Stacked().eval(), (torch.randn(2, 3),)).module(check_guards=False), Batch((torch.randn(2, 3),))
    assert blocks_of(module, discover(module, [batch]).layers, batch) == []


def test_a_block_without_a_tensor_or_that_another_batch_skips_is_refused() -> None:
    with pytest.raises(DataError, match=r"^a block returned no floating-point tensor$"):
        main_tensor(("a", torch.ones(2, dtype=torch.int64)))
    module, blocks, batch = stacked()
    module.parts = nn.ModuleList(list(module.parts)[:2])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^a block that one batch reached is not called with another$"):
        call_of(module, blocks[2], batch)
