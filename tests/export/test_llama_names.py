import pytest

from mpq.export.llama_names import gguf_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.embed_tokens", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head", "output.weight"),
        ("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"),
        ("model.layers.12.self_attn.k_proj.bias", "blk.12.attn_k.bias"),
        ("model.layers.3.self_attn.v_proj", "blk.3.attn_v.weight"),
        ("model.layers.3.self_attn.o_proj", "blk.3.attn_output.weight"),
        ("model.layers.3.self_attn.q_norm.weight", "blk.3.attn_q_norm.weight"),
        ("model.layers.3.self_attn.k_norm.weight", "blk.3.attn_k_norm.weight"),
        ("model.layers.7.mlp.gate_proj", "blk.7.ffn_gate.weight"),
        ("model.layers.7.mlp.up_proj", "blk.7.ffn_up.weight"),
        ("model.layers.7.mlp.down_proj", "blk.7.ffn_down.weight"),
        ("model.layers.7.input_layernorm.weight", "blk.7.attn_norm.weight"),
        ("model.layers.7.post_attention_layernorm.weight", "blk.7.ffn_norm.weight"),
    ],
)
def test_names_are_those_of_llama_cpp(name: str, expected: str) -> None:
    assert gguf_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "weight",
        "features.0",
        "model.layers.x.mlp.up_proj",
        "model.layers.0.mlp",
        "model.layers.0.mlp.up_proj.scale",
        "a.model.layers.0.mlp.up_proj",
        "model.layers.0.block_sparse_moe.gate",
        "model.layers.0.mlp.up_proj.weight.weight",
        "model.layers.0.mlp.up_proj.bias.weight",
    ],
)
def test_other_names_have_none(name: str) -> None:
    assert gguf_name(name) is None
