"""Speed: two models called in turn on the same inputs, so that other load on the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from mpq.data.dataset import Batch
from mpq.errors import DataError
from mpq.models.running.decoding import decodes
from mpq.models.running.forward import call

_LEAST, _MOST = 5, 200  # rounds
_PROMPT = 8


@dataclass(frozen=True)
class Pair:
    """One measurement of the reference and the packed model.

    Args:
        label: what was measured.
        reference: of the reference.
        packed: of the packed model.
        unpacked: of the same model with ordinary weights, in the dtype of the packed one; None if it was not measured.
        higher_is_better: whether larger is better.
    """

    label: str
    reference: float
    packed: float
    unpacked: float | None = None
    _: KW_ONLY
    higher_is_better: bool = False

    @property
    def gain(self) -> float:
        """How many times better the packed model is; below 1 it is worse."""
        return self.packed / self.reference if self.higher_is_better else self.reference / self.packed


def latencies(
    reference: nn.Module,
    packed: nn.Module,
    sample: Batch,
    batch_sizes: Sequence[int],
    *,
    seconds: float = 2.0,
    unpacked: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[list[Pair], list[int]]:
    """Seconds per call by batch size, the shortest of many; and the sizes that the model does not accept.

    Args:
        reference: the unquantized model.
        packed: the packed one.
        sample: at least one sample; the first is repeated.
        batch_sizes: samples at once.
        seconds: to spend on each size.
        unpacked: the packed model with ordinary weights.
        dtype: what floating-point inputs of the packed and the unpacked model are cast to; None: nothing.
    """
    found, refused = list[Pair](), list[int]()
    for size in batch_sizes:
        batch = sample.select([0] * size)
        cast = batch if dtype is None else batch.in_dtype(dtype)
        calls = [partial(call, reference, batch), partial(call, packed, cast)]
        try:
            times = fastest(calls if unpacked is None else [*calls, partial(call, unpacked, cast)], seconds=seconds)
        except DataError:  # a program with a fixed batch accepts only that size
            refused.append(size)
            continue
        found.append(Pair(f"batch {size}", times[0], times[1], times[2] if unpacked is not None else None))
    return found, refused


def tokens_per_second(
    reference: nn.Module, packed: nn.Module, *, vocabulary: int, tokens: int = 64, rounds: int = 3, unpacked: nn.Module | None = None
) -> Pair | None:
    """Greedy decoding with a cache, one sequence: tokens per second from the median step of the best round.

    None for a model that does not decode with a cache, such as an encoder.

    Args:
        reference: a Hugging Face model.
        packed: the packed one.
        vocabulary: number of tokens, to make a prompt of.
        tokens: to decode in each round.
        rounds: of each model, in turn.
        unpacked: the packed model with ordinary weights.
    """
    prompt = torch.arange(1, _PROMPT + 1).remainder(vocabulary).unsqueeze(0)
    if not decodes(reference, prompt):
        return None
    models = [model for model in (reference, packed, unpacked) if model is not None]
    steps = [min(found) for found in zip(*((_step(model, prompt, tokens) for model in models) for _ in range(rounds)), strict=True)]
    rates = [1 / step for step in steps]
    return Pair("greedy decoding", rates[0], rates[1], rates[2] if unpacked is not None else None, higher_is_better=True)


def fastest(calls: Sequence[Callable[[], Any]], *, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The shortest time of each of `calls`, by `clock`; they take turns for `seconds` in all."""
    best, rounds, began = [float("inf")] * len(calls), 0, time.perf_counter()
    while rounds < _LEAST or (rounds < _MOST and time.perf_counter() - began < seconds):
        for number, run in enumerate(calls):
            start = clock()
            run()
            best[number] = min(best[number], clock() - start)
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
