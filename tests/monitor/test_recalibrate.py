from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.batch import Batch
from mpq.data.dataset import data_from_batches
from mpq.errors import FormatError, UsageError
from mpq.files import journal_line
from mpq.models.sources.load import from_module
from mpq.monitor.recalibrate import kept_samples, recalibrate, settings_of, write_joined
from tests.activations.networks import images, residual
from tests.records.test_monitor_log import LINE


def test_samples_are_those_of_the_last_line(tmp_path: Path) -> None:
    log, samples = tmp_path / "log.jsonl", tmp_path / "log.samples.pt"
    log.write_bytes(journal_line({**LINE, "kept": 2}))
    with pytest.raises(
        FormatError, match=r"cannot read .*log\.samples\.pt, the samples of log\.jsonl \(No such file or directory\): watch"
    ):
        kept_samples(log)
    torch.save([nn.Linear(1, 1), nn.Linear(1, 1)], samples)
    with pytest.raises(
        FormatError, match=r"samples\.pt holds pickled Python objects \(torch\.nn\.modules\.linear\.Linear\), which run code"
    ):
        kept_samples(log)
    torch.save([(torch.ones(1, 3),)], samples)
    with pytest.raises(FormatError, match=r"does not have the 2 samples of the last line of log\.jsonl"):
        kept_samples(log)
    torch.save([(torch.ones(1, 3),), (torch.zeros(1, 3),)], samples)
    assert [int(call[0].sum()) for call in kept_samples(log)] == [3, 0]
    log.write_bytes(journal_line(LINE))
    with pytest.raises(UsageError, match="has no samples: watch the model with"):
        kept_samples(log)


def test_joined_data_has_the_inputs_of_both(tmp_path: Path) -> None:
    data = data_from_batches([torch.zeros(2, 3), torch.ones(1, 3)])
    write_joined(nn.Identity(), data, [(torch.full((1, 3), 2.0),)], tmp_path / "joined.pt")
    found = torch.load(tmp_path / "joined.pt", weights_only=True)
    assert [int((call[0] if isinstance(call, tuple) else call)[0, 0]) for call in found] == [0, 1, 2]
    words = data_from_batches([{"ids": torch.ones(2, 3, dtype=torch.int64)}])
    write_joined(nn.Identity(), words, [], tmp_path / "joined.pt")
    assert [list(call) for call in torch.load(tmp_path / "joined.pt", weights_only=True)] == [["ids"]]


@pytest.mark.parametrize("chosen", ["all", "off"])
def test_integers_between_layers_stay_as_the_plan_has_them(tmp_path: Path, chosen: str) -> None:
    module, data = residual(), data_from_batches(list(torch.split(images(16), 4)))
    choices: dict[str, Any] = {
        "candidates": ("8",),
        "quantizer": "rtn",
        "method": "measure",
        "metric": "relative_mse",
        "activations": ("8d", "8"),
    }
    table = mpq.analyze(module, data, **choices)
    assert settings_of(table).activations == ("8", "8d")
    plan = mpq.search(table, "10bits", trials=0, activations=chosen).plan
    output = tmp_path / "t.sensitivity.jsonl"
    found = recalibrate(from_module(module), data, table, plan, output=output, reading={}, trials=0).plan
    assert found.activations == plan.activations
    assert bool(plan.activations) == (chosen == "all")
    assert found.assignment == plan.assignment


class Masked(nn.Module):
    """Takes ids and a mask."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return ids * mask


def test_joined_data_names_inputs_if_some_have_names(tmp_path: Path) -> None:
    ids, mask = torch.full((2, 3), 5.0), torch.ones(2, 3)
    data = data_from_batches([Batch((ids,), {"mask": mask})])
    write_joined(Masked(), data, [], tmp_path / "joined.pt")
    (found,) = torch.load(tmp_path / "joined.pt", weights_only=True)
    assert list(found) == ["ids", "mask"]
    assert torch.equal(found["ids"], ids)
    with pytest.raises(UsageError, match="has inputs by position and by name, and `forward` does not name them all: give all by name"):
        write_joined(Unnamed(), data, [], tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


class Unnamed(nn.Module):
    """Takes any inputs."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return args[0]
