"""What came of training an artifact, and the state that it begins from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mpq
from mpq.activations.learned import as_long
from mpq.apply.train import Retrained, _key, stored_state, train_artifact
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import FormatError, UsageError
from mpq.models.running.metrics import KLDivergence
from mpq.models.running.reference import Reference
from mpq.models.sources.load import from_module, load_model
from mpq.records.artifact_files import read_header
from mpq.records.artifact_plans import is_plan_of
from mpq.recovery.base import Decision, State
from mpq.recovery.training.checkpoints import Checkpoints
from mpq.recovery.training.settings import TrainSettings
from mpq.search.run import search
from tests.activations.networks import residual
from tests.apply.making import in_memory, layers_of, plan_of
from tests.models.small import data


def made(kept: bool, before: float, after: float, **details: object) -> Decision:
    return Decision("training", "Training", kept, "", "kl", before, after, (0.02, 0.01), 9.0, details=details)


def test_evidence_is_the_share_of_the_gap_that_came_back() -> None:
    decision = made(True, 0.4, 0.1, seconds=8.5, samples=64)
    assert Retrained(Path("a"), 10, (decision,)).evidence == {
        "before": 0.4,
        "after": 0.1,
        "share_of_gap": pytest.approx(0.75),
        "standard_error": 0.01,
        "seconds": 8.5,
        "samples": 64,
    }
    skipped = Decision("training", "Training", False, "skipped")
    assert Retrained(None, 0, (skipped,)).evidence == Retrained(None, 0, (made(False, 0.4, 0.5),)).evidence == {}


def test_evidence_spans_all_steps_that_were_kept() -> None:
    blocks, end = made(True, 0.5, 0.4, seconds=2.5, samples=56), made(True, 0.4, 0.2, seconds=3.0, samples=58)
    assert Retrained(Path("a"), 10, (blocks, end)).evidence == {
        "before": 0.5,
        "after": 0.2,
        "share_of_gap": pytest.approx(0.6),
        "standard_error": 0.01,
        "seconds": 5.5,
        "samples": 58,
    }
    alone = Retrained(Path("a"), 10, (blocks, made(False, 0.4, 0.6, seconds=3.0))).evidence
    assert (alone["before"], alone["after"], alone["seconds"]) == (0.5, 0.4, 5.5)


def test_what_an_artifact_stores_is_read_with_the_tensors_that_differ(tmp_path: Path) -> None:
    model = in_memory("mlp")
    path = mpq.apply(model, plan_of(model, "mlp"), tmp_path / "a.mpq.safetensors").path
    header, layers = read_header(path), list(layers_of(model, "mlp"))
    state = stored_state(path, header, layers, model)
    loaded = mpq.load(path, in_memory("mlp").module).state_dict()
    assert all(
        torch.equal(weight.dequantize().to(loaded[f"{name}.weight"].dtype), loaded[f"{name}.weight"])
        for name, weight in state.weights.items()
    )
    assert state.tensors == {}
    bias = model.module.get_parameter("0.bias")
    with torch.no_grad():
        bias.add_(1)
    again = stored_state(path, header, layers, model)
    assert list(again.tensors) == ["0.bias"]
    assert torch.allclose(again.tensors["0.bias"], bias.detach() - 1)


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    model = in_memory("mlp")
    path = mpq.apply(model, plan_of(model, "mlp"), tmp_path / "a.mpq.safetensors").path
    model.module.register_buffer("extra", torch.ones(2))
    with pytest.raises(FormatError, match=r"a\.mpq\.safetensors lacks 'extra': run `mpq apply` again$"):
        stored_state(path, read_header(path), list(layers_of(model, "mlp")), model)


def test_checkpoints_stay_until_the_caller_has_written_everything(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", "key")
    kept.save(1, {}, {"a": torch.ones(1)})
    retrained = Retrained(None, 0, (Decision("training", "Training", False, ""),), kept)
    assert kept.newest() is not None
    retrained.finish()
    assert not (tmp_path / "c").exists()


def test_checkpoints_of_another_run_are_told_by_all_that_it_depends_on(tmp_path: Path) -> None:
    model = in_memory("mlp")
    plan = plan_of(model, "mlp")
    path = mpq.apply(model, plan, tmp_path / "a.mpq.safetensors").path
    state = stored_state(path, read_header(path), list(layers_of(model, "mlp")), model)
    given, settings = data(16), TrainSettings("codes")
    name, weight = next(iter(state.weights.items()))
    assert weight.scales is not None
    others = [
        (State({**state.weights, name: replace(weight, codes=weight.codes ^ 1)}, state.tensors), given, settings),
        (State({**state.weights, name: replace(weight, scales=weight.scales * 2)}, state.tensors), given, settings),
        (State(state.weights, {"0.bias": torch.ones(16)}), given, settings),
        (state, data(16, seed=5), settings),
        (state, given.rebatch(4), settings),
        (state, given, TrainSettings("codes", epochs=7)),
    ]
    key = _key(plan, state, given, settings)
    assert _key(plan, state, given, settings) == key
    assert len({key, *(_key(plan, *other) for other in others)}) == 1 + len(others)


def images(count: int, seed: int) -> Data:
    return data_from_batches([torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))])


def test_activations_are_rounded_in_training_and_in_its_figures_and_their_ranges_move(tmp_path: Path) -> None:
    model, known, more = from_module(residual()), images(48, 1), images(64, 2)
    table = mpq.analyze(model, known, candidates=("8",), activations=("8",), equalize=False)
    plan = search(table, "100%", trials=0, activations="all").plan
    assert plan.activations
    narrow = {  # ranges far too small, which training has to widen
        name: replace(group, tensors=tuple(replace(each, scale=as_long((each.scale or 0) / 4, each.scale or 0)) for each in group.tensors))
        for name, group in plan.activations.items()
    }
    plan = replace(plan, activations=narrow)
    start = mpq.apply(model, plan, tmp_path / "a", data=known, recovery=False).path
    settings = TrainSettings("scales", epochs=4, rate=30.0)
    made = train_artifact(model, plan, start, tmp_path / "b", data=more, plan_data=known, settings=settings)
    (decision,) = made.decisions
    assert decision.kept
    assert decision.details["ranges"] > 0
    assert (tmp_path / "b").stat().st_size == start.stat().st_size
    header = read_header(tmp_path / "b")
    assert header.activations != plan.activations
    assert is_plan_of(plan, header)
    held_out = known.split_as(plan.data).held_out
    reference, (given,) = Reference(residual(), held_out, KLDivergence()), held_out.batches[0].args
    with torch.no_grad():
        outputs = [mpq.load(path, residual())(given) for path in (start, tmp_path / "b")]
    errors = [float(reference.compared(0, (each,)).mean()) for each in outputs]
    assert errors == pytest.approx([decision.before, decision.after], rel=1e-4)
    assert errors[1] < 0.5 * errors[0]


def test_blocks_alone_move_scales_alone_and_give_the_same_bytes_with_the_weights_in_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 40, "num_hidden_layers": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, initializer_range=0.2)).save_pretrained(tmp_path / "llama")
    inside, outside = load_model(tmp_path / "llama"), load_model(tmp_path / "llama", offload=tmp_path / "off", max_memory=60_000)
    known, more = (tokens(count, seed) for count, seed in ((24, 1), (32, 2)))
    plan = search(mpq.analyze(inside, known, candidates=("3",), quantizer="rtn", method="weight"), "16bits", trials=0).plan
    start = mpq.apply(inside, plan, tmp_path / "a", data=known, recovery=False).path
    settings = TrainSettings("scales", end_to_end=False)
    for name, model in (("b", inside), ("c", outside)):
        made = train_artifact(model, plan, start, tmp_path / name, data=more, plan_data=known, settings=settings)
        assert [(each.name, each.kept) for each in made.decisions] == [("reconstruction", True)]
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    header = read_header(start)
    before, after = (stored_state(path, header, list(header.layers), inside).weights for path in (start, tmp_path / "b"))
    assert all(torch.equal(weight.codes, after[name].codes) for name, weight in before.items())
    assert any(not torch.equal(weight.dequantize(), after[name].dequantize()) for name, weight in before.items())
    with pytest.raises(UsageError, match="training end to end needs all weights in memory"):
        train_artifact(outside, plan, start, tmp_path / "d", data=more, plan_data=known, settings=TrainSettings("scales"))


def tokens(count: int, seed: int) -> Data:
    return data_from_batches(list(torch.split(torch.randint(0, 40, (count, 12), generator=torch.Generator().manual_seed(seed)), 8)))
