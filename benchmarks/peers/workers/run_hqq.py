"""HQQ: python run_hqq.py MODEL CALIBRATION OUTPUT BITS GROUP. It needs no calibration data."""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from hqq.core.quantize import Quantizer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def main() -> None:
    """Quantize and write."""
    folder, _, output, bits, group = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    began, found, size = time.process_time(), {}, 0.0
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or ".layers." not in name:
            continue
        codes, meta = Quantizer.quantize(
            module.weight.data.float(),
            nbits=int(bits),
            group_size=int(group),
            optimize=True,
            axis=1,
            device="cpu",
            compute_dtype=torch.float32,
        )
        found[f"{name}.weight"] = Quantizer.dequantize(codes, meta).float().reshape(module.weight.shape).contiguous()
        size += module.weight.numel() * (int(bits) / 8 + 4 / int(group))  # a scale and a zero point of 16 bits per group
    seconds = time.process_time() - began
    save_file(found, f"{output}/weights.safetensors")
    facts = {
        "bits": {name.removesuffix(".weight"): float(bits) for name in found},
        "bytes": int(size),
        "seconds": seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "version": version("hqq"),
    }
    Path(output, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
