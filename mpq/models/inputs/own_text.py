"""Windows of text that a language model writes itself, as more calibration samples.

A few dozen windows are too few for the millions of codes that recovery chooses: it fits them, and new text gains less. Text that the model
writes costs no data, and what it writes is what it knows (LLM-QAT: Liu et al. 2023, arXiv 2305.17888).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mpq.config import OWN_TEXT_TIMES, OWN_TEXT_TOKENS, check_windows
from mpq.data.dataset import Batch, Data, make_data
from mpq.errors import UsageError
from mpq.models.memory.devices import device_of
from mpq.models.running.decoding import decodes

_TOKENS_AT_ONCE = 1 << 15  # of the windows that are written together: few steps, and a bound on the cache


def missing_windows(data: Data) -> int:
    """How many windows are missing until the samples have `OWN_TEXT_TOKENS` tokens, at most `OWN_TEXT_TIMES` times as many as there are.

    Zero if the samples are not windows of tokens of one length.
    """
    ids = token_windows(data)
    return 0 if ids is None else min(OWN_TEXT_TIMES * len(ids), max(0, OWN_TEXT_TOKENS // ids.shape[1] - len(ids)))


def with_own_text(module: nn.Module, data: Data, windows: int, *, seed: int) -> Data | None:
    """The same samples, followed by `windows` that the model writes; None if they are not windows of tokens or the model cannot write.

    Each window begins with the first token of a given one; the other tokens are drawn from the model's probabilities.

    Args:
        module: the unquantized model.
        data: windows of tokens, all of one length.
        windows: how many to write.
        seed: of the draws.
    """
    ids = token_windows(data)
    if ids is None or windows < 1 or data.fixed_batch or not decodes(module, ids[:1, :2]):
        return None
    generator = torch.Generator().manual_seed(seed)
    first = ids[torch.randint(len(ids), (windows,), generator=generator), :1]
    together = max(1, _TOKENS_AT_ONCE // ids.shape[1])
    written = torch.cat([_written(module, part, ids.shape[1], generator) for part in torch.split(first, together)])
    size = max(batch.size for batch in data.batches)
    batches = [_like(data.batches[0], part) for part in torch.split(written, size)]
    return make_data([*data.batches, *batches], source=data.source)


def asked_text(module: nn.Module, data: Data, windows: int, *, seed: int) -> Data:
    """Like `with_own_text`, for a number of windows that the user asks for.

    Raises:
        UsageError: if the number is negative, or the model cannot write.
    """
    check_windows(windows)
    found = with_own_text(module, data, windows, seed=seed) if windows else data
    if found is None:
        raise UsageError(
            f"--own-text {windows} needs a language model that decodes with a cache, and calibration windows of tokens of one length "
            "without padding: leave it out"
        )
    return found


def token_windows(data: Data) -> Tensor | None:
    """All samples as one tensor [windows, tokens], if they are windows of tokens of one length without padding."""
    found = [_tokens(batch) for batch in data.batches]
    whole = [tokens for tokens in found if tokens is not None]
    return torch.cat(whole) if len(whole) == len(found) and len({tokens.shape[1] for tokens in whole}) == 1 else None


def _tokens(batch: Batch) -> Tensor | None:
    """The only input of a batch apart from a mask that hides nothing."""
    others = {name: value for name, value in batch.kwargs.items() if name != "attention_mask"}
    given = [*batch.args, *others.values()]
    mask = batch.kwargs.get("attention_mask")
    if len(given) != 1 or batch.whole or batch.axis or set(others) - {"input_ids"} or (mask is not None and not bool(mask.all())):
        return None
    tokens = given[0]
    usable = isinstance(tokens, Tensor) and tokens.ndim == 2 and not tokens.is_floating_point() and tokens.shape[1] > 1
    return tokens if usable and (batch.mask is None or bool(batch.mask.all())) else None


def _like(batch: Batch, tokens: Tensor) -> Batch:
    if batch.args:
        return Batch((tokens,))
    mask = batch.kwargs.get("attention_mask")
    more = {} if mask is None else {"attention_mask": torch.ones_like(tokens, dtype=mask.dtype)}
    return Batch((), {"input_ids": tokens, **more})


def _written(module: Any, first: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Windows that begin with `first` [windows, 1], [windows, length]."""
    ids, past = [first.to(device_of(module))], None
    with torch.inference_mode():
        while len(ids) < length:
            found = module(input_ids=ids[-1], past_key_values=past, use_cache=True)
            past = found.past_key_values
            ids.append(_drawn(found.logits[:, -1].cpu(), generator).to(ids[0]))
    return torch.cat(ids, 1).to(first.device).clone()


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A token for each row of logits [windows, vocabulary], drawn from its probabilities, [windows, 1]."""
    total = logits.double().softmax(-1).cumsum(-1)
    place = torch.rand(len(total), 1, generator=generator, dtype=torch.float64) * total[:, -1:]
    return torch.searchsorted(total, place, right=True).clamp_(max=logits.shape[1] - 1)
