"""Checkpoints as training writes and people publish them: what fits is found, read under the module's names, and said."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import mpq
from mpq.errors import ModelError, UsageError
from mpq.models.sources.load import from_module, load_model

HERE = "tests.models.sources.test_choose_weights"
PLAIN = f"{HERE}:plain"


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def wrapped() -> nn.Module:
    """Inside a wrapper whose names a plain checkpoint lacks."""
    return nn.ModuleDict({"module": plain()})


def held() -> nn.Module:
    return nn.ModuleDict({"net": plain()})


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(weight_norm(nn.Linear(4, 8)), nn.ReLU(), weight_norm(nn.Linear(8, 3, bias=False)))


def normed_inside() -> nn.Module:
    return nn.ModuleDict({"module": normed()})


def tied() -> nn.Module:
    module = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    module["head"].weight = module["embed"].weight
    return module


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))


def inferred() -> nn.Module:
    with torch.inference_mode():
        return plain()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


def state(fill: float | None = None) -> dict[str, Tensor]:
    """Names and values that `plain` does not have by itself."""
    torch.manual_seed(1)
    own = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).state_dict()
    return {name: tensor if fill is None else torch.full_like(tensor, fill) for name, tensor in own.items()}


def old_normed() -> dict[str, Tensor]:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = nn.utils.weight_norm(nn.Linear(4, 8)), nn.utils.weight_norm(nn.Linear(8, 3, bias=False))
    return dict(nn.Sequential(first, nn.ReLU(), second).state_dict())


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def between(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`part` before the last part of every name."""
    return {f"{name.rpartition('.')[0]}.{part}.{name.rpartition('.')[2]}": tensor for name, tensor in tensors.items()}


def loaded(content: object, factory: str = PLAIN, **options: Any) -> Any:
    torch.save(content, "c.pt")
    return load_model("c.pt", factory=factory, **options)


def refusal(content: object, kind: type[Exception] = ModelError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        loaded(content, **options)
    return str(caught.value)


def holds(model: Any, expected: Mapping[str, Tensor], under: str = "") -> bool:
    own = model.module.state_dict()
    return {under + name for name in expected} == set(own) and all(torch.equal(own[under + name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        prefixed("_orig_mod.", state()),
        prefixed("module._orig_mod.", state()),
        between("_orig_mod", state()),
        between("_fsdp_wrapped_module", state()),
        prefixed("_fsdp_wrapped_module.", between("_checkpoint_wrapped_module", state())),
        {"state_dict": prefixed("model.", state()), "epoch": 3, "pytorch-lightning_version": "2.0"},
        {"state_dict": prefixed("model.module._orig_mod.", state())},
        prefixed("backbone.encoder.", state()),
        prefixed("module.", state()) | {"n_averaged": torch.tensor(7)},
        prefixed("ema_model.", state()) | {"initted": torch.tensor([True]), "step": torch.tensor([9])},
    ],
    ids=["compiled", "both", "inside", "fsdp", "checkpointed", "lightning", "three", "any", "averaged", "ema"],
)
def test_names_of_wrappers_are_read_as_the_modules_own_and_said(content: object) -> None:
    model = loaded(content)
    assert holds(model, state())
    assert [note for note in model.notes if "names renamed to those of the module, for example '" in note]


def test_a_renaming_is_one_line_with_counts_and_an_example() -> None:
    model = loaded(prefixed("module.", state()) | {"n_averaged": torch.tensor(7)})
    assert model.notes == (
        "c.pt: 9 of 9 names renamed to those of the module, for example 'module.0.weight' to '0.weight'",
        "c.pt: left out 1 name that the module does not have: n_averaged",
    )
    assert loaded(state()).notes == ()


def test_a_module_inside_a_wrapper_takes_a_plain_checkpoint() -> None:
    assert holds(loaded(state(), f"{HERE}:wrapped"), state(), "module.")
    assert holds(loaded(prefixed("_orig_mod.", state()), f"{HERE}:wrapped"), state(), "module.")
    assert holds(loaded(state(), f"{HERE}:held"), state(), "net.")


@pytest.mark.parametrize("versions", [True, False])
def test_batch_norms_without_counters_are_accepted_and_said(versions: bool) -> None:
    content: Any = plain().state_dict() if versions else state()
    del content["1.num_batches_tracked"]
    model = loaded(content)
    assert torch.equal(model.module.state_dict()["0.weight"], content["0.weight"])
    assert model.notes == ("c.pt: 1 value not in the file, so the builder's own are kept:  1.num_batches_tracked",)


@pytest.mark.parametrize(
    ("prefix", "factory"), [("", "normed"), ("module._orig_mod.", "normed"), ("", "normed_inside"), ("net.", "normed")]
)
def test_old_weight_norms_are_converted_by_torch_under_any_prefix(prefix: str, factory: str) -> None:
    old = old_normed()
    model = loaded(prefixed(prefix, old), f"{HERE}:{factory}")
    own = model.module.state_dict()
    under = "module." if factory == "normed_inside" else ""
    assert torch.equal(own[f"{under}0.parametrizations.weight.original0"], old["0.weight_g"])
    assert torch.equal(own[f"{under}2.parametrizations.weight.original1"], old["2.weight_v"])
    assert "torch converts 4 names to 4 of the module" in model.notes[-1]


def test_converted_tensors_count_for_the_dtype_of_all() -> None:
    old = {name: tensor.half() if name.startswith("0.weight") else tensor for name, tensor in old_normed().items()}
    own = loaded(old, f"{HERE}:normed").module.state_dict()
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}
    own = loaded({name: tensor.half() for name, tensor in old.items()}, f"{HERE}:normed").module.state_dict()
    assert {tensor.dtype for tensor in own.values()} == {torch.float16}


def test_lazy_modules_and_ties_inside_wrappers_are_filled() -> None:
    content = {name: tensor for name, tensor in state().items() if not name.startswith("1.")}
    content = {name.replace("3.", "2."): tensor for name, tensor in content.items()}
    assert holds(loaded(content, f"{HERE}:lazy"), content)
    save_file({"model.embed.weight": torch.ones(5, 4)}, "tied.safetensors")
    assert torch.equal(load_model("tied.safetensors", factory=f"{HERE}:tied").module.state_dict()["head.weight"], torch.ones(5, 4))


@pytest.mark.parametrize("key", ["model_state", "net", "ema", "params", "generator", "any name", "a.b"])
def test_the_one_entry_that_fits_is_found_whatever_its_key(key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(8, 4)}}, "param_groups": [{"lr": 0.1}]}
    discriminator = {"0.weight": torch.zeros(1, 9)}
    model = loaded({"epoch": 3, "optimizer": optimizer, "discriminator": discriminator, key: state()})
    assert holds(model, state())
    assert model.notes == (f"c.pt: weights of '{key}', which alone match the module",)
    assert holds(loaded({"models": {"best": {key: prefixed("module.", state())}}, "other": {"x": torch.zeros(3)}}), state())


def test_several_entries_that_fit_are_named_and_the_key_chooses() -> None:
    content = {"model": state(), "ema": state(2.0)}
    expected = "c.pt has several sets of weights that match: model, ema; choose one, for example --checkpoint-key model"
    assert refusal(content) == expected
    assert holds(loaded(content, key="ema"), state(2.0))
    assert holds(loaded({"a": content}, key="a.model"), state())
    assert loaded(content, key="ema").sha256 != loaded(content, key="model").sha256
    assert "is not in c.pt: it has tensors in model, ema" in refusal(content, UsageError, key="emma")
    assert holds(loaded({"model": state(), "state_dict": state()}), state())  # the same values


def test_the_files_own_names_and_an_entry_that_fit_are_told_apart() -> None:
    content = {**state(), "ema": state(2.0)}
    assert "that match: . (the file itself), ema; choose one, for example --checkpoint-key ema" in refusal(content)
    assert holds(loaded(content, key="."), state())


def test_prefixes_choose_among_names_of_one_entry() -> None:
    content = {"state_dict": prefixed("generator.", state()) | prefixed("average.", state(2.0))}
    reason = refusal(content)
    assert "several sets of weights that match: state_dict.generator, state_dict.average; choose one" in reason
    model = loaded(content, key="state_dict.average")
    assert holds(model, state(2.0))
    assert model.checkpoint_key == "state_dict.average"


def test_names_that_the_module_lacks_are_refused_then_allowed_and_listed() -> None:
    content = state() | {"aux.weight": torch.zeros(2), "loss.pos_weight": torch.zeros(3)}
    assert refusal(content).endswith(
        "unexpected: aux.weight, loss.pos_weight; give the builder that made this checkpoint, or leave them out with --allow-unexpected"
    )
    model = loaded(content, allow_unexpected=True)
    assert holds(model, state())
    assert model.notes == ("c.pt: left out 2 names that the module does not have: aux.weight, loss.pos_weight",)
    lightning = {"state_dict": prefixed("model.", state()) | {"criterion.weight": torch.zeros(3)}}
    assert "unexpected: criterion.weight" in refusal(lightning)
    assert holds(loaded(lightning, allow_unexpected=True), state())
    assert "missing: 0.bias" in refusal({k: v for k, v in state().items() if k != "0.bias"}, allow_unexpected=True)


def test_a_real_mismatch_is_told_of_the_nearest_entry() -> None:
    short = {name: tensor for name, tensor in state().items() if name != "3.bias"}
    reason = refusal({"optimizer": {"x": torch.zeros(2)}, "net": prefixed("module.", short)})
    assert reason == f"c.pt does not fit the module of {PLAIN}: net: missing: 3.bias; give the builder that made this checkpoint"
    reason = refusal(prefixed("module.", state() | {"3.weight": torch.zeros(4, 8)}))
    assert "'3.weight' is [4, 8] in the file and [3, 8] in the module" in reason


@pytest.mark.parametrize("factory", [PLAIN, None])
def test_one_file_of_a_checkpoint_in_several_is_called_so(factory: str | None) -> None:
    name = "model-00001-of-00002.pt"
    torch.save({key: tensor for key, tensor in state().items() if not key.startswith("3.")}, name)
    with pytest.raises(ModelError) as caught:
        load_model(name, factory=factory)
    problem = "holds weights without a module: " if factory is None else f"does not fit the module of {PLAIN}: missing: 3.weight, 3.bias; "
    remedy = "their folder has no config.json, so merge them into one .safetensors file"
    assert str(caught.value) == f"{name} {problem}it is one of 2 files of a checkpoint: {remedy}"


@pytest.mark.parametrize("options", [{"key": "model"}, {"allow_unexpected": True}])
def test_options_of_state_dicts_are_refused_for_models_with_their_own_module(options: dict[str, Any]) -> None:
    torch.export.save(torch.export.export(plain().eval(), (torch.ones(2, 4),)), "m.pt2")
    with pytest.raises(UsageError, match=r"contains its own module: leave out --(checkpoint-key model|allow-unexpected)$"):
        load_model("m.pt2", **options)


def test_modules_and_loading_under_inference_mode_give_ordinary_tensors() -> None:
    model = loaded(state(), f"{HERE}:inferred")
    assert holds(model, state())
    with torch.inference_mode():
        inside = loaded(state())
    for module in (model.module, inside.module, from_module(inferred().eval()).module):
        assert not any(tensor.is_inference() for tensor in module.state_dict().values())
        module(torch.ones(2, 4)).sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_an_inference_module_is_measured_like_an_ordinary_one_and_ties_stay() -> None:
    data = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    settings: Any = {"candidates": ("4", "8"), "quantizer": "rtn"}
    first = mpq.analyze(inferred().eval(), data, **settings).frame()
    assert first.equals(mpq.analyze(plain().eval(), data, **settings).frame())
    with torch.inference_mode():
        module = tied()
    from_module(module.eval())
    first_weight, second_weight = (part.weight for part in module.children())
    assert first_weight is second_weight
