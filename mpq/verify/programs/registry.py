"""The programs by name; a program's file is imported when the program is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpq.registry import Registry

if TYPE_CHECKING:
    from mpq.verify.programs.base import Program

PROGRAMS: Registry[Program] = Registry(
    "program",
    {
        "torch": ("mpq.verify.programs.torch:Torch", "PyTorch, for pt2 exports"),
        "onnxruntime": ("mpq.verify.programs.onnxruntime:OnnxRuntime", "ONNX Runtime on the CPU"),
        "openvino": ("mpq.verify.programs.openvino:OpenVino", "OpenVINO on the CPU"),
        "transformers": ("mpq.verify.programs.transformers:Transformers", "Transformers, for compressed-tensors folders"),
        "vllm": ("mpq.verify.programs.vllm:Vllm", "vLLM, for compressed-tensors folders"),
        "llama.cpp": ("mpq.verify.programs.llama_cpp:LlamaCpp", "llama.cpp through llama-cpp-python, for GGUF files"),
        "executorch": ("mpq.verify.programs.executorch:ExecuTorch", "ExecuTorch on the CPU"),
    },
)
