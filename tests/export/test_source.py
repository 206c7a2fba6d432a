from pathlib import Path

import pytest
import torch

from mpq.apply.run import apply
from mpq.errors import FormatError
from mpq.export.abilities import ExportError
from mpq.export.source import open_source
from mpq.formats.scheme import Scheme
from mpq.records.plan import Plan, write_plan
from tests.apply.making import expected_state, in_memory, plan_of


def made(folder: Path, kind: str = "mlp") -> tuple[Plan, Path]:
    model = in_memory(kind)
    wanted = plan_of(model, kind)
    apply(model, wanted, folder / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    write_plan(wanted, folder / "plan.yaml")
    return wanted, folder / "m.mpq.safetensors"


def test_a_plan_and_its_artifact_are_seen_alike(tmp_path: Path) -> None:
    wanted, path = made(tmp_path)
    plan, artifact = open_source(tmp_path / "plan.yaml"), open_source(path)
    for source in (plan, artifact):
        assert (source.kind, source.schemes, source.stored, source.matrices) == ("memory", wanted.layers, wanted.layers, wanted.shapes)
        assert source.bytes == path.stat().st_size
        assert source.layer_bytes == wanted.size.layer_bytes
    assert (plan.plan, artifact.plan, plan.others, artifact.others) == (wanted, None, None, ())
    with pytest.raises(ExportError, match=r"plan.yaml is a plan, and this target needs the weights: run `mpq apply plan.yaml`, then "):
        plan.artifact  # noqa: B018


def test_weights_are_those_that_the_artifact_stores_in_model_order(tmp_path: Path) -> None:
    wanted, path = made(tmp_path)
    found = dict(open_source(path).weights())
    state = expected_state(in_memory("mlp"), wanted, "mlp")
    assert list(found) == list(wanted.layers)
    for name, weight in found.items():
        assert weight.scheme == wanted.layers[name]
        assert torch.equal(weight.dequantize().to(torch.float32), state[f"{name}.weight"])


def test_weights_in_wider_schemes_have_the_same_values(tmp_path: Path) -> None:
    _, path = made(tmp_path)
    source = open_source(path)
    wider = source.with_schemes(source.schemes | {"0": Scheme("int8", group_size=8)})
    narrow, wide = dict(source.weights())["0"], dict(wider.weights())["0"]
    assert (wide.scheme, narrow.scheme) == (Scheme("int8", group_size=8), Scheme("int4", group_size=8))
    assert torch.equal(wide.dequantize(), narrow.dequantize())
    assert wider.layer_bytes > source.layer_bytes
    assert wider.bytes == source.bytes


def test_the_rest_is_every_other_tensor_to_the_bit(tmp_path: Path) -> None:
    wanted, path = made(tmp_path, "conv")
    rest = open_source(path).rest()
    state = in_memory("conv").module.state_dict()
    assert rest.keys() == state.keys() - {f"{name}.weight" for name in wanted.layers}
    assert all(torch.equal(tensor, state[name]) for name, tensor in rest.items())


def test_matrices_that_were_not_searched_are_others(tmp_path: Path) -> None:
    model = in_memory("mlp")
    model.module.register_buffer("table", torch.zeros(3, 4))
    model.module.register_buffer("counts", torch.zeros(3, 4, dtype=torch.int64))
    apply(model, plan_of(model, "mlp"), tmp_path / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    assert open_source(tmp_path / "m.mpq.safetensors").others == ("table",)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\n")
    for name in ("x.yaml", "none.yaml"):
        with pytest.raises(FormatError):
            open_source(tmp_path / name)


def test_an_artifact_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    _, path = made(tmp_path)
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"m.mpq.safetensors is damaged \(.*\): run `mpq apply` again$"):
        list(source.weights())


def test_coded_layers_are_seen_as_int8_with_the_same_values(tmp_path: Path) -> None:
    model = in_memory("mlp")
    wanted = plan_of(model, "mlp", ("ec8", "int4-g8", "ec8"))
    apply(model, wanted, tmp_path / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    source = open_source(tmp_path / "m.mpq.safetensors")
    assert [str(scheme) for scheme in source.schemes.values()] == ["int8", "int4-g8", "int8"]
    assert (source.stored, source.coded) == (wanted.layers, ["0", "5"])
    state = expected_state(in_memory("mlp"), wanted, "mlp")
    for name, weight in source.weights():
        assert weight.scheme == source.schemes[name]
        assert torch.equal(weight.dequantize(), state[f"{name}.weight"])
