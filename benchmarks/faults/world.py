"""The small models, data and results that the attacks work on, made new in every run; and mpq's command line in this process."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import logging
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.forks import run_one

MEASURE = "analyze model.pt2 --calib calibration.pt --method measure --quantizer mse --candidates 2,4,8 -o model.sensitivity.jsonl"
FISHER = "analyze model.pt2 --calib calibration.pt --method fisher --quantizer mse --candidates 2,4,8 -o fisher.sensitivity.jsonl"
SEARCH = "search model.sensitivity.jsonl --budget 5bits --trials 6 -o plan.yaml"
APPLY = "apply plan.yaml"
TINY = "analyze tiny --calib tokens.pt --method measure --quantizer rtn --candidates 4,8 -o tiny.sensitivity.jsonl"
TINY_SEARCH = "search tiny.sensitivity.jsonl --budget 6bits --trials 0 -o tiny.plan.yaml"
SHARDS = "apply tiny.plan.yaml --shards shards"
EXPORT = "export model.mpq.safetensors --to pt2 -o exported.pt2"
RECOVER = "recover coarse.plan.yaml --artifact coarse.mpq.safetensors --data training.pt --epochs 3 --batch-size 16 --rate 3"
FOLDER = "export tiny.mpq.safetensors --to compressed-tensors -o exported --nearest --allow-unfused"
_TINY_APPLY = "apply tiny.plan.yaml -o tiny.mpq.safetensors"
_CODED = (
    "analyze tiny --calib tokens.pt --method measure --quantizer rtn --candidates ec5,ec6 -o coded.sensitivity.jsonl",
    "search coded.sensitivity.jsonl --budget 6bits --trials 0 -o coded.plan.yaml",
    "apply coded.plan.yaml --no-recovery -o coded.mpq.safetensors",
)
_COARSE = (
    "analyze model.pt2 --calib samples.pt --method measure --quantizer rtn --candidates 3,4 -o coarse.sensitivity.jsonl",
    "search coarse.sensitivity.jsonl --budget 4.5bits --trials 0 -o coarse.plan.yaml",
    "apply coarse.plan.yaml --no-recovery -o coarse.mpq.safetensors",
)
_STEPS = (MEASURE, FISHER, SEARCH, APPLY, TINY, TINY_SEARCH, SHARDS, _TINY_APPLY, *_CODED, *_COARSE, EXPORT)
_HEAVY = ("torch.export", "torch._dynamo", "transformers.models.llama.modeling_llama", "optuna", "pandas", "scipy.optimize", "mpq.cli.main")
_REMARKING = ("torchao", "torch.utils._pytree")  # loggers that remark on CUDA libraries while torchao is imported
_TEXT = "the cat sat on a mat and saw one red bird fly over two old trees"
LAST: list[BaseException] = []  # how the last command ended, with the error behind it as context
FACTORY = "benchmarks.faults.world:mlp"


@dataclass(frozen=True)
class World:
    """A folder with every kind of file that mpq reads or writes.

    Args:
        folder: where they are; not to be changed.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """One of the files."""
        return self.folder / name

    def copy(self, to: Path, names: Sequence[str] | None = None) -> Path:
        """A new folder with these files, or with all."""
        to.mkdir(parents=True)
        for source in sorted(self.folder.iterdir()):
            if names is not None and source.name not in names:
                continue
            if source.is_dir():
                shutil.copytree(source, to / source.name)
            else:
                shutil.copy(source, to / source.name)
        return to


def mpq(line: str | Sequence[str]) -> int:
    """Run a command of mpq in this process; its exit code. What is not handled by mpq is raised."""
    arguments = shlex.split(line) if isinstance(line, str) else list(line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _command().main(args=arguments, prog_name="mpq")
        except SystemExit as end:
            LAST[:] = [end]
            return int(end.code or 0)
    return 0


@functools.cache
def _command() -> Any:
    """The command line, built once: a child that reads thousands of files would build it for each."""
    from typer.main import get_command

    from mpq.cli.main import app

    return get_command(app)


def make_world(folder: Path) -> World:
    """Make all files in a child, and import here what the child needed, so that later children start with it.

    Raises:
        RuntimeError: if a step fails; nothing can be attacked then.
    """
    folder.mkdir(parents=True)
    _import_all(_HEAVY)
    ended = run_one(_make, folder)
    if ended.value is None:
        raise RuntimeError(f"the files to attack could not be made:\n{ended.failure.trace if ended.failure else ended.signal}\n{ended.out}")
    _import_all(ended.value)
    gc.freeze()  # so that children neither search nor copy what is imported
    return World(folder)


def mlp() -> Any:
    """The model that is attacked: three small matrices."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = (nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    return nn.Sequential(*layers).eval()


def _make() -> list[str]:
    import torch

    torch.set_num_threads(1)
    _make_models()
    _make_data()
    for line in _STEPS:
        code = mpq(f"--quiet {line}")
        if code:
            raise RuntimeError(f"mpq {line} gave {code}")
    _make_watched()
    return sorted(sys.modules)


def _make_models() -> None:
    import torch

    model, inputs = mlp(), torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(torch.export.export(model, (inputs,), dynamic_shapes=({0: batch},)), "model.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Callable[..., Any] = torch.jit.trace
        torch.jit.save(trace(model, inputs), "model.torchscript")
    torch.save(model.state_dict(), "state.pt")
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, "state.safetensors")
    _make_tiny()


def _make_tiny() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False))
    model.eval().save_pretrained("tiny", max_shard_size="24KB")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["[UNK]", "<s>", *dict.fromkeys(_TEXT.split())])}
    made = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", bos_token="<s>").save_pretrained("tiny")


def _make_data() -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(2)
    samples = torch.randn(32, 8, generator=generator)
    torch.save(samples, "calibration.pt")
    torch.save(torch.randn(160, 8, generator=torch.Generator().manual_seed(4)), "samples.pt")
    torch.save(torch.randn(256, 8, generator=torch.Generator().manual_seed(3)), "training.pt")
    np.save("calibration.npy", samples.numpy())
    np.savez("calibration.npz", samples.numpy())
    save_file({"input": samples}, "calibration.safetensors")
    torch.save(torch.randint(0, 32, (8, 6), generator=generator), "tokens.pt")
    text = " ".join([_TEXT] * 4)
    Path("text.txt").write_text(text)
    Path("text.jsonl").write_text("".join(json.dumps({"text": text, "split": "train"}) + "\n" for _ in range(3)))
    _make_tables()
    _make_settings()


def _make_tables() -> None:
    """Chats, a table and an image."""
    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    chat = {"messages": [{"role": "user", "content": _TEXT}, {"role": "assistant", "content": _TEXT}]}
    Path("chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for _ in range(3)))
    parquet.write_table(pyarrow.table({"text": [_TEXT] * 8, "number": list(range(8))}), "text.parquet")
    for number in range(4):
        Path(f"images/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * number, 20, 90)).save(f"images/{number % 2}/{number}.png")


def _make_watched() -> None:
    """What is kept of a model that runs, of an evaluation, of a training run, and between commands."""
    import torch
    from safetensors.torch import save

    from mpq.data.dataset import data_from_batches
    from mpq.models.memory.store import Folder
    from mpq.monitor.baseline import baseline_of
    from mpq.monitor.log import append
    from mpq.monitor.watch import monitor
    from mpq.records.baseline import write_baseline
    from mpq.recovery.training.checkpoints import Checkpoints

    model, samples = mlp(), torch.load("calibration.pt")
    baseline = baseline_of(model, data_from_batches(list(samples.split(8))).batches)
    write_baseline(baseline, Path("model.mpq.safetensors"))
    with monitor(model, baseline, sample=1.0) as watching:
        model(samples)
        append(watching, "watched.jsonl")
    Checkpoints(Path("trained"), "key").save(1, {"step": 1}, {"now:a": samples})
    line = {"step": 0, "of": 20, "loss": None, "aside": 0.4, "rate": 3.0, "code_rate": 1.0, "event": "rates tried: 3 gives 0.2"}
    lines = [line, line | {"step": 10, "loss": 0.3, "aside": 0.2}, line | {"step": 20, "loss": 0.2, "aside": 0.1, "event": ""}]
    Path("trained.recover.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    Folder(Path("kept")).write("key", save({"codes": samples}))
    figures = [{"name": "kl_divergence", "quantized": 0.1, "stderr": 0.01, "reference": None}]
    facts = {"assignment": "0" * 12, "samples": 8, "source": "test.pt", "figures": figures, "artifact": "model.mpq.safetensors"}
    Path("model.evaluation.json").write_text(json.dumps(facts))


def _make_settings() -> None:
    Path("config.yaml").write_text(
        "analyze: {candidates: ['4', '8'], num_samples: 16, held_out: 0.25, targets: ['*'], seed: 1}\n"
        "search:\n  trials: 0\n  pins: {'0': int8}\n  min_bits: {'3': 4}\n  candidates: {'5': ['4', '8']}\n"
        "  ties: [['0', '3']]\n  memory: 90%\n  seed: 3\ncheck: {max_error: 0.5}\n"
    )
    Path("budgets.yaml").write_text(
        "mpq_budgets: 1\nbudgets:\n  - files: plan.yaml\n    name: gate\n    max_bits: 5.5\n    max_bytes: 100kB\n    max_share: 300%\n"
        "    max_error: 0.5\n    forbid: {'*': [int3]}\n    require: {'*': [int2, int4, int8]}\n"
        "  - {files: [plan.yaml], max_loaded: 1MB, baseline: plan.yaml, max_growth: 5%, max_error_growth: 5%}\n"
    )
    rows = [f"{layer},int{bits},{bits / 8}" for layer in ("0", "3", "5") for bits in (2, 4, 8)]
    Path("latency.csv").write_text("\n".join(["layer,scheme,latency_ms", *rows]) + "\n")
    Path("assignment.csv").write_text("layer,bits,group_size,symmetric\n0,4,8,true\n3,8,-1,false\n5,4,,1\n")
    settings = {"bits": 4, "group_size": 8, "sym": True}
    assignments: dict[str, Any] = {
        "auto_round.json": {"0": settings, "3": "W4A16", "5": {"bits": 8}},
        "gptqmodel.json": {**settings, "dynamic": {"+:0": {"bits": 8}, "-:5": {}}},
        "modelopt.json": {"quant_cfg": {"*0.weight_quantizer": {"num_bits": 4, "block_sizes": {"-1": 8}}, "3*": {"enable": False}}},
        "search_state.json": {"best": {"recipe": {"0.quant_recipe": "INT8_DEFAULT", "3.quant_recipe": "NONE"}}, "candidate_stats": {}},
        "extra.json": {**settings, "extra_config": {"0": {"bits": 8}, ".*3": {"bits": 16}}},
    }
    for name, content in assignments.items():
        Path(name).write_text(json.dumps(content, indent=1))


def _import_all(names: Sequence[str]) -> None:
    for name in _REMARKING:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            if name not in sys.modules and not name.startswith(("__", "benchmarks.faults.__")):
                with suppress(Exception):  # what cannot be imported by itself is imported by the children
                    importlib.import_module(name)
