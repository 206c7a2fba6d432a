import errno
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.apply.artifact_writer import ArtifactWriter, Contents
from mpq.budget import Budget
from mpq.errors import ApplyError, MismatchError, NumericsError
from mpq.files import OutputError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.unquantized_tensors import inventory, rest_options, rest_tensors, source_of
from mpq.models.running.fake_quantized import Variants
from mpq.models.sources.load import from_module
from mpq.records.artifact import read_artifact_header, read_rest_bytes
from mpq.records.plan import write_plan
from mpq.records.sensitivity_header import Rest
from mpq.tensors.quantized import QuantizedWeight
from tests.apply.making import expected_state, in_memory, layers_of, plan_of, same
from tests.models.small import MODELS, bits, data, mlp

NAME = "a.mpq.safetensors"


def refused(kind: type[Exception], model: Any, plan: Any, path: Path) -> str:
    with pytest.raises(kind) as error:
        mpq.apply(model, plan, path)
    assert list(path.parent.iterdir()) == []
    return str(error.value)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("texts", [("int4-g8", "int3-asym", "bf16", "int8"), ("fp16",), ("int2",)])
def test_the_file_has_the_size_that_the_plan_predicts(tmp_path: Path, kind: str, texts: tuple[str, ...]) -> None:
    model = in_memory(kind)
    before, plan = bits(model.module), plan_of(model, kind, texts)
    seen: list[tuple[int, int, str]] = []
    found = mpq.apply(model, plan, tmp_path / NAME, on_progress=lambda *call: seen.append(call))
    assert found.path.stat().st_size == found.file_bytes == plan.size.file_bytes
    assert found.original_bytes == sum(
        t.numel() * t.element_size() for name, t in model.module.state_dict().items() if name != "head.weight"
    )
    assert seen == [(number, len(plan.layers), name) for number, name in enumerate(plan.layers, start=1)]
    assert bits(model.module) == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_the_same_plan_gives_the_same_file(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp", quantizer="mse")
    mpq.apply(model, plan, tmp_path / "a")
    write_plan(plan, tmp_path / "plan.yaml")
    mpq.apply(mlp(), tmp_path / "plan.yaml", str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_plan_for_some_layers_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    table = mpq.analyze(mlp(), [torch.randn(8, 8)], targets=("0", "5"), candidates=("4",), quantizer="rtn")
    plan = mpq.search(table, "16bits").plan
    mpq.apply(mlp(), plan, tmp_path / NAME)
    loaded = mpq.load(tmp_path / NAME, mlp(1))
    assert torch.equal(loaded.get_parameter("3.weight"), mlp().get_parameter("3.weight"))
    assert not torch.equal(loaded.get_parameter("0.weight"), mlp().get_parameter("0.weight"))


def test_a_layer_of_zeros_does_not_change_which_is_reported(tmp_path: Path) -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("3.weight").zero_()
    model = from_module(module)
    plan = plan_of(model, "mlp", ("int8",))
    done = mpq.apply(model, plan, tmp_path / NAME)
    assert done.notes == ["'3' did not change: its weights are exactly representable in its scheme"]
    assert (tmp_path / NAME).stat().st_size == plan.size.file_bytes
    assert mpq.apply(model, plan, tmp_path / NAME, allow_unchanged=True).notes == []


def test_a_layer_too_small_for_its_scheme_is_refused(tmp_path: Path) -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("3.weight").mul_(1e-7)
    model = from_module(module)
    message = refused(ApplyError, model, plan_of(model, "mlp", ("int8",)), tmp_path / NAME)
    assert message == "layer '3' at int8: its weights are too small for fp16; use bf16 or fp32 for it"


def test_a_plan_for_another_model_is_refused(tmp_path: Path) -> None:
    plan = plan_of(in_memory("mlp"), "mlp")
    assert refused(MismatchError, mlp(1), plan, tmp_path / NAME).startswith("the plan was made for a model with sha256 ")


def test_an_edited_plan_over_its_budget_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    model = in_memory("mlp")
    within = replace(plan_of(model, "mlp", ("int4",)), budget=Budget("6.4bits"))
    mpq.apply(model, within, tmp_path / NAME)
    (tmp_path / NAME).unlink()
    edited = within.with_layers({**within.layers, "3": parse_scheme("fp16")})
    bits_, layer_bytes = edited.size.effective_bits, edited.size.layer_bytes
    over = layer_bytes - int(6.4 * edited.weights / 8)
    expected = f"the plan takes {layer_bytes} bytes ({bits_:.4g} bits per weight), {over} more than its budget 6.4bits (layers)"
    assert refused(ApplyError, model, edited, tmp_path / NAME) == f"{expected}: lower a layer, or raise the budget in the plan"


def test_a_file_budget_counts_the_whole_file(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp", ("int4",))
    size = plan.size.file_bytes
    mpq.apply(model, replace(plan, budget=Budget(f"{size}B", "file")), tmp_path / NAME)
    (tmp_path / NAME).unlink()
    message = refused(ApplyError, model, replace(plan, budget=Budget(f"{size - 1}B", "file")), tmp_path / NAME)
    assert f"the plan takes {size:,} bytes" in message
    assert ", 1 more than its budget" in message


def test_a_plan_with_another_constant_part_is_refused(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp")
    changed = replace(plan, rest=replace(plan.rest, data_bytes=plan.rest.data_bytes + 1))
    assert refused(MismatchError, model, changed, tmp_path / NAME).startswith(
        f"the plan's 'rest' says {plan.rest.data_bytes + 1} bytes of data"
    )


def full(_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_half_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put, calls = ArtifactWriter.put, 0

    def put_until_full(self: ArtifactWriter, name: str, tensor: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            full(None)
        put(self, name, tensor)

    monkeypatch.setattr(ArtifactWriter, "put", put_until_full)
    model = in_memory("mlp")
    message = refused(OutputError, model, plan_of(model, "mlp"), tmp_path / NAME)
    assert message == f"cannot write {tmp_path / NAME}: No space left on device; choose another place with --output"


def test_a_disk_that_is_full_at_the_end_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_memory("mlp")
    (tmp_path / NAME).write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError):
        mpq.apply(model, plan_of(model, "mlp"), tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failing_quantizer_leaves_no_file(tmp_path: Path) -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("5.weight").mul_(1e7)
    model = from_module(module)
    with pytest.raises(mpq.MpqError, match=r"^layer '5' at int4: a scale of "):
        mpq.apply(model, plan_of(model, "mlp", ("int4",)), tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    model = in_memory("mlp")
    with pytest.raises(OutputError) as error:
        mpq.apply(model, plan_of(model, "mlp"), tmp_path / "missing" / NAME)
    expected = "No such file or directory; choose another place with --output"
    assert str(error.value) == f"cannot write {tmp_path / 'missing' / NAME}: {expected}"


def test_a_training_module_is_refused(tmp_path: Path) -> None:
    model = in_memory("mlp")
    with pytest.raises(mpq.MpqError, match="training mode"):
        mpq.apply(nn.Linear(2, 2), plan_of(model, "mlp"), tmp_path / NAME)


def test_a_plan_of_a_quantizer_with_statistics_is_applied_with_the_data_of_its_analysis(tmp_path: Path) -> None:
    model, batches = mlp(), [torch.randn(64, 8, generator=torch.Generator().manual_seed(0))]
    table = mpq.analyze(model, batches, candidates=("4", "8"), quantizer="gptq")
    plan = mpq.search(table, "20bits").plan
    missing = r"^quantizer 'gptq' needs the calibration data that the plan was made with \(memory\): pass it as data$"
    with pytest.raises(ApplyError, match=missing):
        mpq.apply(model, plan, tmp_path / "a.mpq.safetensors")
    with pytest.raises(MismatchError, match=r"^the plan was made with other calibration data "):
        mpq.apply(model, plan, tmp_path / "a.mpq.safetensors", data=[batches[0] + 1])
    done = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors", data=batches)
    assert done.file_bytes == plan.size.file_bytes


def test_nothing_is_written_before_everything_is_decided(tmp_path: Path) -> None:
    samples = data(64)
    table = mpq.analyze(mlp(), samples, candidates=("int3",), quantizer="rtn", method="weight")
    seen: list[str] = []

    def report(name: str) -> Callable[[int, int, str], None]:
        def progress(done: int, total: int, text: str) -> None:
            assert list(tmp_path.iterdir()) == []
            seen.append(name)

        return progress

    mpq.apply(mlp(), mpq.search(table, "16bits").plan, tmp_path / NAME, data=samples, on_progress=report("apply"), on_recovery=report)
    assert list(dict.fromkeys(seen)) == ["apply", "sequential", "reconstruction", "tuning"]


def test_without_recovery_one_quantized_layer_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[QuantizedWeight]] = []
    quantized = Variants.quantized

    def watched(self: Variants, name: str, scheme: Scheme) -> QuantizedWeight:
        assert sum(weight() is not None for weight in made) <= 1  # the one before, until its parts are written
        found = quantized(self, name, scheme)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Variants, "quantized", watched)
    model = in_memory("mlp")
    mpq.apply(model, plan_of(model, "mlp", ("int4",)), tmp_path / NAME)
    assert len(made) == 3


def test_a_size_that_is_not_the_plans_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp", ("int4",))
    monkeypatch.setattr(Contents, "file_bytes", 7)
    message = refused(ApplyError, model, plan, tmp_path / NAME)
    assert message == f"the file would have 7 bytes, the plan predicts {plan.size.file_bytes}: this is a bug in mpq, please report it"


@pytest.mark.parametrize("kind", ["mlp", "conv", "tied"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_unquantized_tensors_are_stored_smaller_to_the_byte_and_given_back_in_their_own_dtype(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    model = in_memory(kind)
    plain = plan_of(model, kind, ("int4-g8", "int8"))
    rest = rest_options(model, layers_of(model, kind), source=plain.model, quantizer="rtn")[dtype]
    assert isinstance(rest, Rest)
    plan = replace(plain, rest=rest)
    found = mpq.apply(model, plan, tmp_path / NAME)
    assert found.path.stat().st_size == plan.size.file_bytes
    assert plan.rest.data_bytes < plain.rest.data_bytes
    header = read_artifact_header(found.path)
    assert (header.rest_dtype, header.rest_bytes) == (dtype, plain.rest.original_bytes)
    assert read_rest_bytes(found.path, header) == plain.rest.original_bytes
    small = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    wanted = expected_state(model, plan, kind)
    for name in rest_tensors(model, layers_of(model, kind)):
        if wanted[name].is_floating_point():
            wanted[name] = wanted[name].to(small).to(wanted[name].dtype)
    assert same(mpq.load(found.path, MODELS[kind][0]()), wanted)
    packed = mpq.load(found.path, MODELS[kind][0](), packed=True)
    assert all(torch.equal(packed.state_dict()[name], wanted[name]) for name in rest_tensors(model, layers_of(model, kind)))


def test_a_value_that_the_dtype_cannot_hold_is_refused_with_its_tensor_and_nothing_is_written(tmp_path: Path) -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("2.weight")[3] = 1e5
    model = from_module(module)
    layers = layers_of(model, "mlp")
    options = rest_options(model, layers, source=source_of(model, "model.pt2"), quantizer="rtn")
    assert options["fp16"] == "'2.weight' holds 1e+05, and fp16 ends at 6.55e+04: use --rest bf16, which reaches as far as fp32"
    assert isinstance(options["bf16"], Rest)
    assert "fp32" not in options
    plan = plan_of(model, "mlp")
    rest = inventory(model, layers, source=plan.model, quantizer="rtn", dtype="fp16")
    assert refused(NumericsError, model, replace(plan, rest=rest), tmp_path / NAME).startswith("'2.weight' holds 1e+05")


def test_recovery_is_judged_with_unquantized_tensors_as_they_are_stored(tmp_path: Path) -> None:
    model, samples = in_memory("mlp"), data(96)
    table = mpq.analyze(model, samples, candidates=("2", "8"), quantizer="rtn")
    plan = mpq.search(table, "4bits", rest="bf16").plan
    found = mpq.apply(model, plan, tmp_path / NAME, data=samples)
    loaded = mpq.load(found.path, mlp())
    held_out = samples.split_as(table.header.data).held_out
    kept = [decision for decision in found.decisions if decision.kept]
    assert kept
    measured = mpq.evaluate(mlp(), loaded, held_out)["kl_divergence"].quantized
    assert measured == pytest.approx(kept[-1].after, rel=1e-4)
    vectors = [tensor for name, tensor in loaded.named_parameters() if tensor.ndim == 1]
    assert all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in vectors)
