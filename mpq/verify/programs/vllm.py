"""vLLM: folders of compressed-tensors. It gives logits, and fuses layers, so the weights that it computes are not compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.export.stored.compressed_tensors import read
from mpq.records.fingerprint import Fingerprint
from mpq.verify.places import places_of
from mpq.verify.programs.base import Loaded, Program, imported

_INSTALL = "vllm"
_SETTINGS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


class Vllm(Program):
    """Loads the output of `mpq export --to compressed-tensors`."""

    targets = ("compressed-tensors",)
    packages = (("vllm", _INSTALL),)

    def load(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> Loaded:
        """Load the folder into an engine in this process, without its tokenizer."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        return _Engine(path, fingerprint, trust=trust)


class _Engine(Loaded):
    notes = ("vLLM fuses layers, so the weights that it computes from codes and scales are not compared, only its outputs",)

    def __init__(self, path: Path, fingerprint: Fingerprint, *, trust: bool) -> None:
        vllm = imported("vllm", _INSTALL)
        self.held = read(path, places_of(fingerprint))
        longest = max((each.shape[-1] for each in fingerprint.inputs), default=1)
        self._llm = vllm.LLM(
            model=str(path),
            skip_tokenizer_init=True,
            trust_remote_code=trust,
            enforce_eager=True,
            enable_prefix_caching=False,
            max_model_len=longest + 1,
            max_logprobs=-1,
            logprobs_mode="raw_logits",
        )
        self._ask = vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=-1, logprobs=-1, detokenize=False)
        self.tolerance = torch.finfo(self._llm.llm_engine.model_config.dtype).eps ** 0.5

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        answers = self._llm.generate([{"prompt_token_ids": row.tolist()} for row in inputs[0]], self._ask, use_tqdm=False)
        return [torch.stack([_logits(answer) for answer in answers])]


def _logits(answer: Any) -> Tensor:
    """The logits after each token of a prompt, [tokens, vocabulary]."""
    rows = [*answer.prompt_logprobs[1:], answer.outputs[0].logprobs[0]]
    return torch.tensor([[row[token].logprob for token in range(len(row))] for row in rows])
