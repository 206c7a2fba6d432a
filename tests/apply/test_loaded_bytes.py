"""The memory that a budget counts is the memory that a loaded model takes."""

from pathlib import Path

import pytest
from torch import nn

import mpq
from mpq.check.weigh import weigh
from mpq.models.state import state_of, tied_names
from mpq.records.plan import write_plan
from tests.apply.making import exported, plan_of
from tests.models.small import MODELS


def held(module: nn.Module) -> int:
    """Bytes of the state dict of a module, each storage once."""
    state = state_of(module)
    return sum(state[names[0]].untyped_storage().nbytes() for names in tied_names(state))


@pytest.mark.parametrize("kind", MODELS)
def test_a_loaded_model_takes_what_its_plan_and_its_file_predict(tmp_path: Path, kind: str) -> None:
    model = exported(kind, tmp_path)
    plan = plan_of(model, kind)
    path = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors").path
    write_plan(plan, tmp_path / "plan.yaml")
    taken = held(mpq.load(path))
    assert (weigh(path).loaded, weigh(tmp_path / "plan.yaml").loaded) == (taken, taken)
