"""What Python shows of the objects that users hold is one short line, whatever they hold."""

import pytest
import torch
from torch import nn

import mpq
from mpq.apply.run import Applied
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import from_module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(32, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.first(x).relu())
        return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    torch.manual_seed(0)
    model, folder = from_module(Net().eval()), tmp_path_factory.mktemp("repr")
    data = fit_data([torch.randn(16, 32) for _ in range(4)], model=model, source="memory")
    table = mpq.analyze(model, data, candidates=(4, 8), quantizer="rtn", metric="relative_mse", progress=True)
    found = mpq.search(table, "6bits", measurer=mpq.PlanMeasurer(model, data, table), trials=1, progress=True)
    steps: list[str] = []
    applied = mpq.apply(
        model, found.plan, folder / "small.mpq.safetensors", data=data, progress=True, on_progress=lambda *step: steps.append(step[2])
    )
    assert steps[:2] == ["first", "head"]
    evaluation = mpq.evaluate(model, mpq.load(applied.path, Net()), data, progress=True)
    return {"model": model, "data": data, "table": table, "found": found, "plan": found.plan, "applied": applied, "eval": evaluation}


def test_no_line_is_long(results: dict[str, object]) -> None:
    for name, found in results.items():
        assert len(repr(found)) < 300, name
        assert repr(found).startswith(f"<{type(found).__name__}"), name
        assert "\n" not in repr(found), name


def test_models_data_and_what_was_written_are_told_by_their_facts(results: dict[str, object]) -> None:
    assert repr(results["model"]).startswith("<LoadedModel: Net, in memory, sha256 ")
    assert repr(results["data"]) == "<Data: 64 samples of [32], from memory, in 4 batches>"
    applied = results["applied"]
    assert isinstance(applied, Applied)
    times = f"{applied.original_bytes / applied.file_bytes:.2f} times smaller"
    assert repr(applied).startswith(f"<Applied: {applied.path}, {applied.file_bytes:,} bytes, {times}; recovery kept: ")
