"""Speed: two models called in turn on the same inputs, so that what else the machine does slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from mpq.errors import DataError
from mpq.models.batches import Batch
from mpq.models.forward import accepted, call

_LEAST, _MOST = 5, 200  # rounds
_PROMPT = 8


@dataclass(frozen=True)
class Pair:
    """One figure of the reference and of the packed model.

    Args:
        label: what was measured.
        reference: of the reference.
        packed: of the packed model.
        higher_is_better: whether a larger figure is the better one.
    """

    label: str
    reference: float
    packed: float
    higher_is_better: bool = False

    @property
    def gain(self) -> float:
        """How many times better the packed model is; below 1 it is worse."""
        return self.packed / self.reference if self.higher_is_better else self.reference / self.packed


def latencies(
    reference: nn.Module, packed: nn.Module, sample: Batch, batch_sizes: Sequence[int], *, seconds: float = 2.0
) -> tuple[list[Pair], list[int]]:
    """Seconds of one call by batch size, the shortest of many; and the sizes that the model does not take.

    Args:
        reference: the unquantized model.
        packed: the packed one.
        sample: at least one sample; the first is repeated.
        batch_sizes: samples at once.
        seconds: to spend on each size.
    """
    found, refused = list[Pair](), list[int]()
    for size in batch_sizes:
        batch = sample.select([0] * size)
        try:
            first, second = fastest((lambda b=batch: call(reference, b), lambda b=batch: call(packed, b)), seconds=seconds)  # type: ignore[misc]
        except DataError:  # a program with a fixed batch takes that one only
            refused.append(size)
            continue
        found.append(Pair(f"batch {size}", first, second))
    return found, refused


def tokens_per_second(reference: nn.Module, packed: nn.Module, *, vocabulary: int, tokens: int = 64, rounds: int = 3) -> Pair | None:
    """Greedy decoding with a cache, one sequence: tokens per second from the median step of the best round; None without a cache.

    Args:
        reference: a causal language model of Hugging Face.
        packed: the packed one.
        vocabulary: number of tokens, to make a prompt of.
        tokens: to decode in each round.
        rounds: of each model, in turn.
    """
    if "past_key_values" not in accepted(reference):
        return None
    prompt = torch.arange(1, _PROMPT + 1).remainder(vocabulary).unsqueeze(0)
    steps = [min(found) for found in zip(*((_step(m, prompt, tokens) for m in (reference, packed)) for _ in range(rounds)), strict=True)]
    return Pair("greedy decoding", 1 / steps[0], 1 / steps[1], higher_is_better=True)


def fastest(calls: Sequence[Callable[[], Any]], *, seconds: float) -> list[float]:
    """The shortest time of each of `calls`, which take turns for `seconds` in all."""
    best, rounds, began = [float("inf")] * len(calls), 0, time.perf_counter()
    while rounds < _LEAST or (rounds < _MOST and time.perf_counter() - began < seconds):
        for number, run in enumerate(calls):
            start = time.perf_counter()
            run()
            best[number] = min(best[number], time.perf_counter() - start)
        rounds += 1
    return best


def _step(module: Any, prompt: torch.Tensor, tokens: int) -> float:
    """Median seconds of one step."""
    times, past = list[float](), None
    with torch.inference_mode():
        for _ in range(tokens + 1):
            start = time.perf_counter()
            found = module(input_ids=prompt, past_key_values=past, use_cache=True)
            prompt, past = found.logits[:, -1:].argmax(-1), found.past_key_values
            times.append(time.perf_counter() - start)
    return median(times[1:])  # the first one reads the prompt
