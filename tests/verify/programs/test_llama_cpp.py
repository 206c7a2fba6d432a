"""llama.cpp, with a stand-in for its package."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mpq.errors import UsageError
from mpq.export.stored.base import Held
from mpq.records.fingerprint import Fingerprint, InputFacts
from mpq.verify.programs import llama_cpp
from mpq.verify.programs.llama_cpp import LlamaCpp

FACTS = Fingerprint(
    mpq_fingerprint=1,
    target="gguf",
    tolerance=0.1,
    inputs=[InputFacts([2, 6], "int64", below=9)],
    names=[],
    outputs=[],
    layers={},
    tensors={},
    ties={},
)


class Llama:
    """Scores of a token are its own number; the buffer is longer than the text."""

    made: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        Llama.made = options
        self.scores = np.zeros((options["n_ctx"], 3), np.float32)
        self.fresh = False

    def reset(self) -> None:
        self.fresh = True

    def eval(self, tokens: list[int]) -> None:
        assert self.fresh
        self.fresh = False
        self.scores[: len(tokens)] = np.array(tokens)[:, None]


def test_each_sequence_begins_anew_and_gives_the_logits_of_its_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package: Any = ModuleType("llama_cpp")
    package.Llama = Llama
    monkeypatch.setitem(sys.modules, "llama_cpp", package)
    monkeypatch.setattr(llama_cpp, "read", lambda path, places: Held({}, {}))
    loaded = LlamaCpp().load(tmp_path / "m.gguf", FACTS, trust=False)
    (found,) = loaded.run([torch.tensor([[1, 2, 3], [4, 5, 6]])])
    assert found.tolist() == [[[token] * 3 for token in row] for row in ((1, 2, 3), (4, 5, 6))]
    assert Llama.made == {"model_path": str(tmp_path / "m.gguf"), "n_ctx": 6, "logits_all": True, "verbose": False}


def test_without_its_package_the_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UsageError, match=r"^llama_cpp is not installed here: pip install 'llama-cpp-python'$"):
        LlamaCpp().check_installed()
