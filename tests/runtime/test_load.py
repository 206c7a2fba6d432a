import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import mpq
from mpq.errors import FormatError, MismatchError, ModelError, UsageError
from mpq.models.sources.load import from_module, load_model
from mpq.tensors.packed import PackedTensor
from tests.apply.making import expected_state, exported, in_memory, plan_of, same
from tests.models.small import MODELS, bits, inputs, mlp, tied

NAME = "a.mpq.safetensors"


def artifact(folder: Path, kind: str = "mlp", *texts: str) -> Path:
    model = in_memory(kind)
    return mpq.apply(model, plan_of(model, kind, *([texts] if texts else [])), folder / NAME).path


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("quantizer", ["rtn", "mse"])
def test_a_module_that_is_given_holds_the_fake_quantized_weights_to_the_bit(tmp_path: Path, kind: str, quantizer: str) -> None:
    model = in_memory(kind)
    plan = plan_of(model, kind, quantizer=quantizer)
    mpq.apply(model, plan, tmp_path / NAME)
    fresh = MODELS[kind][0]()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(7.0)
    loaded = mpq.load(tmp_path / NAME, fresh)
    assert loaded is fresh
    assert same(loaded, expected_state(model, plan, kind))


@pytest.mark.parametrize("kind", MODELS)
def test_an_exported_source_is_rebuilt_with_the_fake_quantized_weights_to_the_bit(tmp_path: Path, kind: str) -> None:
    model = exported(kind, tmp_path)
    plan = plan_of(model, kind)
    path = mpq.apply(model, plan, tmp_path / NAME).path
    (tmp_path / "model.pt2").unlink()
    assert path.stat().st_size == plan.size.file_bytes
    loaded, state = mpq.load(path), expected_state(model, plan, kind)
    assert same(loaded, state)
    reference = MODELS[kind][0]()
    reference.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(loaded(MODELS[kind][1]), reference(MODELS[kind][1]), rtol=1e-3, atol=1e-5)


def test_a_state_dict_is_loaded_into_the_module_of_its_factory(tmp_path: Path) -> None:
    torch.save(mlp().state_dict(), tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt", factory="tests.models.small:mlp")
    plan = plan_of(model, "mlp")
    path = mpq.apply(model, plan, tmp_path / NAME).path
    assert same(mpq.load(path, mlp(1)), expected_state(model, plan, "mlp"))


def test_ties_stay_ties_and_are_stored_once(tmp_path: Path) -> None:
    loaded = mpq.load(artifact(tmp_path, "tied"), tied())
    assert loaded.get_parameter("head.weight").data_ptr() == loaded.get_parameter("embedding.weight").data_ptr()
    with safe_open(tmp_path / NAME, framework="pt") as file:
        assert not any(name.startswith("head") for name in file.keys())  # noqa: SIM118


def test_a_module_in_which_the_ties_are_missing_gets_the_weights_under_every_name(tmp_path: Path) -> None:
    module = tied()
    module.get_submodule("head").weight = nn.Parameter(torch.zeros(11, 8))
    loaded = mpq.load(artifact(tmp_path, "tied"), module)
    assert torch.equal(loaded.get_parameter("head.weight"), loaded.get_parameter("embedding.weight"))


def test_a_module_with_more_ties_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    table = mpq.analyze(model, [inputs(8, 8)], candidates=("4",))
    mpq.apply(model, mpq.search(table, "16bits").plan, tmp_path / NAME, data=[inputs(8, 8)])
    model.get_submodule("1").weight = model.get_parameter("0.weight")
    with pytest.raises(MismatchError) as error:
        mpq.load(tmp_path / NAME, model)
    expected = f"'1.weight' and '0.weight' are one tensor in the model and two in {tmp_path / NAME}: give each its own"
    assert str(error.value) == expected


def test_the_loaded_module_is_in_eval_mode(tmp_path: Path) -> None:
    assert not mpq.load(artifact(tmp_path), mlp().train()).training


class Wrapper(nn.Module):
    """Holds a model under a name, as torch.compile ("_orig_mod") and DataParallel ("module") do."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, mlp())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.get_submodule(self.name)(x)
        return found


@pytest.mark.parametrize("name", ["_orig_mod", "module"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_wrapped_model_is_loaded_into_the_module_without_its_wrapper(tmp_path: Path, name: str, packed: bool) -> None:
    wrapped = from_module(Wrapper(name).eval())
    plan = plan_of(wrapped, "mlp")
    path = mpq.apply(wrapped, plan, tmp_path / NAME).path
    expected = mpq.load(artifact(tmp_path), mlp(), packed=packed)
    with torch.no_grad():
        assert torch.equal(mpq.load(path, mlp(), packed=packed)(inputs(5, 8)), expected(inputs(5, 8)))


def test_a_lazy_module_that_never_ran_gets_its_shapes_from_the_artifact(tmp_path: Path) -> None:
    def lazy(last: int = 4) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(16), *list(mlp().children())[1:-1], nn.LazyLinear(last)).eval()

    path = artifact(tmp_path)
    for packed in (False, True):
        with torch.no_grad():
            assert torch.equal(mpq.load(path, lazy(), packed=packed)(inputs(5, 8)), mpq.load(path, mlp(), packed=packed)(inputs(5, 8)))
    with pytest.raises(MismatchError, match=r"^tensor '6.weight' is only in the model: give a module of the architecture"):
        mpq.load(path, nn.Sequential(*mlp().children(), nn.LazyLinear(2)))


def test_an_exported_module_can_be_given(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp")
    mpq.apply(model, plan, tmp_path / NAME)
    program = torch.export.export(mlp(1), (inputs(8, 8),))
    assert same(mpq.load(tmp_path / NAME, program.module()), expected_state(model, plan, "mlp"))


def test_weights_without_a_program_need_a_module(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    with pytest.raises(ModelError) as error:
        mpq.load(path)
    expected = "its source is a memory model: build the module and call mpq.load(artifact, module)"
    assert str(error.value) == f"{path} holds weights only, {expected}"


def test_a_module_with_other_tensors_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    other = nn.Sequential(*mlp().children(), nn.Linear(4, 4)).eval()
    before = bits(other)
    with pytest.raises(MismatchError) as error:
        mpq.load(path, other)
    assert str(error.value) == "tensor '6.bias' is only in the model: give a module of the architecture that was quantized"
    assert bits(other) == before
    with pytest.raises(MismatchError) as error:
        mpq.load(path, nn.Sequential(*list(mlp().children())[:-1]).eval())
    assert str(error.value) == f"tensor '5.bias' is only in {path}: give a module of the architecture that was quantized"


def test_a_module_with_other_shapes_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = mlp()
    other.get_submodule("5").weight = nn.Parameter(torch.zeros(5, 12))
    before = bits(other)
    with pytest.raises(MismatchError) as error:
        mpq.load(artifact(tmp_path), other)
    assert str(error.value) == "tensor '5.weight' has shape [4, 12] in the artifact and [5, 12] in the model"
    assert bits(other) == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = artifact(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"run `mpq apply` again$|write it again with `mpq apply`$"):
        mpq.load(path, mlp())


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / NAME)
    with pytest.raises(FormatError) as error:
        mpq.load(tmp_path / NAME, mlp())
    expected = "is a safetensors file, but not one that mpq wrote: create one with `mpq apply`"
    assert str(error.value) == f"{tmp_path / NAME} {expected}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as error:
        mpq.load(tmp_path / NAME)
    assert str(error.value) == f"cannot read {tmp_path / NAME}: No such file or directory; name an artifact, as `mpq apply` writes it"


def packed_weights(module: nn.Module) -> dict[str, PackedTensor]:
    return {name: p for name, p in module.named_parameters(remove_duplicate=False) if isinstance(p, PackedTensor)}


@pytest.mark.parametrize("kind", MODELS)
def test_a_packed_model_computes_what_the_dequantized_one_does(tmp_path: Path, kind: str) -> None:
    model = exported(kind, tmp_path)
    path = mpq.apply(model, plan_of(model, kind, ("int4-g8", "int3-asym", "nf4")), tmp_path / NAME).path
    inputs = MODELS[kind][1]
    with torch.no_grad():
        expected = mpq.load(path)(inputs)
        for found in (mpq.load(path, packed=True), mpq.load(path, MODELS[kind][0](), packed=True)):
            assert packed_weights(found)
            few = 1e-5 if expected.dtype == torch.float32 else 0.02  # products keep float32 weights, which these dtypes round
            assert torch.allclose(found(inputs), expected, rtol=1e-3, atol=few)
            assert not any(tensor.is_meta for tensor in found.state_dict().values())


def test_packed_weights_are_those_of_the_artifact_and_ties_are_held_once(tmp_path: Path) -> None:
    path = artifact(tmp_path, "tied")
    dense, found = mpq.load(path, tied()), packed_weights(mpq.load(path, tied(), packed=True))
    assert found["head.weight"] is found["embedding.weight"]
    for name, weight in found.items():
        assert torch.equal(weight.dequantize(), dense.get_parameter(name))


def test_a_weight_that_is_stored_in_the_models_own_dtype_is_an_ordinary_tensor(tmp_path: Path) -> None:
    found = mpq.load(artifact(tmp_path, "mlp", "fp32"), mlp(1), packed=True)
    assert not packed_weights(found)
    assert all(type(parameter) is nn.Parameter for parameter in found.parameters())


def test_torchscript_cannot_hold_packed_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(mlp(), inputs(8, 8))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match="a TorchScript module holds plain tensors only: load the artifact with packed=False"):
        mpq.load(artifact(tmp_path), module, packed=True)


def test_coded_layers_are_read_as_they_were_measured_and_run_as_int8(tmp_path: Path) -> None:
    model, plan = in_memory("mlp"), plan_of(in_memory("mlp"), "mlp", ("ec8", "ec7.5", "int8"))
    path = mpq.apply(model, plan, tmp_path / NAME).path
    assert path.stat().st_size == plan.size.file_bytes
    plain = mpq.load(path, MODELS["mlp"][0]())
    assert same(plain, expected_state(model, plan, "mlp"))
    packed = mpq.load(path, MODELS["mlp"][0](), packed=True)
    weight = packed.get_parameter("0.weight")
    assert isinstance(weight, PackedTensor)
    assert weight.scheme_name == "int8"
    assert torch.equal(weight.dequantize(), plain.get_parameter("0.weight"))
    x = MODELS["mlp"][1][0]
    torch.testing.assert_close(packed(x), plain(x))


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_codes_are_refused_with_the_layer_and_the_file(tmp_path: Path, packed: bool) -> None:
    plan = plan_of(in_memory("mlp"), "mlp", ("ec8", "int8", "int8"))
    path = mpq.apply(in_memory("mlp"), plan, tmp_path / NAME).path
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    first = json.loads(content[8 : 8 + length])["0.codes"]["data_offsets"][0]
    content[8 + length + first : 8 + length + first + 3] = b"\0\0\xff"
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError) as error:
        mpq.load(path, MODELS["mlp"][0](), packed=packed)
    reason = "its codes are damaged: a step of 0 and 255 classes of rows cannot be"
    layer = "0" if packed else "0.weight"
    assert str(error.value) == f"{path} is damaged (layer '{layer}': {reason}): run `mpq apply` again"


def test_the_name_of_a_model_in_place_of_a_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        mpq.load(artifact(tmp_path), "model.pt")  # type: ignore[arg-type]
    assert str(error.value) == "model is a str, not a torch.nn.Module: give the module itself, or leave it out"
