"""Two trained models that ship with mpq, with data, for `mpq demo` and for tests. Torch is imported when they are read.

    digits   a CNN of 25,066 parameters on 8x8 images of handwritten digits (UCI, through scikit-learn);
             calibration [256, 1, 8, 8] from its training images, test [500, 1, 8, 8] with labels [500]
    chars    a causal transformer of 117,184 parameters over characters, trained on Python's own documentation;
             calibration tokens [64, 128] from its training text, test tokens [128, 128] from text it never saw

Both are `torch.export` archives with a dynamic batch dimension; chars takes any length up to 128.
`benchmarks/train_demo.py` created them and names the source of the data.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.errors import UsageError
from mpq.files import OutputError, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("digits", "chars")
WHITE = 16  # the images are stored as integers from 0 to this


@dataclass(frozen=True)
class DemoFiles:
    """A demo model and its data.

    Args:
        model: the `torch.export` archive.
        calibration: images (float32, 0 to 1) or tokens (int64) from the training data.
        test: the same, held out from training.
        labels: classes of `test` (int64); None for tokens, which are their own labels.
    """

    model: Path
    calibration: Tensor
    test: Tensor
    labels: Tensor | None = None


def demo_files(name: str) -> DemoFiles:
    """The demo model `name`, with its data.

    Raises:
        UsageError: if there is no such demo.
    """
    if name not in NAMES:
        raise UsageError(f"'{name}' is not a demo model: use {' or '.join(NAMES)}")
    from safetensors.torch import load_file

    folder = Path(str(resources.files("mpq.demo")))
    data = load_file(folder / f"{name}.safetensors")
    model = folder / f"{name}.pt2"
    if name == "chars":
        return DemoFiles(model, data["calibration"].long(), data["test"].long())
    return DemoFiles(model, data["calibration"].float() / WHITE, data["test"].float() / WHITE, data["labels"].long())


def write_demo(name: str, folder: Path) -> None:
    """Write model.pt2, calibration.pt and test.pt to `folder`, which is created if needed.

    test.pt has (images, labels) for digits, and tokens for chars.

    Raises:
        UsageError: if there is no such demo.
        OutputError: if a file cannot be written.
    """
    demo = demo_files(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}; choose another with --keep") from error
    _write(folder / "model.pt2", demo.model.read_bytes())
    _write(folder / "calibration.pt", _saved(demo.calibration))
    _write(folder / "test.pt", _saved(demo.test if demo.labels is None else (demo.test, demo.labels)))


def _saved(data: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
