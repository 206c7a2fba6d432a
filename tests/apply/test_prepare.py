"""Training under a plan in the user's own loop: what `prepare` puts in place, and what `convert` writes."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

import mpq
from mpq.data.batch import Batch
from mpq.errors import ApplyError, MismatchError, NumericsError, UsageError
from mpq.models.layers.discover import discover
from mpq.models.layers.unquantized_tensors import inventory, source_of
from mpq.models.sources.load import from_module
from mpq.records.activations import ActivationGroup, RoundedTensor
from mpq.records.artifact_files import read_header
from mpq.records.plan import plan_for
from tests.activations.networks import images, residual
from tests.apply.making import exported, in_memory, plan_of
from tests.models.small import MODELS, bits, inputs, mlp
from tests.small import schemes


def trained(module: nn.Module, teacher: nn.Module, given: Tensor, *, steps: int = 60, rate: float = 1e-2) -> tuple[float, float]:
    """The first loss of some steps of the user's optimizer, and the least."""
    target = teacher(given).detach().float()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = (module(given).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], min(losses)


def test_tensors_between_layers_are_rounded_in_training_and_in_copies_until_it_is_converted(tmp_path: Path) -> None:
    model, given = from_module(residual()), images()
    layers, source = discover(model.module, [Batch((given,))]).layers, source_of(model, None)
    rest = inventory(model, layers, source=source, quantizer="rtn")
    (int8,) = schemes("int8")
    plan = plan_for(layers, {layer.name: int8 for layer in layers}, model=source, quantizer="rtn", rest=rest)
    groups = {"second": ActivationGroup("a8", (RoundedTensor(("conv.1",), 0.0625, 0),))}
    plan = replace(plan, activations=groups)
    module = mpq.prepare(model, plan)
    plain = module(given)
    expected = mpq.load(mpq.convert(copy.deepcopy(module), tmp_path / "a.mpq.safetensors").path, residual())(given)
    torch.testing.assert_close(plain, expected)
    first, last = trained(module, residual(), given, steps=20, rate=1e-5)
    assert last < first
    assert not torch.equal(mpq.load(tmp_path / "a.mpq.safetensors", residual(), activations=False)(given), expected)
    mpq.convert(module, tmp_path / "b.mpq.safetensors")
    assert read_header(tmp_path / "b.mpq.safetensors").activations == groups
    assert not module._forward_pre_hooks


@pytest.mark.parametrize("kind", MODELS)
def test_training_lowers_the_loss_and_the_artifact_holds_what_was_trained_in_the_bytes_of_the_plan(kind: str, tmp_path: Path) -> None:
    model, given = in_memory(kind), MODELS[kind][1]
    teacher = copy.deepcopy(model.module)
    plan = plan_of(model, kind, ("int3-g4", "ternary", "int4-asym", "bf16"))
    module = mpq.prepare(model, plan)
    assert module is model.module
    first, last = trained(module, teacher, given)
    assert last < 0.95 * first
    outputs = module(given)
    made = mpq.convert(module, tmp_path / "a.mpq.safetensors")
    assert made.path.stat().st_size == made.file_bytes == plan.size.file_bytes
    assert torch.equal(module(given), outputs)
    assert module.state_dict().keys() == teacher.state_dict().keys()
    assert type(module) is type(teacher)
    loaded = mpq.load(made.path, MODELS[kind][0]())
    assert bits(loaded) == bits(module)
    assert read_header(made.path).recovery == ("training",)


def test_it_begins_where_apply_left_off(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp")
    artifact = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors").path
    given = inputs(8, 8)
    expected = mpq.load(artifact, mlp())(given)
    assert torch.equal(mpq.prepare(mlp(), plan, artifact=artifact)(given), expected)
    assert torch.equal(mpq.prepare(mlp(), plan)(given), expected)  # the same quantizer, and nothing was recovered
    other = plan_of(model, "mlp", ("int8",))
    with pytest.raises(MismatchError, match=r"a\.mpq\.safetensors was not made from this plan"):
        mpq.prepare(mlp(), other, artifact=artifact)


@pytest.mark.parametrize(("level", "moving"), [("scales", 1), ("codes", 2), ("weights", 2), (None, 2)])
def test_a_level_says_what_moves(level: Any, moving: int) -> None:
    model = in_memory("mlp")
    mpq.prepare(model, plan_of(model, "mlp", ("int4-g8",)), level=level)
    names = [name for name, _ in model.module.named_parameters() if name.startswith("0.parametrizations")]
    assert names == [f"0.parametrizations.weight.original{number}" for number in range(moving)]
    ternary = in_memory("mlp")
    mpq.prepare(ternary, plan_of(ternary, "mlp", ("ternary",)), level=level)
    there = [name for name, _ in ternary.module.named_parameters() if name == "0.parametrizations.weight.original1"]
    assert bool(there) == (level in ("weights", None))


def test_formats_of_other_scales_stay_and_are_written_as_they_were(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp", ("mxfp4",))
    before = mpq.apply(in_memory("mlp"), plan, tmp_path / "a.mpq.safetensors").path
    module = mpq.prepare(model, plan)
    assert [name for name, parameter in module.named_parameters() if not parameter.requires_grad] == ["0.weight", "3.weight", "5.weight"]
    module.get_parameter("0.bias").data.add_(1)
    after = mpq.convert(module, tmp_path / "b.mpq.safetensors").path
    first, second = mpq.load(before, mlp()).state_dict(), mpq.load(after, mlp()).state_dict()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == ["0.bias"]


def test_an_exported_program_can_be_prepared(tmp_path: Path) -> None:
    model = exported("mlp", tmp_path)
    given, teacher = MODELS["mlp"][1], mlp()
    plan = plan_of(model, "mlp", ("int2-g4",))
    module = mpq.prepare(model, plan)
    first, last = trained(module, teacher, given)
    assert last < 0.5 * first
    outputs = module(given)
    made = mpq.convert(module, tmp_path / "a.mpq.safetensors")
    assert made.file_bytes == plan.size.file_bytes
    assert torch.equal(mpq.load(made.path)(given), outputs)


def test_checkpoints_of_the_users_loop_load_into_a_model_prepared_anew(tmp_path: Path) -> None:
    plan = plan_of(in_memory("mlp"), "mlp", ("int3-g4", "ternary"))
    module, given = mpq.prepare(mlp(), plan), inputs(8, 8)
    trained(module, mlp(), given, steps=5)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    again = mpq.prepare(mlp(), plan)
    assert not torch.equal(again(given), module(given))
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(again(given), module(given))
    copied = copy.deepcopy(module)
    assert mpq.convert(copied, tmp_path / "a.mpq.safetensors").file_bytes == plan.size.file_bytes
    assert parametrize.is_parametrized(module.get_submodule("0"))  # the copy alone was converted


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_wrapped_module_trains_and_converts(process_group: None, tmp_path: Path) -> None:
    plan = plan_of(in_memory("mlp"), "mlp", ("int3-g4", "ternary"))
    wrapped = DistributedDataParallel(mpq.prepare(mlp(), plan))
    first, last = trained(wrapped, mlp(), inputs(8, 8), steps=20)
    assert last < first
    assert mpq.convert(wrapped, tmp_path / "a.mpq.safetensors").file_bytes == plan.size.file_bytes


def test_a_sharded_module_trains_and_its_gathered_state_converts(process_group: None, tmp_path: Path) -> None:
    plan = plan_of(in_memory("mlp"), "mlp", ("int3-g4", "ternary"))
    module = mpq.prepare(mlp(), plan)
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    first, last = trained(module, mlp(), inputs(8, 8), steps=20)
    assert last < first
    with pytest.raises(UsageError, match=r"^'0\.bias' is sharded over processes: gather a full state dict, load it into a model that was"):
        mpq.convert(module, tmp_path / "a.mpq.safetensors")
    gathered = mpq.prepare(mlp(), plan)
    gathered.load_state_dict({name: tensor.full_tensor() for name, tensor in module.state_dict().items()})
    assert mpq.convert(gathered, tmp_path / "a.mpq.safetensors").file_bytes == plan.size.file_bytes
    assert torch.equal(gathered(inputs(8, 8)), module(inputs(8, 8)))


def test_bad_use_is_refused_in_one_line_and_changes_nothing(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp", ("int4-g8",))
    with pytest.raises(UsageError, match=r"^this model was not prepared: call mpq\.prepare\(model, plan\) before training it$"):
        mpq.convert(model.module, tmp_path / "a.mpq.safetensors")
    with pytest.raises(UsageError, match="'all' is not a level"):
        mpq.prepare(model, plan, level="all")  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="the plan was made for a model with sha256"):
        mpq.prepare(mlp(seed=1), plan)
    assert bits(model.module) == bits(mlp())
    module = mpq.prepare(model, plan)
    with pytest.raises(UsageError, match=r"^this model is prepared already: train it, then call mpq\.convert$"):
        mpq.prepare(model, plan)
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(float("nan"))
    with pytest.raises(NumericsError, match=r"^training gave numbers that are not finite in '0\.bias': train again at a lower rate$"):
        mpq.convert(module, tmp_path / "a.mpq.safetensors")
    assert not (tmp_path / "a.mpq.safetensors").exists()


def test_a_torchscript_model_is_refused() -> None:
    plan = plan_of(in_memory("mlp"), "mlp", ("int4-g8",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted: nn.Module = torch.jit.trace(mlp(), inputs(8, 8))  # type: ignore[no-untyped-call]
    with pytest.raises(ApplyError, match="a TorchScript model cannot be prepared"):
        mpq.prepare(replace(in_memory("mlp"), module=scripted), plan)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.body(x)[0]
        return made


def test_an_lstm_is_refused_since_its_own_list_of_weights_would_not_be_trained() -> None:
    torch.manual_seed(0)
    model = from_module(Recurrent().eval())
    layers = discover(model.module, [Batch((inputs(8, 3, 8),))]).layers
    source = source_of(model, None)
    chosen = dict.fromkeys((layer.name for layer in layers), schemes("int4")[0])
    plan = plan_for(layers, chosen, model=source, quantizer="rtn", rest=inventory(model, layers, source=source, quantizer="rtn"))
    with pytest.raises(
        ApplyError, match=r"^'body\.weight_ih_l0' cannot be prepared, for LSTM keeps a list of its weights: use `mpq recover`$"
    ):
        mpq.prepare(model, plan)


def test_a_weight_behind_a_parametrization_is_refused() -> None:
    module = mlp()
    parametrize.register_parametrization(module[0], "weight", nn.Identity())  # type: ignore[index]
    model = from_module(module)
    with pytest.raises(ApplyError, match=r"is behind a parametrization: remove that before you analyze the model$"):
        mpq.prepare(model, plan_of(model, "mlp", ("int4-g8",)))
