from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.layers.discover import Discovery, discover
from tests.models.layers.discovering import IDS, IMAGES, X, brief, by_name, find, quiet
from tests.models.layers.test_discover import convolutions, linears
from tests.models.layers.test_discover_shared import Tied

EXPECTED_LINEARS = [("0", (0,), "linear"), ("3", (0,), "linear")]
EXPECTED_CONVOLUTIONS = [("0", (0,), "conv"), ("4", (0,), "linear")]


@pytest.mark.parametrize("strict", [True, False])
def test_the_layers_of_an_exported_program_are_found(strict: bool) -> None:
    module = torch.export.export(convolutions().eval(), (IMAGES,), strict=strict).module()
    found = find_ready(module, IMAGES)
    assert brief(found.layers) == EXPECTED_CONVOLUTIONS
    assert [layer.consumers for layer in found.layers] == [(), ()]
    assert found.rest == tuple(name for name in module.state_dict() if name not in ("0.weight", "4.weight"))


def test_the_layers_of_an_unflattened_program_are_found_with_their_modules() -> None:
    with quiet():
        module = torch.export.unflatten(torch.export.export(convolutions().eval(), (IMAGES,)))
        found = find_ready(module, IMAGES)
    assert brief(found.layers) == EXPECTED_CONVOLUTIONS
    assert [layer.consumers for layer in found.layers] == [("0",), ("4",)]


def test_tied_weights_of_an_exported_program_are_one_layer() -> None:
    found = find_ready(torch.export.export(Tied().eval(), (IDS,)).module(), IDS)
    assert [(layer.parameters, layer.operator) for layer in found.layers] == [(("embed.weight", "head.weight"), "linear")]


@pytest.mark.parametrize("build", [lambda: nn.LSTM(8, 4, 2), lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)])
def test_exported_fused_modules_keep_all_their_layers(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    with quiet():
        found = find_ready(torch.export.export(module, (X,)).module(), X)
    assert {(layer.name, layer.axes) for layer in found.layers} == {(layer.name, layer.axes) for layer in find(module, X).layers}


@pytest.mark.parametrize("how", ["traced", "scripted"])
@pytest.mark.parametrize(
    ("build", "value", "expected"), [(linears, X, EXPECTED_LINEARS), (convolutions, IMAGES, EXPECTED_CONVOLUTIONS)], ids=["linear", "conv"]
)
def test_the_layers_of_torchscript_are_found(
    how: str, build: Callable[[], nn.Module], value: Tensor, expected: list[tuple[str, tuple[int, ...], str]]
) -> None:
    with quiet():
        module = torch.jit.trace(build().eval(), (value,)) if how == "traced" else torch.jit.script(build().eval())  # type: ignore[no-untyped-call]
    found = discover(module, [Batch((value,), {})] * 3)
    assert brief(found.layers) == expected


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][-1]  # type: ignore[no-any-return]


def test_a_scripted_lstm_keeps_its_layers() -> None:
    with quiet():
        module = torch.jit.script(Last().eval())
    names = ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert brief(find_ready(module, X).layers) == [(name, (0,), "recurrent") for name in names]


def find_ready(module: nn.Module, *inputs: Any) -> Discovery:
    """As `find`, for modules that cannot be put into eval mode."""
    return discover(module, [Batch(inputs, {})])


def hugging_face(kind: str, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes, **options))  # type: ignore[no-any-return]


def test_a_hugging_face_llama_has_its_projections_and_one_tied_embedding() -> None:
    found = find(hugging_face("LlamaConfig", num_key_value_heads=1, tie_word_embeddings=True), IDS)
    inner = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    assert [layer.name for layer in found.layers] == ["model.embed_tokens", *(f"model.layers.0.{name}" for name in inner)]
    assert {(layer.axes, layer.operator) for layer in found.layers} == {((0,), "linear")}
    assert found.layers[0].consumers == ("model.embed_tokens", "lm_head")
    assert found.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert all(name.endswith("norm.weight") for name in found.rest)


def test_a_hugging_face_gpt2_has_its_outputs_on_the_second_axis() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=3)
    found = by_name(find(transformers.GPT2LMHeadModel(config), IDS))
    assert {name.rpartition(".")[2]: (layer.axes, layer.operator) for name, layer in found.items()} == {
        "wte": ((0,), "linear"),
        "wpe": ((0,), "embedding"),
        "c_attn": ((1,), "linear"),
        "c_proj": ((1,), "linear"),
        "c_fc": ((1,), "linear"),
    }


def test_a_hugging_face_bert_has_all_its_embeddings_and_linears() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)
    found = find(transformers.BertModel(config), IDS)
    assert [layer.operator for layer in found.layers] == ["embedding"] * 3 + ["linear"] * 7
    assert {layer.axes for layer in found.layers} == {(0,)}


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_the_experts_of_a_hugging_face_mixture_are_found_however_they_run(implementation: str) -> None:
    module = hugging_face("MixtralConfig", num_key_value_heads=2, num_local_experts=4, experts_implementation=implementation)
    found = by_name(find(module, IDS))
    assert found["model.layers.0.mlp.experts.gate_up_proj"].axes == (0, 1)
    assert found["model.layers.0.mlp.experts.down_proj"].axes == (0, 1)
    assert found["model.layers.0.mlp.gate"].axes == (0,)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_transposed_experts_are_found_and_their_biases_are_not(implementation: str) -> None:
    module = hugging_face("GptOssConfig", num_key_value_heads=2, num_local_experts=4, head_dim=8, experts_implementation=implementation)
    found = find(module, IDS)
    assert by_name(found)["model.layers.0.mlp.experts.gate_up_proj"].axes == (0, 2)
    assert by_name(found)["model.layers.0.mlp.experts.down_proj"].axes == (0, 2)
    assert "model.layers.0.mlp.experts.gate_up_proj_bias" in found.rest
