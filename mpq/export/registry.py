"""The targets by name; a target's file is imported when the target is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpq.registry import Registry

if TYPE_CHECKING:
    from mpq.export.base import Target

TARGETS: Registry[Target] = Registry(
    "target",
    {
        "auto-round": ("mpq.export.plans.auto_round:AutoRound", "AutoRound's layer_config, JSON, no weights"),
        "compressed-tensors": (
            "mpq.export.weights.compressed_tensors:CompressedTensors",
            "a Hugging Face folder for Transformers and vLLM",
        ),
        "executorch": (
            "mpq.export.weights.executorch.target:ExecuTorch",
            "an ExecuTorch program, .pte, with int4 and int8 weights for XNNPACK",
        ),
        "gguf": ("mpq.export.weights.gguf.target:Gguf", "a GGUF file for llama.cpp, Llama-family models"),
        "gptqmodel": ("mpq.export.plans.gptqmodel:GptqModel", "GPTQModel's quantize_config.json with a dynamic map, no weights"),
        "huggingface": (
            "mpq.export.weights.huggingface.target:HuggingFace",
            "a Hugging Face folder with the packed weights, a model card, the plan and the report",
        ),
        "llama.cpp": ("mpq.export.plans.llama_cpp:LlamaCpp", "the file for llama-quantize --tensor-type-file, no weights"),
        "modelopt": ("mpq.export.plans.modelopt:ModelOpt", "ModelOpt's PTQ recipe, YAML, no weights"),
        "onnx": ("mpq.export.weights.onnx.target:Onnx", "a graph for ONNX Runtime with int4 and int8 weights"),
        "openvino": ("mpq.export.weights.openvino:OpenVino", "an OpenVINO model, .xml and .bin"),
        "pt2": ("mpq.export.weights.pt2:Pt2", "a torch.export archive with packed weights that needs torch alone"),
        "torchao": ("mpq.export.plans.torchao:TorchAO", "an FqnToConfig for torchao, JSON, no weights"),
    },
)

PROGRAMS = {
    "compressed-tensors": "transformers",
    "executorch": "executorch",
    "gguf": "llama.cpp",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "pt2": "torch",
}
"""What loads the exports of each target that holds weights, as `mpq verify --with` calls it."""


def target_named(name: str) -> Target:
    """The target called `name`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    return TARGETS.kind(name)()


RUNTIMES = ("onnxruntime", "openvino")
"""The programs in which `mpq profile` times exports."""
