from pathlib import Path

import pytest
import torch

from mpq.apply.run import apply
from mpq.cli.eval_artifact import evaluate_artifact
from mpq.config import DataSettings
from mpq.errors import FormatError, MismatchError, UsageError
from mpq.evaluate.run import evaluate
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.load import load_model
from mpq.runtime.load import load
from tests.apply.making import exported, plan_of
from tests.models.small import MODELS

DATA = DataSettings()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = exported("mlp", tmp_path)
    apply(model, plan_of(model, "mlp"), "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    torch.save(MODELS["mlp"][1], "data.pt")


def test_the_figures_are_those_of_the_function_on_both_models() -> None:
    model = load_model(Path("model.pt2"))
    samples = fit_data([MODELS["mlp"][1]], model=model, source="memory")
    expected = evaluate(model, load("m.mpq.safetensors"), samples)
    found = evaluate_artifact(Path("m.mpq.safetensors"), "data.pt", DATA)
    assert found.samples == 8
    assert [(figure.name, figure.quantized) for figure in found.figures] == [(figure.name, figure.quantized) for figure in expected.figures]


def test_the_reference_must_be_the_one_that_it_was_made_from() -> None:
    Path("model.pt2").rename("moved.pt2")
    with pytest.raises(MismatchError, match="give --reference MODEL"):
        evaluate_artifact(Path("m.mpq.safetensors"), "data.pt", DATA)
    assert evaluate_artifact(Path("m.mpq.safetensors"), "data.pt", DATA, reference=Path("moved.pt2")).samples == 8


def test_what_is_not_there_and_outputs_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(FormatError, match=r"^none.safetensors does not exist: run `mpq apply` first, or name the artifact$"):
        evaluate_artifact(Path("none.safetensors"), "data.pt", DATA)
    with pytest.raises(UsageError):
        evaluate_artifact(Path("m.mpq.safetensors"), "data.pt", DATA, outputs=("boxes",))
