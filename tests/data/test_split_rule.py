"""How samples are split: what counts as windows of running text, how wide the gap is, and that an analysis keeps its split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.batch import Batch
from mpq.data.dataset import Data, data_from_batches, make_data
from mpq.data.split_rule import SplitRule, rule_for
from mpq.errors import MismatchError, UsageError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import read_sensitivity
from tests.models.small import inputs, mlp, tied

IDS = torch.arange(40 * 6).reshape(40, 6) % 11
STREAM = torch.randint(0, 11, (200,), generator=torch.Generator().manual_seed(0))
CHOICES: dict[str, Any] = {"candidates": ("4",), "quantizer": "rtn", "method": "measure"}


def windows(count: int = 40, *, split: str | None = None) -> Data:
    return fit_data(IDS[:count], model=from_module(tied()), source="memory", split=split)


def first_ids(data: Data) -> list[int]:
    return [int(row) for batch in data.batches for row in batch.args[0][:, 0]]


@pytest.mark.parametrize(
    "batch",
    [
        Batch((IDS,)),
        Batch((IDS.to(torch.int32),)),
        Batch((), {"input_ids": IDS}),
        Batch((), {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}),
        Batch((), {"input_ids": IDS}, IDS),
        Batch((), {"input_ids": IDS}, torch.where(IDS > 2, IDS, -100)),
        Batch((), {"input_ids": IDS, "attention_mask": IDS > 2}, mask=IDS > 2),
    ],
    ids=["tensor", "int32", "named", "nothing masked", "labels are the next tokens", "some labels ignored", "padded"],
)
def test_windows_of_token_ids_are_split_by_position_with_a_gap(batch: Batch) -> None:
    assert rule_for([batch]) == SplitRule("position", 1)


@pytest.mark.parametrize(
    "batch",
    [
        Batch((torch.zeros(40, 6),)),
        Batch((torch.zeros(40, 3, 8, 8, dtype=torch.uint8),)),
        Batch((IDS,), {}, torch.zeros(40)),
        Batch((IDS, torch.zeros(40, 6))),
        Batch((IDS[:, 0],)),
    ],
    ids=["floats", "images", "a label per window", "another input", "one id per sample"],
)
def test_all_else_is_split_at_random_unless_the_user_says_position(batch: Batch) -> None:
    assert rule_for([batch]) == SplitRule("random")
    assert rule_for([batch], asked="position") == SplitRule("position", 1, asked=True)


def test_the_last_windows_are_held_out_and_one_window_is_on_neither_side() -> None:
    data = windows()
    kept, held = data.split(0.25, seed=5)
    assert torch.equal(torch.cat([batch.args[0] for batch in kept.batches]), IDS[:29])
    assert torch.equal(torch.cat([batch.args[0] for batch in held.batches]), IDS[30:])
    assert [part.samples for part in kept.split(0.1, seed=5)] == [25, 3]  # parts of it are split in the same way


@pytest.mark.parametrize(("step", "gap"), [(1, 8), (3, 3), (4, 2), (8, 1), (9, 1)])
def test_the_gap_covers_all_windows_that_overlap(step: int, gap: int) -> None:
    overlapping = STREAM.unfold(0, 8, step)
    assert rule_for([Batch((overlapping,))]).gap == gap
    series = inputs(200).unfold(0, 8, step)[:, None]
    assert rule_for([Batch((series,))], asked="position").gap == gap


def test_samples_that_are_all_alike_do_not_overlap() -> None:
    assert rule_for([Batch((torch.zeros(9, 8, dtype=torch.int64),))]).gap == 1


@pytest.mark.parametrize(("count", "sides"), [(2, [1, 1]), (3, [1, 1]), (4, [2, 1]), (8, [5, 2])])
def test_few_windows_leave_a_sample_on_both_sides(count: int, sides: list[int]) -> None:
    assert [part.samples for part in windows(count).split(0.25, seed=0)] == sides


def test_windows_that_were_added_keep_a_gap_to_the_held_out_ones_before() -> None:
    kept, held = windows().split(0.25, 0, [20, 20])
    assert first_ids(kept) == IDS[[*range(14), *range(21, 34)], 0].tolist()
    assert first_ids(held) == IDS[[*range(15, 20), *range(35, 40)], 0].tolist()


def test_a_model_of_one_batch_size_has_a_gap_of_whole_batches() -> None:
    data = make_data(
        [Batch((IDS[start : start + 4],)) for start in range(0, 40, 4)], source="x", fixed_batch=4, rule=SplitRule("position", 1)
    )
    assert [part.samples for part in data.split(0.2, seed=0)] == [28, 8]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--split middle is unknown: use position or random$"):
        windows(split="middle")


def test_an_analysis_notes_its_split_and_takes_it_again() -> None:
    table = mpq.analyze(tied(), windows(), **CHOICES)
    assert {name: table.header.data[name] for name in ("split", "gap", "samples")} == {
        "split": "position",
        "gap": 1,
        "samples": {"calibration": 29, "held_out": 10, "unused": 1},
    }
    note = "split by position: the last 10 samples are held out, and 1 between the two parts is not used; --split random mixes them"
    assert note in table.header.notes
    again = windows(split="random").split_as(table.header.data)
    assert first_ids(again.held_out) == IDS[30:, 0].tolist()
    assert table.errors["body", table.header.candidates["body"][0]].shape == (29,)


def test_images_are_split_as_ever() -> None:
    samples = data_from_batches(inputs(20, 8))
    table = mpq.analyze(mlp(), samples, **CHOICES)
    assert table.header.data["split"] == "random"
    assert table.header.data["samples"] == {"calibration": 15, "held_out": 5}
    assert samples.split_as(table.header.data).held_out.sha256 == samples.split(0.25, 0)[1].sha256


def test_an_analysis_from_before_the_split_was_noted_keeps_the_split_of_its_time() -> None:
    facts = {"held_out": 0.25, "seed": 0}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert first_ids(windows().split_as(facts).held_out) == IDS[order[:10].sort().values, 0].tolist()
    text = replace(windows(), ordered=True).split_as(facts)
    assert [text.calibration.samples, text.held_out.samples] == [30, 10]


def test_an_analysis_that_goes_on_keeps_its_split_unless_the_user_asks_for_another(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    mpq.analyze(tied(), windows(split="random"), output=path, **CHOICES)
    mpq.analyze(tied(), windows(), output=path, **CHOICES | {"candidates": ("4", "8")})
    with pytest.raises(MismatchError, match=r"holds an analysis with another split \(random, now position\)"):
        mpq.analyze(tied(), windows(split="position"), output=path, **CHOICES)
    grown = mpq.analyze(tied(), fit_data(torch.cat([IDS, IDS]), model=from_module(tied()), source="memory"), output=path, **CHOICES)
    assert grown.header.data["split"] == "random"
    assert read_sensitivity(path).header.data["parts"] == [40, 40]


class LastToken(nn.Module):
    """A language model that gives the logits of the last position alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(11, 4), nn.Linear(4, 11)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(ids).mean(1))
        return logits


def test_windows_from_a_loader_are_split_by_position_too() -> None:
    data = fit_data(list(torch.split(STREAM.unfold(0, 8, 2), 16)), model=from_module(LastToken().eval()), source="memory")
    assert data.splitting == SplitRule("position", 4)
