"""AutoRound: python run_auto_round.py MODEL CALIBRATION OUTPUT BITS GROUP ITERATIONS. CALIBRATION is a tensor of token windows (.pt)."""

import json
import resource
import sys
import time
from pathlib import Path

import auto_round
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


class NoTokenizer:
    """The windows are tokens already."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2
    pad_token, eos_token, chat_template, padding_side = "<pad>", "</s>", None, "right"

    def __init__(self, folder: str, length: int) -> None:
        self.name_or_path, self.model_max_length = folder, length

    def save_pretrained(self, *_: object, **__: object) -> None:
        """Nothing to save."""


def main() -> None:
    """Quantize and write."""
    folder, calibration, output, bits, group, iterations = sys.argv[1:]
    windows = torch.load(calibration, weights_only=True).long()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    data = [{"input_ids": each[None], "attention_mask": torch.ones_like(each[None])} for each in windows]
    began = time.process_time()
    quantizer = auto_round.AutoRound(
        model,
        tokenizer=NoTokenizer(folder, windows.shape[1]),
        bits=int(bits),
        group_size=int(group),
        sym=True,
        iters=int(iterations),
        nsamples=len(windows),
        seqlen=windows.shape[1],
        batch_size=8,
        dataset=data,
        device_map="cpu",
        enable_torch_compile=False,
        amp=False,
    )
    found = quantizer.quantize()
    seconds = time.process_time() - began
    quantized = found[0] if isinstance(found, tuple) else found
    blocks = {name: module.weight for name, module in quantized.named_modules() if type(module).__name__ == "Linear" and ".layers." in name}
    size = sum(weight.numel() * int(bits) / 8 + 2 * weight.shape[0] * -(-weight.shape[1] // int(group)) for weight in blocks.values())
    save_file({f"{name}.weight": weight.detach().float().contiguous() for name, weight in blocks.items()}, f"{output}/weights.safetensors")
    facts = {
        "bits": dict.fromkeys(blocks, float(bits)),
        "bytes": int(size),
        "seconds": seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "version": auto_round.__version__,
    }
    Path(output, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
