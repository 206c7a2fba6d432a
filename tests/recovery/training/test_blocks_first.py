"""Block reconstruction before training end to end, kept for the next run."""

from pathlib import Path

import pytest
import torch

from mpq.recovery.base import Proposal
from mpq.recovery.reconstruction import Reconstruction
from mpq.recovery.training.blocks_first import BlocksFirst
from mpq.recovery.training.checkpoints import Checkpoints
from tests.recovery.test_reconstruction import network, samples, task_of


@pytest.mark.parametrize("texts", [("int3", "int4-g8"), ("nf4-g8", "ternary"), ("int3-asym-g8", "int4-g16-s8")])
def test_a_second_run_takes_up_what_the_first_one_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...]) -> None:
    task, state = task_of(network(), samples(64), *texts)
    plain = Reconstruction().propose(task, state)
    first = BlocksFirst(Checkpoints(tmp_path / "c", "key")).propose(task, state)
    monkeypatch.setattr(Reconstruction, "propose", lambda *_: pytest.fail("trained again"))
    again = BlocksFirst(Checkpoints(tmp_path / "c", "key")).propose(task, state)
    assert plain.changes
    for made in (first, again):
        assert (made.about, made.remark, made.stopped) == (plain.about, plain.remark, False)
        assert made.details.keys() == plain.details.keys() | {"seconds"}
        assert made.weights.keys() == plain.weights.keys()
        assert all(torch.equal(weight.dequantize(), plain.weights[name].dequantize()) for name, weight in made.weights.items())
        assert all(weight.scheme == state.weights[name].scheme for name, weight in made.weights.items())
        assert {name: tensor.tolist() for name, tensor in made.tensors.items()} == {n: t.tolist() for n, t in plain.tensors.items()}
    assert again.details == first.details


def test_what_gains_nothing_is_not_tried_again_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, state = task_of(network(), samples(64), "fp32")
    first = BlocksFirst(Checkpoints(tmp_path / "c", "key")).propose(task, state)
    monkeypatch.setattr(Reconstruction, "propose", lambda *_: pytest.fail("trained again"))
    again = BlocksFirst(Checkpoints(tmp_path / "c", "key")).propose(task, state)
    assert not again.changes
    assert again == first
    assert isinstance(again, Proposal)
