from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mpq
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.cli.typed import done

IDS = torch.randint(1, 9, (8, 5), generator=torch.Generator().manual_seed(0))
MASK = torch.ones(8, 5, dtype=torch.int64)
MASK[:, 4] = 0


class Encoder(nn.Module):
    """A table of 10 x 4, a matrix of 4 x 3 with a bias, a buffer, and a matrix of 6 x 6 that no input reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(10, 4), nn.Linear(4, 3)
        self.unused = nn.Linear(6, 6, bias=False)
        self.register_buffer("constant", torch.ones(7))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        found = self.table(input_ids) * attention_mask[..., None]
        return {"logits": self.linear(found), "last_hidden_state": found, "tokens": input_ids}


def analyzed(path: Path | None = None, **choices: Any) -> Sensitivity:
    torch.manual_seed(0)
    module = Encoder().eval()
    data = fit_data({"input_ids": IDS, "attention_mask": MASK}, model=from_module(module), source="memory")
    return mpq.analyze(module, data, candidates=("4", "8"), quantizer="rtn", method="measure", output=path, **choices)


def coverage(table: Sensitivity) -> dict[str, int]:
    assert table.finish is not None
    found: dict[str, int] = table.finish["coverage"]
    return found


def test_everything_that_was_seen_is_counted_and_recorded(tmp_path: Path) -> None:
    table = analyzed(tmp_path / "a.sensitivity.jsonl")
    assert coverage(table) == {
        "layers": 2,
        "searched_bytes": 4 * (10 * 4 + 4 * 3),
        "left_out": 3,  # bias, constant, unused
        "left_out_bytes": 4 * (3 + 7 + 6 * 6),
        "outputs": 1,
        "outputs_returned": 2,
        "positions": 5 * 4,  # one of 8 samples is the gap between the two sides
        "positions_given": 5 * 5,
        "calibration": 5,
        "held_out": 2,
    }
    assert coverage(read_sensitivity(tmp_path / "a.sensitivity.jsonl")) == coverage(table)


def test_ignored_layers_are_left_out_and_asked_for_outputs_count() -> None:
    found = coverage(analyzed(ignore=("table",), outputs=("*",)))
    assert (found["layers"], found["left_out"]) == (1, 4)
    assert (found["searched_bytes"], found["left_out_bytes"]) == (4 * 12, 4 * (3 + 7 + 36 + 40))
    assert (found["outputs"], found["outputs_returned"]) == (2, 2)


def test_show_prints_the_line(tmp_path: Path) -> None:
    analyzed(tmp_path / "a.sensitivity.jsonl")
    printed = " ".join(done(f"show {tmp_path / 'a.sensitivity.jsonl'}").out.split())
    assert "coverage: 2 layers searched, 53.1% of the model's bytes; 3 tensors left out, 46.9%; 1 of 2 outputs compared; 80.0%" in printed


def test_weights_outside_the_state_dict_are_left_out_and_named() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), Times(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))).eval()
    table = mpq.analyze(module, torch.randn(16, 8), candidates=("8",), quantizer="rtn", method="measure")
    assert (coverage(table)["left_out"], coverage(table)["left_out_bytes"]) == (2, 4 * (6 + 6 * 5))
    assert any(
        note.startswith("used as weights but not in the state dict, so neither searched") and "2.by (120 bytes" in note
        for note in table.header.notes
    )


class Times(nn.Module):
    def __init__(self, by: Tensor) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.by
