"""Tells lm-evaluation-harness that `--model mpq` exists; the model itself is imported when it is used."""

from __future__ import annotations

from lm_eval.api.registry import model_registry

NAME = "mpq"

if NAME not in model_registry:
    model_registry.register(NAME, target="mpq.integrations.lm_eval_model:MpqLM")
