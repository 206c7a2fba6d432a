"""Lets vLLM load a folder that `mpq export --to huggingface` wrote: `vllm serve FOLDER --load-format mpq`.

vLLM calls `register` in each of its processes, through the entry point "vllm.general_plugins"; until then, vLLM is not imported.
"""

from __future__ import annotations

from importlib import import_module


def register() -> None:
    """Register the quantization "mpq" and the load format "mpq" with vLLM."""
    import_module("mpq.integrations.vllm_quantization")
