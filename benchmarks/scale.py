"""Random models of real shape through the whole way: seconds, peak memory, bytes read, and a cost model from the smaller ones.

    python -m benchmarks.scale --folder DIR [--sizes 0.1,0.5,1.1] [--memory 12GB] [--samples 16] [--tokens 128] [--workers 1]

DIR needs room for the models in bfloat16 (0.2, 1.0 and 2.2 GB), their artifacts and the cache of codes (about as large as the models, and
at most 10 GB). Each model is a Llama folder of Hugging Face with random weights, written a tensor at a time. Each command runs in a process
of its own with a limit on its memory; seconds are wall-clock seconds of that process, CPU seconds those of it and of the processes that it
started. Finished stages are kept in DIR/SIZE/took.json and not run again; sizes may have been run with different samples. The cost model
is fitted on all sizes but the largest, and printed beside what the largest took: a stage takes a + b * work, where the work of analyze is
weights times (schemes + 6 * samples * tokens / 1000), as measured at 0.1 B, and that of the others is weights. Beside the peak memory of
analyze is what it expected before it began.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mpq.budget import size_bytes
from mpq.records.sensitivity import read_sensitivity

CANDIDATES = "3,4,8,16"


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32000

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """All weights by name, in the order of the forward pass."""
        head = self.hidden // self.heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for number in range(self.layers):
            block = f"model.layers.{number}"
            yield f"{block}.self_attn.q_proj.weight", (self.hidden, self.hidden)
            yield f"{block}.self_attn.k_proj.weight", (self.kv_heads * head, self.hidden)
            yield f"{block}.self_attn.v_proj.weight", (self.kv_heads * head, self.hidden)
            yield f"{block}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield f"{block}.mlp.gate_proj.weight", (self.inner, self.hidden)
            yield f"{block}.mlp.up_proj.weight", (self.inner, self.hidden)
            yield f"{block}.mlp.down_proj.weight", (self.hidden, self.inner)
            yield f"{block}.input_layernorm.weight", (self.hidden,)
            yield f"{block}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(torch.Size(shape).numel() for _, shape in self.tensors())

    def config(self) -> dict[str, object]:
        """The config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


SHAPES = {
    "0.02": Shape(256, 704, 6, 4, 4),
    "0.1": Shape(640, 1728, 12, 10, 10),
    "0.5": Shape(1280, 3456, 22, 20, 20),
    "1.1": Shape(2048, 5632, 22, 32, 4),
}


@dataclass(frozen=True)
class Took:
    """What one command took."""

    stage: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    read_bytes: int
    work: float
    expected_bytes: int = 0


def make(folder: Path, shape: Shape, *, samples: int, tokens: int) -> Path:
    """A model folder with random weights, and calibration tokens beside it."""
    source, generator = folder / "model", torch.Generator().manual_seed(0)
    source.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    part: dict[str, torch.Tensor] = {}
    for name, size in shape.tensors():
        values = torch.ones(size) if len(size) == 1 else torch.randn(size, generator=generator).div_(size[-1] ** 0.5)
        part[name] = values.bfloat16()
        if sum(map(torch.Tensor.numel, part.values())) > 1 << 27:
            _flush(source, part, index)
    _flush(source, part, index)
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (source / "config.json").write_text(json.dumps(shape.config()))
    torch.save(torch.randint(3, shape.vocabulary, (samples, tokens), generator=generator), folder / "calibration.pt")
    return source


def _flush(source: Path, part: dict[str, torch.Tensor], index: dict[str, str]) -> None:
    if part:
        name = f"model-{len(set(index.values())) + 1:05}.safetensors"
        save_file(part, source / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
        part.clear()


def run(stage: str, command: Sequence[str], folder: Path, memory: int | None, work: float) -> Took:
    """One command in a process of its own.

    Raises:
        SystemExit: if it fails, with what it said.
    """

    def limited() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=limited) as process:
        assert process.stderr is not None
        lines, read = [], 0
        for line in process.stderr:
            lines.append(line)
            read = max(read, _read_by(process.pid))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{stage} failed with {process.returncode}: {''.join(lines[-5:])}")
    return Took(stage, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, read, work)


def _read_by(process: int) -> int:
    """Bytes that a process has asked for so far; 0 where the system does not tell."""
    try:
        found = re.search(r"rchar: (\d+)", Path(f"/proc/{process}/io").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _expected(folder: Path) -> int:
    """What the finished analysis in `folder` expected its peak memory to be."""
    finish = read_sensitivity(folder / "model.sensitivity.jsonl").finish or {}
    return int(finish.get("cost", {}).get("expected_memory_bytes", 0))


def work_of(stage: str, shape: Shape, options: argparse.Namespace) -> float:
    """What the CPU seconds of a stage are taken to be proportional to, beside a constant."""
    schemes = len(options.candidates.split(","))
    return shape.weights * (schemes + 6 * options.samples * options.tokens / 1000 if stage == "analyze" else 1.0)


def whole_way(folder: Path, shape: Shape, options: argparse.Namespace) -> Iterator[Took]:
    """Analyze, search, apply, load and bench of the model in `folder`; finished stages are kept there."""
    mpq = [sys.executable, "-m", "mpq"]
    memory = None if options.memory is None else size_bytes(options.memory)
    analyze = ["analyze", "model", "--calib", "calibration.pt", "--candidates", options.candidates, "--method", options.method]
    stages = {
        "analyze": [*mpq, *analyze, "--quantizer", options.quantizer, "--workers", options.workers],
        "search": [*mpq, "search", "--budget", "4.5bits", "--trials", str(options.trials)],
        "apply": [*mpq, "apply", "plan.yaml", "--no-recovery"],
        "load": [sys.executable, "-c", "import mpq; mpq.load('model.mpq.safetensors', packed=True)"],
        "bench": [*mpq, "bench", "model.mpq.safetensors", "--batch-sizes", "1", "--tokens", "8", "--seq-len", str(options.tokens)],
    }
    kept = folder / "took.json"
    done = {each["stage"]: Took(**each) for each in json.loads(kept.read_text())} if kept.exists() else {}
    for stage in options.stages.split(","):
        if stage not in done:
            done[stage] = run(stage, stages[stage], folder, memory, work_of(stage, shape, options))
            if stage == "analyze":
                done[stage] = replace(done[stage], expected_bytes=_expected(folder))
            kept.write_text(json.dumps([asdict(each) for each in done.values()], indent=1))
        yield done[stage]


def predicted(points: Sequence[tuple[float, float]], at: float) -> float:
    """The value at `at` of the line through points, at least two."""
    x, y = (np.array(values) for values in zip(*points, strict=True))
    slope, constant = np.polyfit(x, y, 1)
    return float(constant + slope * at)


def report(sizes: Sequence[str], found: dict[str, list[Took]]) -> list[str]:
    """A line per size and stage; for the largest with what the others predict, if there are two."""
    lines = [
        "| weights | stage | seconds | CPU seconds | peak memory | expected | read | CPU seconds by the smaller | memory by the smaller |",
        "|" + "---|" * 9,
    ]
    for size in sizes:
        for took in found[size]:
            others = [(each, next(t for t in found[each] if t.stage == took.stage)) for each in sizes if each != sizes[-1]]
            cells = ["", ""]
            if size == sizes[-1] and len(others) > 1:
                cpu = predicted([(t.work, t.cpu_seconds) for _, t in others], took.work)
                peak = predicted([(SHAPES[each].weights, t.peak_bytes) for each, t in others], SHAPES[size].weights)
                cells = [f"{cpu:.0f} ({took.cpu_seconds / cpu - 1:+.0%})", f"{peak / 1e9:.2f} GB ({took.peak_bytes / peak - 1:+.0%})"]
            own = [
                f"{took.seconds:.0f}",
                f"{took.cpu_seconds:.0f}",
                *(_gigabytes(each) for each in (took.peak_bytes, took.expected_bytes, took.read_bytes)),
            ]
            lines.append(f"| {SHAPES[size].weights / 1e9:.3g} B | {took.stage} | {' | '.join(own + cells)} |")
    return lines


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size else ""


def main() -> None:
    """Make the models, run them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", default="0.1,0.5,1.1")
    parser.add_argument("--memory", default=None)
    parser.add_argument("--candidates", default=CANDIDATES)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--method", default="fisher")
    parser.add_argument("--quantizer", default="mse")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--stages", default="analyze,search,apply,load,bench")
    options = parser.parse_args()
    sizes, found = options.sizes.split(","), dict[str, list[Took]]()
    for size in sizes:
        folder = options.folder / size
        if not (folder / "calibration.pt").exists():
            make(folder, SHAPES[size], samples=options.samples, tokens=options.tokens)
        found[size] = []
        for took in whole_way(folder, SHAPES[size], options):
            found[size].append(took)
            print(f"{size} B {took.stage}: {took.seconds:.0f} s, {took.cpu_seconds:.0f} of CPU, {_gigabytes(took.peak_bytes)}", flush=True)
    print("\n".join(report(sizes, found)))


if __name__ == "__main__":
    main()
