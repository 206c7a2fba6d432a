"""llama.cpp: python run_llama_cpp.py MODEL CALIBRATION OUTPUT TYPE [pure], such as Q4_K_M, for a Llama with tied embeddings.

The importance matrix comes from the calibration windows: for each column the mean of its squares, as `llama-imatrix` computes it. Bytes are
those of the whole file, which has no tokenizer. Rows of the query and key weights keep the order of Transformers, which changes no value.
"""

import ctypes
import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel


def main() -> None:
    """Quantize, read back and write."""
    folder, calibration, output, kind, *pure = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    windows = torch.load(calibration, weights_only=True).long()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    tensors = {str(names.get_name(name, (".weight",))): name for name in model.state_dict() if name != "lm_head.weight"}
    whole, small = Path(output, "whole.gguf"), Path(output, "small.gguf")
    write_whole(model, tensors, whole)
    began = time.process_time()
    quantize(whole, small, f"LLAMA_FTYPE_MOSTLY_{kind}", column_squares(model, windows, linear(model, tensors)), pure=bool(pure))
    seconds = time.process_time() - began
    read = gguf.GGUFReader(small).tensors
    values = {tensors[str(each.name)]: torch.from_numpy(gguf.dequantize(each.data, each.tensor_type).copy()) for each in read}
    save_file(values, f"{output}/weights.safetensors")
    facts = {
        "bits": {tensors[str(each.name)].removesuffix(".weight"): 8 * int(each.n_bytes) / int(each.n_elements) for each in read},
        "bytes": small.stat().st_size,
        "seconds": seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "version": version("llama-cpp-python"),
    }
    whole.unlink()
    Path(output, "facts.json").write_text(json.dumps(facts))


def write_whole(model: PreTrainedModel, tensors: dict[str, str], path: Path) -> None:
    """The unquantized model as a GGUF file."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    state = model.state_dict()
    for given, name in tensors.items():
        writer.add_tensor(given, state[name].float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def linear(model: PreTrainedModel, tensors: dict[str, str]) -> dict[str, torch.nn.Linear]:
    """The linear layers by their names in the file; the head has the name of the table that it shares."""
    modules = dict(model.named_modules())
    found = {given: modules[name.removesuffix(".weight")] for given, name in tensors.items()}
    kept = {given: module for given, module in found.items() if isinstance(module, torch.nn.Linear)}
    return kept | {"token_embd.weight": modules["lm_head"]}


def column_squares(model: PreTrainedModel, windows: torch.Tensor, layers: dict[str, torch.nn.Linear]) -> dict[str, np.ndarray]:
    """The mean of the squares of each column of each layer's inputs."""
    totals = {name: torch.zeros(layer.in_features, dtype=torch.float64) for name, layer in layers.items()}
    handles = []
    for name, layer in layers.items():

        def add(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], total: torch.Tensor = totals[name]) -> None:
            total.add_(inputs[0].flatten(0, -2).double().square().sum(0))

        handles.append(layer.register_forward_pre_hook(add))
    with torch.inference_mode():
        for part in torch.split(windows, 8):
            model(input_ids=part)
    for handle in handles:
        handle.remove()
    return {name: (total / windows.numel()).float().numpy() for name, total in totals.items()}


def quantize(source: Path, target: Path, kind: str, squares: dict[str, np.ndarray], *, pure: bool) -> None:
    """Run llama.cpp's quantizer on one thread; if `pure`, all matrices get the type itself, else its mixture."""
    matrices = (llama_cpp.llama_model_imatrix_data * (len(squares) + 1))()  # the last one is empty: the end
    for place, (name, values) in zip(matrices, squares.items(), strict=False):
        place.name, place.size = name.encode(), values.size
        place.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.imatrix, params.pure = 1, getattr(llama_cpp, kind), matrices, pure
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp cannot write {kind}")


if __name__ == "__main__":
    main()
