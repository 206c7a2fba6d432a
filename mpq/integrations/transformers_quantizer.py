"""The quantizer of Transformers for folders that `mpq export --to huggingface` wrote: layers stay packed, nothing in a folder is code.

`from_pretrained` uses it in this order:

    weights file        config.json does not name it, so that Transformers without mpq refuses the folder instead of starting from random
                        weights; the quantizer names it
    headers             of the artifact's files, checked as `mpq.load` checks them
    conversions         each layer's codes, scales and zero points become one packed parameter, as soon as they are read

Importing this file registers both classes. Written for Transformers 5; the methods with "plan" in their names are called by versions up to
5.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin

from mpq.errors import FormatError, ModelError
from mpq.integrations.transformers_conversion import conversion_of
from mpq.models.memory.malloc_trim import return_freed_memory
from mpq.models.memory.replaced_tensors import replace_tensor
from mpq.records.artifact_files import headers_as_one, is_plain_name
from mpq.records.hub_config import METHOD, VERSION, WEIGHTS, check_config_version
from mpq.records.layer import Layer
from mpq.runtime.packed_weight import packed_weight
from mpq.tensors.packed import PackedTensor

_ENDINGS = (".mpq.safetensors", ".mpq.safetensors.index.json")
logger = logging.get_logger(__name__)


class MpqConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """The contents of "quantization_config" in config.json.

    Args:
        version: version of these keys.
        weights: name of the artifact, or of its index, in the same folder.
        facts: for people: bits per weight, and layers by scheme.

    Raises:
        FormatError: if a newer mpq wrote it, or `weights` does not name an artifact in the same folder.
    """

    def __init__(self, version: int = VERSION, weights: str = WEIGHTS, **facts: Any) -> None:
        check_config_version(version)
        if not isinstance(weights, str) or not is_plain_name(weights) or not weights.endswith(_ENDINGS):
            raise FormatError(f"config.json names the weights {weights!r}, which is no artifact in the same folder")
        self.quant_method, self.version, self.weights = METHOD, version, weights
        self.facts = {key: value for key, value in facts.items() if key != "quant_method"}

    def to_dict(self) -> dict[str, Any]:
        """In the form of config.json."""
        return {"quant_method": METHOD, "version": self.version, "weights": self.weights, **self.facts}


class MpqQuantizer(HfQuantizer):  # type: ignore[misc]
    """Loads an artifact with its layers packed."""

    requires_calibration = True  # it does not quantize: `mpq analyze`, `mpq search` and `mpq apply` do

    def __init__(self, quantization_config: MpqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.layers: dict[str, tuple[Layer, Any]] = {}
        self.dtype: torch.dtype | None = None
        self._own_dtype: torch.dtype | None = None

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype that the model will compute in, which is kept for the layers."""
        self.dtype = dtype
        return dtype

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to offload layers to disk, because they contain codes instead of numbers.

        Raises:
            ModelError: if a layer would be offloaded to disk.
        """
        device_map = kwargs.get("device_map")
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise ModelError("packed layers cannot be offloaded to disk: leave 'disk' out of the device_map")

    def update_attn_implementation(self, config: Any) -> Any:
        """The configuration, which now names the file of the weights."""
        config.transformers_weights = self.quantization_config.weights
        return config

    update_tp_plan = update_ep_plan = update_attn_implementation

    def update_weight_conversions(self, weight_conversions: Sequence[Any], *_: Any) -> list[Any]:
        """Only those of the layers: an artifact names tensors like the model, so no other conversions apply."""
        return self.get_weight_conversions()

    def get_weight_conversions(self) -> list[Any]:
        """From the parts of a layer in the file to its parameter."""
        parts = {
            f"{layer.name}.{stored.part}": (parameter, stored.part)
            for parameter, (layer, scheme) in self.layers.items()
            for stored in scheme.stored(layer.matrix)
        }
        return [conversion_of(parts, self)]

    def parameter_of(self, name: str, parts: Mapping[str, Tensor], model: nn.Module) -> nn.Parameter:
        """The parameter `name` of the model, from its parts; packed unless it is stored as numbers of the model's own dtype."""
        layer, scheme = self._layer_of(name, str(model.base_model_prefix))
        dtype = self.dtype if self.dtype not in (None, self._own_dtype) else getattr(torch, layer.dtype)
        own = {
            part: tensor.clone() for part, tensor in parts.items()
        }  # otherwise they stay views of the file for the lifetime of the model
        weight = packed_weight(own, layer, scheme, dtype)
        return nn.Parameter(weight, requires_grad=False)

    def _layer_of(self, name: str, prefix: str) -> tuple[Layer, Any]:
        """A layer by the name of its parameter, with or without the prefix of a model with a head."""
        for own in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
            if own in self.layers:
                return self.layers[own]
        raise FormatError(f"the artifact has no layer '{name}'")

    def _process_model_before_weight_loading(self, model: nn.Module, checkpoint_files: Sequence[str] | None = None, **_: Any) -> nn.Module:
        if not checkpoint_files:
            raise ModelError("a packed model is loaded from its folder: do not give a state_dict")
        header = headers_as_one([Path(file) for file in checkpoint_files], Path(checkpoint_files[0]))
        self.layers = {layer.parameters[0]: (layer, header.schemes[layer.name]) for layer in header.layers}
        self._own_dtype = getattr(torch, str(header.config.get("dtype")), None)
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        del model.config.transformers_weights
        model._weight_conversions = None  # a dequantized model is saved with its usual conversions, not with those that packed it
        model.requires_grad_(False)  # products on codes need inputs without gradients
        return_freed_memory()  # the codes were copied out of the file
        return model

    def _dequantize(self, model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
        """Replace packed parameters by ordinary ones, in place; tied ones stay tied."""
        made: dict[int, nn.Parameter] = {}
        for name, parameter in list(model.named_parameters(remove_duplicate=False)):
            if isinstance(parameter, PackedTensor):
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(parameter.dequantize().to(dtype), requires_grad=False)
                replace_tensor(model, name, made[id(parameter)])
        return model.requires_grad_()

    def is_serializable(self) -> bool:
        """No; prints what to do instead."""
        logger.warning("mpq: save_pretrained does not write packed layers. Copy the folder, or call model.dequantize() first")
        return False

    @property
    def is_trainable(self) -> bool:
        """No: codes have no gradients."""
        return False


if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
    auto.register_quantization_config(METHOD)(MpqConfig)
    auto.register_quantizer(METHOD)(MpqQuantizer)
