from pathlib import Path

import pytest
import torch
from torch import nn

import mpq
from mpq.demo import write_demo
from mpq.errors import BudgetError, MismatchError, OutputError

FAST = mpq.AnalysisSettings(candidates=("4", "8"), quantizer="rtn", metric="relative_mse")
FEW = mpq.SearchSettings(trials=1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)).eval()


def batches() -> list[torch.Tensor]:
    return list(torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(1)))


def test_one_call_leaves_all_files_and_tells_of_each_stage(tmp_path: Path) -> None:
    told: list[str] = []
    done = mpq.compress(net(), batches(), "6bits", output=tmp_path / "new", analysis=FAST, searching=FEW, on_stage=told.append)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "model.sensitivity.jsonl",
        "model.study.journal",
        "plan.yaml",
        "model.mpq.safetensors",
    }
    assert [line.partition(":")[0] for line in told] == ["analyze", "search", "apply", "check", "check"]
    assert told[0] == f"analyze: wrote {tmp_path / 'new' / 'model.sensitivity.jsonl'}: 2 layers, 5 values, relative_mse"
    assert told[-1] == f"check: ok    {done.checks[1].name}: {done.checks[1].message}"
    assert done.passed
    assert [check.passed for check in done.checks] == [True, True]
    assert done.path.stat().st_size == done.plan.size.file_bytes == done.applied.file_bytes
    assert mpq.read_plan(done.plan_path) == done.plan
    size = f"{done.plan.size.effective_bits:.4g} bits per weight"
    assert repr(done).startswith(f"<Compressed: {done.path}, {done.applied.file_bytes:,} bytes; Plan: 2 layers, {size}, ")
    assert repr(done).endswith("; within budget>")
    assert done._repr_html_() == done.found._repr_html_()
    assert torch.isfinite(mpq.load(done.path, net())(batches()[0])).all()


def test_the_model_is_unchanged_and_another_budget_keeps_the_analysis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = net()
    before = model(batches()[0])
    mpq.compress(model, batches(), "6bits", output=tmp_path, analysis=FAST, searching=FEW)
    analysis = (tmp_path / "model.sensitivity.jsonl").read_bytes()
    done = mpq.compress(model, batches(), mpq.Budget("1.3kB", "layers"), output=tmp_path, analysis=FAST, searching=FEW)
    assert torch.equal(model(batches()[0]), before)
    assert (tmp_path / "model.sensitivity.jsonl").read_bytes() == analysis
    assert done.plan.size.layer_bytes <= 1300
    assert capsys.readouterr().out.count("\n") == 10


def test_files_work_as_model_and_data_and_the_commands_go_on_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo("digits", tmp_path)
    monkeypatch.chdir(tmp_path)
    fast = mpq.AnalysisSettings(candidates=("4", "8"), quantizer="rtn", method="fisher")
    done = mpq.compress("model.pt2", Path("calibration.pt"), "5bits", output="made", analysis=fast, searching=mpq.SearchSettings(trials=0))
    assert done.plan.data["source"] == "../calibration.pt"
    assert done.plan.model["path"] == "../model.pt2"
    assert done.path == Path("made/model.mpq.safetensors")


def test_errors_are_those_of_the_stages_and_another_model_is_not_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(BudgetError):
        mpq.compress(net(), batches(), "1bits", output=tmp_path, analysis=FAST, on_stage=lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == {"model.sensitivity.jsonl"}
    with pytest.raises(MismatchError):
        mpq.compress(nn.Sequential(nn.Linear(32, 4)).eval(), batches(), "6bits", output=tmp_path, analysis=FAST)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        mpq.compress(net(), batches(), "6bits", output=tmp_path / "file", analysis=FAST)
    assert str(error.value) == f"cannot write to {tmp_path / 'file'}: File exists; choose another folder with output="
