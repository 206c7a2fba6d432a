"""What `benchmarks/search.py` searches on, and where it keeps what it has found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import mpq
from benchmarks.analyze import own_text
from benchmarks.quantizer_cases import normalized
from mpq.data.dataset import Data, make_data
from mpq.demo import demo_files
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.sources.loaded import LoadedModel


@dataclass(frozen=True)
class Case:
    """A model, the data that analysis and search split in halves, and test data of their own."""

    name: str
    model: LoadedModel
    data: Data
    test: Data


def cases(only: list[str], models: Path | None) -> Iterator[Case]:
    """The cases asked for."""
    for name, count in (("digits", 256), ("chars", 64)):
        if name in only:
            files = demo_files(name)
            model = mpq.load_model(files.model)
            seen, unseen = torch.cat([files.calibration[:count], files.test[:count]]), files.test[count:]
            yield Case(name, model, *(fit_data(part, model=model, source=name) for part in (seen, unseen)))
    if set(only) <= {"digits", "chars"}:
        return
    assert models is not None, "models beside the demos need --models DIR"
    if "stories260k" in only:
        model = mpq.load_model(models / "stories260k")
        halves = own_text(model, 256).rebatch(128).batches
        yield Case("stories260k", model, *(make_data([half], source="own text").rebatch(8) for half in halves))
    if "resnet20" in only:
        model = mpq.load_model(models / "cifar10" / "resnet20.pt2")
        content = np.load(models / "cifar10" / "cifar10.npz")
        images = next(content[key] for key in content if "test" in key and content[key].ndim == 4)
        parts = (normalized(torch.from_numpy(part)) for part in (images[:1024], images[2000:6000]))
        yield Case("resnet20", model, *(fit_data(part, model=model, source="images") for part in parts))
    if "stories15m" in only:
        model = mpq.load_model(models / "stories15m")
        texts = (f"{models / 'text' / 'tinystories.jsonl'}?split={split}" for split in ("train_head", "valid_piece"))
        yield Case("stories15m", model, *(mpq.load_data(text, model=model, seq_len=256, num_samples=32) for text in texts))


class Cells:
    """Finished cells, in a file where one is given."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._path = None if folder is None else folder / "cells.jsonl"
        lines = self._path.read_text().splitlines() if self._path is not None and self._path.exists() else []
        self._known: dict[str, dict[str, float]] = dict(map(json.loads, lines))

    def get(self, key: Sequence[object], make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The cell, made and written if it is not there."""
        text = " ".join(map(str, key))
        if text not in self._known:
            self._known[text] = make()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([text, self._known[text]]) + "\n")
        return self._known[text]
