"""Every export target on real models: does it load, how big is it, how far are its logits from those of the artifact.

    python -m benchmarks.exports --models DIR [--folder KEEP]

DIR holds stories15m/, text/tinystories.jsonl, cifar10/resnet20.pt2 and cifar10/calibration.pt. Each model is analyzed on few samples,
searched, applied, exported, and loaded by the real program. Targets whose program is not installed are listed as such.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mpq
from mpq.cli.main import app
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export

Run = Callable[[Tensor], Tensor]
SECONDS = 2.0
COLUMNS = f"{'target':34} {'bytes':>11} {'plan':>10} {'program':28} {'largest difference':>18} {'KL':>9} {'per second':>10}"


@dataclass(frozen=True)
class Case:
    """One way to run one target: how to open what was exported."""

    label: str
    target: str
    package: str
    open: Callable[[Path], Run]


def onnx_runtime(**entries: str) -> Callable[[Path], Run]:
    def opened(path: Path) -> Run:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        for name, value in entries.items():
            options.add_session_config_entry(f"session.{name}", value)
        session = runtime.InferenceSession(path, options)
        name = session.get_inputs()[0].name
        return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])

    return opened


def openvino(**settings: str) -> Callable[[Path], Run]:
    def opened(path: Path) -> Run:
        model = importlib.import_module("openvino").Core().compile_model(path, "CPU", settings)
        return lambda inputs: torch.from_numpy(model(inputs.numpy())[0])

    return opened


def transformers(path: Path) -> Run:
    loader = importlib.import_module("transformers").AutoModelForCausalLM
    model = loader.from_pretrained(path, dtype="auto") if path.is_dir() else loader.from_pretrained(path.parent, gguf_file=path.name)
    return lambda inputs: model(input_ids=inputs).logits


def llama_cpp(path: Path) -> Run:
    model = importlib.import_module("llama_cpp").Llama(str(path), n_ctx=256, logits_all=True, verbose=False)

    def run(inputs: Tensor) -> Tensor:
        rows = []
        for row in inputs:
            model.reset()
            model.eval(row.tolist())
            rows.append(torch.from_numpy(model.scores[: len(row)].copy()))
        return torch.stack(rows)

    return run


def archive(path: Path) -> Run:
    module = torch.export.load(path).module()
    return lambda inputs: logits(module(inputs))


def executorch(path: Path) -> Run:
    importlib.import_module("executorch.kernels.quantized")
    method = importlib.import_module("executorch.runtime").Runtime.get().load_program(path).load_method("forward")
    return lambda inputs: torch.cat([method.execute([row])[0].clone() for row in torch.split(inputs, 1)])


def torchao(model: Path) -> Callable[[Path], Run]:
    def opened(path: Path) -> Run:
        loaded = importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(model)
        config = importlib.import_module("torchao.core.config").config_from_dict(json.loads(path.read_text()))
        importlib.import_module("torchao.quantization").quantize_(loaded, config, filter_fn=None)
        return lambda inputs: logits(loaded(input_ids=inputs))

    return opened


EXACT = {"EXECUTION_MODE_HINT": "ACCURACY"}
GRAPHS = (
    Case("onnx", "onnx", "onnxruntime", onnx_runtime(qdq_matmulnbits_accuracy_level="1")),
    Case("onnx, as it comes", "onnx", "onnxruntime", onnx_runtime()),
    Case("onnx, unpacked when loading", "onnx", "onnxruntime", onnx_runtime(disable_quant_qdq="1")),
    Case("openvino", "openvino", "openvino", openvino(**EXACT)),
    Case("openvino, as it comes", "openvino", "openvino", openvino()),
    Case("pt2", "pt2", "torch", archive),
    Case("executorch", "executorch", "executorch", executorch),
)
LANGUAGE = (
    Case("compressed-tensors", "compressed-tensors", "compressed-tensors", transformers),
    Case("gguf, by transformers", "gguf", "gguf", transformers),
    Case("gguf, by llama.cpp", "gguf", "llama-cpp-python", llama_cpp),
)


def measure(name: str, artifact: Path, inputs: Tensor, cases: tuple[Case, ...]) -> None:
    """Print one line per case."""
    reference = logits(mpq.load(artifact)(inputs))
    print(f"\n{name}: artifact of {artifact.stat().st_size:,} bytes, inputs {list(inputs.shape)}\n{COLUMNS}")
    for case in cases:
        try:
            installed = f"{case.package} {version(case.package)}"
            done = export(artifact, case.target, nearest=True, options=Options())
            run = case.open(done.path)
        except (PackageNotFoundError, ImportError, ExportError) as error:
            print(f"{case.label:34} not run: {error}")
            continue
        found = run(inputs)
        largest = float((reference - found).abs().max())
        facts = f"{done.bytes:11,} {done.source_bytes:10,} {installed:28} {largest:18.2g} {kl_divergence(reference, found):9.1e}"
        print(f"{case.label:34} {facts} {rate(run, inputs):10,.0f}")


def rate(run: Run, inputs: Tensor) -> float:
    """Tokens or images per second."""
    count = inputs.numel() if inputs.ndim == 2 else len(inputs)
    began, runs = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        run(inputs)
        runs += 1
    return runs * count / (time.monotonic() - began)


def logits(output: Any) -> Tensor:
    found: Tensor = getattr(output, "logits", output)
    return found


def kl_divergence(reference: Tensor, found: Tensor) -> float:
    first, second = reference.double().log_softmax(-1), found.double().log_softmax(-1)
    return max(0.0, float((first.exp() * (first - second)).sum(-1).mean()))


def first_tokens(models: Path, *, samples: int, length: int) -> Tensor:
    """Token ids of stories that no stage has seen: [samples, length]."""
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(models / "stories15m")
    lines = map(json.loads, (models / "text" / "tinystories.jsonl").read_text().splitlines())
    stories = (tokenizer(line["text"], add_special_tokens=False).input_ids for line in lines if line["split"] == "valid_piece")
    long = [[1, *story][:length] for story in stories if len(story) >= length]
    return torch.tensor(long[:samples])


def mpq_command(*words: str) -> None:
    print("$ mpq " + " ".join(words))
    app(["--quiet", *words], standalone_mode=False)


def make(folder: Path, model: Path, data: str, budget: str, *more: str, ties: tuple[str, ...] = ()) -> Path:
    """Analyze, search and apply; the artifact."""
    stem = model.stem
    table, plan, artifact = folder / f"{stem}.sensitivity.jsonl", folder / f"{stem}.yaml", folder / f"{stem}.mpq.safetensors"
    if not artifact.exists():
        mpq_command("analyze", str(model), "--calib", data, *more, "--output", str(table))
        tied = [word for tie in ties for word in ("--tie", tie)]
        mpq_command("search", str(table), "--budget", budget, "--trials", "0", "--output", str(plan), *tied)
        mpq_command("apply", str(plan), "--output", str(artifact))
    return artifact


def main() -> None:
    parser = argparse.ArgumentParser(description="Every export target on real models.")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keep the files there, and take artifacts that are there already")
    arguments = parser.parse_args()
    models: Path = arguments.models.resolve()
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        folder = Path(arguments.folder or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        images = models / "cifar10" / "calibration.pt"
        resnet = make(
            folder, models / "cifar10" / "resnet20.pt2", str(images), "5bits", "--num-samples", "16", "--candidates", "4,8,int4-asym"
        )
        measure("ResNet-20", resnet, torch.load(images)[:8], GRAPHS)
        blocks = [f"model.layers.{number}" for number in range(6)]
        ties = [f"{block}.self_attn.q_proj,{block}.self_attn.k_proj,{block}.self_attn.v_proj" for block in blocks]
        ties += [f"{block}.mlp.gate_proj,{block}.mlp.up_proj" for block in blocks]
        text = f"{models}/text/tinystories.jsonl?split=train_head"
        short = ("--num-samples", "8", "--seq-len", "128")
        stories = make(folder, models / "stories15m", text, "4.6bits", *short, ties=tuple(ties))
        tokens = first_tokens(models, samples=3, length=64)
        own = Case("torchao, its own codes", "torchao", "torchao", torchao(models / "stories15m"))
        measure("stories15m", stories, tokens, (*GRAPHS, *LANGUAGE, own))


if __name__ == "__main__":
    main()
