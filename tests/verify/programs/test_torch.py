from pathlib import Path

import torch

import mpq
from mpq.records.fingerprint import read_fingerprint
from mpq.verify.programs.torch import Torch
from tests.verify.making import X, exported


def test_an_export_is_loaded_with_its_weights_and_gives_the_outputs_of_the_artifact(tmp_path: Path) -> None:
    artifact, path = exported(tmp_path, "pt2", "out.pt2")
    facts, program = read_fingerprint(path), Torch()
    assert program.check_installed()
    loaded = program.load(path, facts, trust=False)
    module = mpq.load(artifact)
    with torch.no_grad():
        (found,) = loaded.run([X])
        assert torch.allclose(found, module(X), atol=1e-4)
    assert loaded.held is not None
    for name in "ab":
        place, weight = facts.layers[name].place, module.state_dict()[f"{name}.weight"]
        assert torch.equal(loaded.held.weights[place].dequantize(), weight)
        assert loaded.used(place) is None
    assert loaded.used("none") is None


def test_it_is_the_program_of_its_target() -> None:
    assert Torch.targets == ("pt2",)
