from pathlib import Path

import pytest

from mpq.export.abilities import ExportError
from mpq.export.run import export
from tests.export.plans.making import SCHEMES, plan


def test_llama_cpp_writes_nothing_but_expression_and_type(tmp_path: Path) -> None:
    assert export(plan(tmp_path, SCHEMES), "llama.cpp").path.read_text().splitlines() == [
        r"^token_embd\.weight$=q4_0",
        r"^blk\.0\.attn_q\.weight$=q4_0",
        r"^blk\.0\.attn_v\.weight$=q8_0",
        r"^blk\.0\.ffn_down\.weight$=f16",
        r"^blk\.1\.ffn_down\.weight$=q4_0",
    ]


def test_llama_cpp_refuses_other_families(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(plan(tmp_path, {"features.0": "int4-g32"}), "llama.cpp")
    assert (
        str(caught.value)
        == "'features.0' has no name in a GGUF file: this target only supports Llama-family models with Hugging Face names"
    )


def test_every_block_type_has_its_name_and_the_use_is_told(tmp_path: Path) -> None:
    types = {"int4-g32": "q4_0", "int5-g32": "q5_0", "int8-g32": "q8_0", "int4-asym-g32": "q4_1", "int5-asym-g32": "q5_1"}
    types |= {"fp16": "f16", "bf16": "bf16", "fp32": "f32"}
    names = [f"model.layers.{number}.mlp.up_proj" for number in range(len(types))]
    done = export(plan(tmp_path, dict(zip(names, types, strict=True))), "llama.cpp")
    lines = [rf"^blk\.{number}\.ffn_up\.weight$={name}" for number, name in enumerate(types.values())]
    assert done.path.read_text() == "".join(f"{line}\n" for line in lines)
    assert done.notes == (f"use: llama-quantize --tensor-type-file {done.path.name} model-f16.gguf model.gguf Q8_0",)
