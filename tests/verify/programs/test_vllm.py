"""vLLM, with a stand-in for its package."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from mpq.export.stored.base import Held
from mpq.verify.programs import vllm
from mpq.verify.programs.vllm import Vllm
from tests.verify.programs.test_llama_cpp import FACTS


class LLM:
    """The logit of token v after token t is 10 t + v, for three tokens."""

    made: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        LLM.made = options
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16))

    def generate(self, prompts: list[dict[str, list[int]]], ask: Any, *, use_tqdm: bool) -> list[Any]:
        assert (ask.prompt_logprobs, ask.logprobs) == (-1, -1)
        return [self._answer(prompt["prompt_token_ids"]) for prompt in prompts]

    def _answer(self, tokens: list[int]) -> Any:
        rows = [{value: SimpleNamespace(logprob=10.0 * token + value) for value in (2, 0, 1)} for token in tokens]
        return SimpleNamespace(prompt_logprobs=[None, *rows[:-1]], outputs=[SimpleNamespace(logprobs=[rows[-1]])])


def test_logits_are_those_after_each_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package: Any = ModuleType("vllm")
    package.LLM, package.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setattr(vllm, "read", lambda path, places: Held({}, {}))
    for name in vllm._SETTINGS:
        monkeypatch.setenv(name, "kept")
    loaded = Vllm().load(tmp_path, FACTS, trust=False)
    (found,) = loaded.run([torch.tensor([[1, 2], [0, 1]])])
    assert found.tolist() == [[[10, 11, 12], [20, 21, 22]], [[0, 1, 2], [10, 11, 12]]]
    assert loaded.tolerance == 2**-3.5
    assert (LLM.made["model"], LLM.made["max_model_len"], LLM.made["logprobs_mode"]) == (str(tmp_path), 7, "raw_logits")
