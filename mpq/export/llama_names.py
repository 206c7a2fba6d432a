"""Names of the tensors of Llama-family models in GGUF files."""

from __future__ import annotations

import re

_OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def gguf_name(name: str) -> str | None:
    """The GGUF name of a parameter or layer, with ".weight" or ".bias" (added for a layer); None if it has none."""
    base, ending = name, ".weight"
    for suffix in (".weight", ".bias"):
        if name.endswith(suffix):
            base, ending = name.removesuffix(suffix), suffix
    if base in _OUTER:
        return _OUTER[base] + ending
    match = _LAYER.fullmatch(base)
    if match is None or match[2] not in _INNER:
        return None
    return f"blk.{match[1]}.{_INNER[match[2]]}{ending}"
