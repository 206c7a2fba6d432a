"""Rows of lookup tables are counted as often as they are looked up."""

import pytest
import torch
from torch import Tensor, nn

from mpq.calibration.rows import row_counts
from mpq.data.batch import Batch
from mpq.models.layers.discover import discover
from tests.analyze.test_unseen_rows import ROWS, Bags, Words, tokens


@pytest.mark.parametrize("model", [Words(), Words(tied=True), Bags()], ids=["table", "tied to the head", "bags"])
def test_rows_are_counted_as_often_as_they_are_looked_up(model: nn.Module) -> None:
    ids = tokens()
    batches = [Batch((ids[:20],)), Batch((ids[20:],))]
    counts = row_counts(model.eval(), discover(model, batches).layers, batches)
    assert list(counts) == ["table"]
    assert counts["table"].lookups.tolist() == torch.bincount(ids.flatten(), minlength=ROWS).tolist()


def test_padding_reaches_no_row() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = Words()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = self.words(input_ids)
            return logits * attention_mask[..., None]

    ids, model = tokens(), Masked().eval()
    mask = torch.ones_like(ids)
    mask[:, 4:] = 0
    batch = Batch((), {"input_ids": ids, "attention_mask": mask}, mask=mask.bool())
    counts = row_counts(model, discover(model, [batch]).layers, [batch])
    assert counts["words.table"].lookups.tolist() == torch.bincount(ids[:, :4].flatten(), minlength=ROWS).tolist()


def counted(module: nn.Module, *ids: Tensor) -> dict[str, list[int]]:
    batches = [Batch((each,)) for each in ids]
    return {name: counts.lookups.tolist() for name, counts in row_counts(module, discover(module, batches).layers, batches).items()}


class Indexed(nn.Module):
    """A table that is indexed rather than looked up by an embedding."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.way = nn.Parameter(torch.randn(6, 4)), nn.Linear(4, 3), way

    def forward(self, ids: Tensor) -> Tensor:
        ways = {
            "brackets": lambda: self.table[ids],
            "from the end": lambda: self.table[ids - 6],
            "index_select": lambda: self.table.index_select(0, ids),
            "columns": lambda: self.table.index_select(1, ids.remainder(4))[:, :1].expand(6, 4)[: len(ids)],
        }
        result: Tensor = self.head(ways[self.way]())
        return result


@pytest.mark.parametrize("way", ["brackets", "from the end", "index_select"])
def test_rows_that_are_indexed_count_too(way: str) -> None:
    assert counted(Indexed(way).eval(), torch.tensor([0, 5, 5, 2])) == {"table": [1, 0, 1, 0, 0, 2]}


def test_what_is_picked_along_other_dimensions_has_no_rows() -> None:
    assert counted(Indexed("columns").eval(), torch.tensor([0, 1, 2, 3])) == {}


def test_layers_that_are_only_multiplied_have_no_rows() -> None:
    assert counted(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.randn(5, 4)) == {}


@pytest.mark.parametrize("model", [Words(), Bags()], ids=["table", "bags"])
def test_samples_are_counted_once_however_often_they_look_up_a_row(model: nn.Module) -> None:
    batches = [Batch((torch.tensor([[1, 1, 2], [1, 3, 3]]),)), Batch((torch.tensor([[3, 4, 4]]),))]
    counts = row_counts(model.eval(), discover(model, batches).layers, batches)["table"]
    assert counts.samples[:6].tolist() == [0, 2, 1, 2, 1, 0]
    assert counts.lookups[:6].tolist() == [0, 3, 1, 3, 2, 0]


def test_a_batch_whose_samples_cannot_be_told_apart_is_one() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = Words()

        def forward(self, ids: Tensor) -> Tensor:
            logits: Tensor = self.words(ids.flatten()[1:])
            return logits

    model, batch = Flat().eval(), Batch((torch.tensor([[0, 1, 2], [2, 1, 2]]),))
    counts = row_counts(model, discover(model, [batch]).layers, [batch])["words.table"]
    assert counts.samples[:3].tolist() == [0, 1, 1]


def test_padding_counts_for_no_sample() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = Words()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            logits: Tensor = self.words(input_ids)
            return logits * attention_mask[..., None]

    mask = torch.tensor([[1, 1], [1, 0]])
    batch = Batch((), {"input_ids": torch.tensor([[1, 2], [2, 3]]), "attention_mask": mask}, mask=mask.bool())
    counts = row_counts(Masked().eval(), discover(Masked().eval(), [batch]).layers, [batch])
    assert counts["words.table"].samples[:4].tolist() == [0, 1, 2, 0]
