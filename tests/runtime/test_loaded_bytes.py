"""The memory that a budget counts is the memory that a loaded model takes."""

from pathlib import Path

import pytest
from torch import nn

import mpq
from mpq.check.measure_size import weigh
from mpq.records.loaded_size import FORMS, Form
from mpq.records.plan import write_plan
from mpq.tensors.kernels import bags
from mpq.tensors.packed import PackedTensor
from tests.apply.making import exported, plan_of
from tests.models.small import MODELS


def held(module: nn.Module) -> int:
    """Bytes of the state dict of a module, each storage once."""
    tensors = {
        id(tensor) if isinstance(tensor, PackedTensor) else tensor.data_ptr(): tensor
        for tensor in module.state_dict(keep_vars=True).values()
    }
    return sum(t.packed_bytes if isinstance(t, PackedTensor) else t.numel() * t.element_size() for t in tensors.values())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_model_takes_what_its_plan_and_its_file_predict(tmp_path: Path, kind: str, form: Form) -> None:
    if form == "packed" and not bags.available():
        pytest.skip("the kernels that this predicts for need FBGEMM and AVX2")
    model = exported(kind, tmp_path)
    plan = plan_of(model, kind)
    path = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors").path
    write_plan(plan, tmp_path / "plan.yaml")
    taken = held(mpq.load(path, packed=form == "packed"))
    assert (weigh(path).loaded[form], weigh(tmp_path / "plan.yaml").loaded[form]) == (taken, taken)
