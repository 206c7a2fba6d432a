"""What a model's outputs should have been: labels, or the next tokens of the text."""

from __future__ import annotations

import torch
from torch import Tensor

from mpq.data.batch import Batch
from mpq.data.masks import IGNORED_LABEL, labels_are_next_tokens
from mpq.models.running.logits import allowed_classes
from mpq.models.running.output_kind import labels_fit


def targets(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
    """The logits that have an answer, the answers, and which of them count: labels, or the next token of a language model.

    Labels that repeat the token ids are those of a causal model, where the label of a position is the token at the next one.
    """
    shifted = labels_are_next_tokens(batch)
    labels = batch.answers
    if labels_fit(output, labels) and labels is not None and not shifted:
        kept = labels != IGNORED_LABEL
        masked = batch.mask is not None and batch.mask.shape == kept.shape
        return output, labels, kept & batch.mask if masked and batch.mask is not None else kept
    tokens = batch.known_labels if shifted else batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    nothing = torch.zeros(0, dtype=torch.bool)
    if (labels is not None and not shifted) or not isinstance(tokens, Tensor) or tokens.is_floating_point():
        return output, None, nothing
    fits = output.ndim == 3 and output.shape[:2] == tokens.shape and tokens.shape[1] > 1 and int(tokens.max()) < output.shape[-1]
    if not fits:
        return output, None, nothing
    kept = tokens[:, 1:] != IGNORED_LABEL
    if batch.mask is not None and batch.mask.shape == tokens.shape:
        kept = kept & batch.mask[:, :-1] & (kept if shifted else batch.mask[:, 1:])
    return output[:, :-1], tokens[:, 1:], kept


def possible(logits: Tensor, answers: Tensor) -> Tensor:
    """Which answers [...] are classes that the logits [..., classes] do not suppress: the loss of a suppressed one says nothing."""
    allowed = allowed_classes(logits)
    if allowed is None:
        return torch.ones(answers.shape, dtype=torch.bool, device=logits.device)
    return allowed.gather(-1, answers.clamp(min=0).to(logits.device).unsqueeze(-1)).squeeze(-1)
