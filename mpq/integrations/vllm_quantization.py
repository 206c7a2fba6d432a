"""The quantization that vLLM asks for the method of each layer, and the loader of the weights. Importing this file registers both.

vLLM calls, in this order: `from_config` with the contents of config.json, `maybe_update_config` with the folder, `get_quant_method` for
each layer while it builds the model, and then the loader. Layers for which vLLM has a kernel get packed codes, all others get numbers.
Written for vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import get_current_vllm_config
from vllm.logger import init_logger
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsLinearMethod
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import CompressedTensorsWNA16
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from mpq.integrations.vllm_layers import NamedLayers, check_load_format, fused
from mpq.integrations.vllm_weights import header_in, weights_in
from mpq.records.hub_config import METHOD, check_config_version
from mpq.shown import listed

_SHOWN = 3
_KERNEL_DTYPES = (torch.float16, torch.bfloat16)  # vLLM looks for a kernel by format and shape, and fails later for others
logger = init_logger(__name__)


@register_quantization_config(METHOD)
class MpqQuantization(QuantizationConfig):  # type: ignore[misc]
    """The schemes of the layers of one folder.

    Attributes:
        layers: the quantized layers, by the names in vLLM's model.
        as_words: the artifact's names of layers that compute with packed codes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = NamedLayers()
        self.as_words: set[str] = set()

    def get_name(self) -> str:
        """The name in config.json."""
        return METHOD

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """All of vLLM's; in fp32, every layer is dequantized, because no kernel computes in it."""
        return [torch.float32, torch.float16, torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        """The lowest CUDA compute capability of vLLM's weight-only kernels: 7.5 (Turing)."""
        return 75

    @staticmethod
    def get_config_filenames() -> list[str]:
        """No other files than config.json."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MpqQuantization:
        """A configuration without layers; `maybe_update_config` reads them.

        Raises:
            FormatError: if a newer mpq wrote it.
        """
        check_config_version(config.get("version"))
        return cls()

    def maybe_update_config(self, model_name: str, hf_config: Any = None, revision: str | None = None) -> None:
        """Read the schemes from the header of the artifact.

        Raises:
            FormatError: if there is no such folder, or its artifact is damaged.
        """
        self.layers = NamedLayers(header_in(Path(model_name)).schemes)

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        """Rename the layers to the names in vLLM's model."""
        self.layers = self.layers.renamed(hf_to_vllm_mapper._map_name)

    def get_quant_method(self, layer: nn.Module, prefix: str) -> Any:
        """The method for packed codes if vLLM may have a kernel for the layer's scheme, else the ordinary one; None for other layers.

        Raises:
            ModelError: if vLLM fuses layers with different schemes, or the load format is not "mpq".
        """
        if not isinstance(layer, (LinearBase, ParallelLMHead)):
            return None
        check_load_format(get_current_vllm_config().load_config.load_format)
        names = fused(prefix, self.packed_modules_mapping)
        scheme = self.layers.packed_scheme(names)
        if scheme is None:
            return UnquantizedLinearMethod() if isinstance(layer, LinearBase) else None
        strategy = "channel" if scheme.group_size is None else "group"
        layer.scheme = CompressedTensorsWNA16(strategy, scheme.bits, scheme.group_size, symmetric=True, layer_name=prefix)
        return PackedLinearMethod(self, [self.layers.own_name(name) for name in names])


class PackedLinearMethod(CompressedTensorsLinearMethod):  # type: ignore[misc]
    """Computes with packed codes if vLLM has a kernel for the scheme and shape on this machine, else like an unquantized layer."""

    def __init__(self, config: MpqQuantization, names: Sequence[str]) -> None:
        super().__init__(config)
        self._names = names

    def create_weights(
        self,
        layer: nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **more: Any,
    ) -> None:
        """Create the parameters. vLLM looks for a kernel first, and raises a ValueError if there is none."""
        sizes = (input_size_per_partition, output_partition_sizes, input_size, output_size)
        if params_dtype in _KERNEL_DTYPES:
            with suppress(ValueError):
                super().create_weights(layer, *sizes, params_dtype, **more)
                self.quantization_config.as_words.update(self._names)
                return
        del layer.scheme
        ordinary = UnquantizedLinearMethod() if isinstance(layer, LinearBase) else UnquantizedEmbeddingMethod()
        ordinary.create_weights(layer, *sizes, params_dtype, **more)
        layer.quant_method = ordinary


@register_model_loader(METHOD)
class MpqLoader(DefaultModelLoader):  # type: ignore[misc]
    """Loads the tensors of an exported folder into vLLM's model."""

    def download_model(self, model_config: Any) -> None:
        """Nothing is downloaded: the folder must be on this machine."""
        header_in(Path(model_config.model))

    def get_all_weights(self, model_config: Any, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """All tensors; the log names the layers that do not stay packed."""
        config = get_current_vllm_config().quant_config
        schemes, own = config.layers.schemes, config.layers.own_name
        others = [name for name, scheme in schemes.items() if not scheme.is_float and own(name) not in config.as_words]
        if others:
            logger.warning(
                "mpq: vLLM has no kernel for %s in %s here: these layers are dequantized and take more memory",
                listed([f"{name} ({schemes[name]})" for name in others], _SHOWN),
                model_config.dtype,
            )
        yield from weights_in(Path(model_config.model), config.as_words)
