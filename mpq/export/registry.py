"""The targets by name; a target's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from mpq.errors import UsageError
from mpq.export.base import Target

_HOMES = {
    "auto-round": ("auto_round:AutoRound", "AutoRound's layer_config, JSON, no weights"),
    "compressed-tensors": ("compressed_tensors:CompressedTensors", "a Hugging Face folder for Transformers and vLLM"),
    "executorch": ("executorch:ExecuTorch", "an ExecuTorch program, .pte, with int4 and int8 weights for XNNPACK"),
    "gguf": ("gguf:Gguf", "a GGUF file for llama.cpp, Llama-family models"),
    "gptqmodel": ("gptqmodel:GptqModel", "GPTQModel's quantize_config.json with a dynamic map, no weights"),
    "llama.cpp": ("llama_cpp:LlamaCpp", "the file for llama-quantize --tensor-type-file, no weights"),
    "onnx": ("onnx:Onnx", "a graph for ONNX Runtime with int4 and int8 weights"),
    "modelopt": ("modelopt:ModelOpt", "ModelOpt's PTQ recipe, YAML, no weights"),
    "pt2": ("pt2:Pt2", "a torch.export archive with packed weights that needs torch alone"),
    "openvino": ("openvino:OpenVino", "an OpenVINO model, .xml and .bin"),
    "torchao": ("torchao:TorchAO", "an FqnToConfig for torchao, JSON, no weights"),
}
SUMMARIES = {name: summary for name, (_, summary) in _HOMES.items()}


def target_named(name: str) -> Target:
    """The target called `name`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    if name not in _HOMES:
        raise UsageError(f"'{name}' is not a target: use one of {', '.join(_HOMES)}")
    file, _, target = _HOMES[name][0].partition(":")
    made: Target = getattr(import_module(f"mpq.export.{file}"), target)()
    return made
