"""Rows of tables that calibration never looks up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import data_from_batches
from mpq.evidence.prediction import unseen_rows
from mpq.formats.scheme import parse_scheme
from mpq.models.running.comparison import comparison_from
from mpq.models.running.reference import Reference
from mpq.records.sensitivity import read_sensitivity
from mpq.search.run import search
from tests.models.small import data, mlp

ROWS = 40
INT3 = parse_scheme("int3")
CHOICES: dict[str, Any] = {"candidates": ("3", "8"), "quantizer": "rtn", "method": "measure"}


class Words(nn.Module):
    """Tokens in, logits out; the head is the table where `tied`."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(ROWS, 32), nn.Linear(32, ROWS, bias=False)
        self.table.weight.data *= torch.linspace(0.3, 3, ROWS)[:, None]
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.table(ids)))
        return logits


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.EmbeddingBag(ROWS, 32), nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(ids))
        return logits


def tokens(count: int = 32) -> Tensor:
    """Token ids in the manner of words: few are frequent, many are rare, and those from 35 on never occur."""
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(1 / torch.arange(1, 36) ** 1.6, count * 6, replacement=True, generator=generator).reshape(count, 6)


def test_the_term_is_what_rows_of_one_sample_say_of_rows_never_seen() -> None:
    model, samples = Words().eval(), data_from_batches(tokens())
    table = mpq.analyze(model, samples, **CHOICES)
    calibration = samples.split_as(table.header.data).calibration
    ids = torch.cat([batch.args[0] for batch in calibration.batches])
    counts = torch.bincount(ids.flatten(), minlength=ROWS)
    samples_of_row = torch.stack([(ids == row).any(1).sum() for row in range(ROWS)])
    facts = (table.finish or {})["unseen_rows"]["table"]
    once = (samples_of_row == 1).nonzero().flatten()
    assert bool((counts[once] > 1).any())
    assert (facts["rows"], facts["reached"]) == (ROWS, int((counts > 0).sum()))
    assert facts["share"] == pytest.approx(int(counts[once].sum()) / int(counts.sum()), rel=1e-5)

    weight = model.table.weight.detach().clone()
    scale = weight.abs().amax(1, keepdim=True) / 3
    changed = weight.clone()
    changed[once] = ((weight / scale).round().clamp(-4, 3) * scale)[once]
    error = float(Reference(model, calibration, comparison_from(table.header.settings)).errors({"table.weight": changed}).mean())
    expected = max(0.0, error - facts["share"] * table.mean("table", INT3))
    assert facts["adds"]["int3"] == pytest.approx(expected, rel=0.05)
    assert expected > 0


def test_the_term_is_printed_and_stands_beside_the_prediction_which_stays() -> None:
    table = mpq.analyze(Words().eval(), data_from_batches(tokens()), **CHOICES)
    facts = (table.finish or {})["unseen_rows"]["table"]
    (note,) = [note for note in (table.finish or {})["notes"] if "of the rows of" in note]
    reach = f"calibration reaches {facts['reached'] / ROWS:.1%} of the rows of table ({facts['reached']} of {ROWS})"
    assert note.startswith(
        f"{reach}; about {facts['share']:.1%} of new lookups hit other rows, which adds {facts['adds']['int3']:.3g} at int3"
    )
    evidence = search(table, "4bits").plan.evidence
    assert evidence["unseen_rows"] == pytest.approx(unseen_rows(table, search(table, "4bits").plan.layers), rel=1e-3)
    assert evidence["reach"] == note
    alone = {"table": INT3, "head": INT3}
    assert unseen_rows(table, alone) == facts["adds"]["int3"]


def test_rows_that_are_all_reached_by_one_sample_alone_leave_a_file_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.sensitivity.jsonl"
    mpq.analyze(Words().eval(), data_from_batches(torch.arange(30).reshape(5, 6)), output=path, **CHOICES)
    assert (read_sensitivity(path).finish or {})["unseen_rows"]["table"]["share"] == 1.0


def test_models_without_tables_or_with_all_rows_reached_have_no_term() -> None:
    assert "unseen_rows" not in (mpq.analyze(mlp(), data(24), **CHOICES).finish or {})
    ids = torch.arange(ROWS).repeat(8).reshape(-1, 8)
    table = mpq.analyze(Words().eval(), data_from_batches(ids), **CHOICES)
    assert "unseen_rows" not in (table.finish or {})
    assert unseen_rows(table, {"table": INT3}) is None
