"""Plans of a small Llama, by hand."""

from pathlib import Path

from mpq.formats.scheme import parse_scheme
from mpq.records.plan import plan_for, write_plan
from tests.small import REST, linear

SCHEMES = {
    "model.embed_tokens": "int4-g32",
    "model.layers.0.self_attn.q_proj": "int4-g32",
    "model.layers.0.self_attn.v_proj": "int8-g32",
    "model.layers.0.mlp.down_proj": "fp16",
    "model.layers.1.mlp.down_proj": "int4-g32",
}


def plan(folder: Path, schemes: dict[str, str], *, columns: int = 64) -> Path:
    layers = [linear(name, 8, columns) for name in schemes]
    chosen = {name: parse_scheme(text) for name, text in schemes.items()}
    model = {"path": "llama", "sha256": "a" * 64, "kind": "hf"}
    write_plan(plan_for(layers, chosen, model=model, quantizer="rtn", rest=REST), folder / "plan.yaml")
    return folder / "plan.yaml"
