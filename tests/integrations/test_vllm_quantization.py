"""These run where vLLM is installed; what needs no vLLM is tested in test_vllm_layers.py and test_vllm_weights.py."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mpq.integrations.vllm_layers import NamedLayers
from tests.small import schemes

pytest.importorskip("vllm")

from vllm.model_executor.layers.linear import LinearBase

from mpq.integrations import vllm_quantization as plugin

QKV = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}


class Linear(LinearBase):  # type: ignore[misc]
    """A layer of vLLM as far as the quantization looks at it."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


def made(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    config = plugin.MpqQuantization.from_config({"quant_method": "mpq", "version": 1, "weights": "model.mpq.safetensors"})
    config.layers = NamedLayers(dict(zip(given, schemes(*given.values()), strict=True)))
    config.packed_modules_mapping = QKV
    current = SimpleNamespace(load_config=SimpleNamespace(load_format="mpq"))
    monkeypatch.setattr(plugin, "get_current_vllm_config", lambda: current)
    return config


class Ordinary:
    """In place of vLLM's unquantized method, which needs its process groups."""

    def create_weights(self, layer: Any, *sizes: Any, **more: Any) -> None:
        layer.sizes = sizes


def create(config: Any, prefix: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, *, has_kernel: bool) -> Any:
    """The layer after vLLM has created its parameters."""

    def packed(self: Any, layer: nn.Module, *sizes: Any, **more: Any) -> None:
        if not has_kernel:
            raise ValueError("no kernel")

    monkeypatch.setattr(plugin.PackedLinearMethod.__base__, "create_weights", packed)
    monkeypatch.setattr(plugin, "UnquantizedLinearMethod", Ordinary)
    layer: Any = Linear()
    layer.quant_method = config.get_quant_method(layer, prefix)
    layer.quant_method.create_weights(layer, 64, [32, 32, 32], 64, 96, params_dtype=dtype)
    return layer


def test_fused_layers_with_one_scheme_stay_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a.q_proj", "a.k_proj", "a.v_proj")
    config = made(dict.fromkeys(names, "int4-g32"), monkeypatch)
    layer = create(config, "a.qkv_proj", torch.bfloat16, monkeypatch, has_kernel=True)
    assert type(layer.quant_method) is plugin.PackedLinearMethod
    assert (layer.scheme.num_bits, layer.scheme.group_size) == (4, 32)
    assert config.as_words == set(names)


@pytest.mark.parametrize(("dtype", "has_kernel"), [(torch.bfloat16, False), (torch.float32, True)])
def test_a_layer_without_a_kernel_is_dequantized(dtype: torch.dtype, has_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = made({"a.o_proj": "int8"}, monkeypatch)
    layer = create(config, "a.o_proj", dtype, monkeypatch, has_kernel=has_kernel)
    assert type(layer.quant_method) is Ordinary
    assert layer.sizes == (64, [32, 32, 32], 64, 96, dtype)
    assert not hasattr(layer, "scheme")
    assert config.as_words == set()


def test_layers_without_a_scheme_are_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    config = made({"a.o_proj": "int3", "a.down": "fp16"}, monkeypatch)
    for name in ("a.o_proj", "a.down", "a.other"):
        assert type(config.get_quant_method(Linear(), name)).__name__ == "UnquantizedLinearMethod"
    assert config.get_quant_method(nn.Module(), "a.o_proj") is None
