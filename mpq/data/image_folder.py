"""A folder of PNG and JPEG images as a tensor; sub-folders are classes, in order of their names.

    photos/cat/1.png  photos/dog/1.jpg       labels 0 and 1
    photos/1.png  photos/2.png               no labels

Images alternate between the classes, so that some of them cover all. Pillow decodes only PNG and JPEG, after a check of the
size that a file claims.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpq.data.image_transform import Transform, transform_of_config, transform_of_text
from mpq.data.spread import spread_order
from mpq.distribution import install
from mpq.errors import DataError
from mpq.files import open_file
from mpq.limits import IMAGE_BYTES, IMAGE_PIXELS, IMAGES_BYTES
from mpq.reading.documents import read_json
from mpq.shown import first_line

_ENDINGS = (".png", ".jpg", ".jpeg")
_CONFIG = "preprocessor_config.json"


def read_images(
    folder: Path, source: str, *, settings: str, model: Path | None, num_samples: int | None, spread: bool = False
) -> tuple[tuple[Tensor, ...], list[str]] | None:
    """The images of a folder, float32 [N, channels, height, width], with labels [N] if it has subfolders, and notes. None without images.

    Args:
        folder: a folder of images, or with one folder per class.
        source: how the user wrote it, for messages.
        settings: the part after "?" in the source (`data/image_transform.py`).
        model: the folder of the model, which may have a preprocessor_config.json; one in `folder` takes precedence.
        num_samples: use only this many images; None uses all.
        spread: use images spread evenly over the folder, in the order in which they are chosen; else the first ones.

    Raises:
        DataError: if Pillow is missing, an image is damaged or has a different size, or all together are too large.
    """
    spread = spread and num_samples is not None
    classes, files = _listed(folder, spread_order if spread else range)
    if not files:
        return None
    transform, origin = _transform(folder, source, settings, model)
    there = len(files)
    files = files[:num_samples]
    first = _image(files[0][0], source, transform)
    if len(files) * first.numel() * 4 > IMAGES_BYTES:
        raise DataError(f"{source} holds {len(files):,} images, more than {IMAGES_BYTES:,} bytes as tensors: use fewer with --num-samples")
    images = torch.empty(len(files), *first.shape)
    for number, (path, _) in enumerate(files):
        image = _image(path, source, transform)
        if image.shape != first.shape:
            sizes = f"{path.name} gives {_shape(image)} and {files[0][0].name} {_shape(first)}"
            raise DataError(f"{source}: {sizes}; set one size, as in '{source.partition('?')[0]}?resize=256&crop=224'")
        images[number] = image
    labels = (torch.tensor([label for _, label in files]),) if classes else ()
    kinds = f" of {len(classes)} classes" if classes else ""
    counted = (
        f"{len(files)} images" if len(files) == there or not spread else f"{len(files)} of {there} images, spread evenly over the folder,"
    )
    return (images, *labels), [f"{counted}{kinds}, {transform} ({origin})"]


def _listed(folder: Path, order: Callable[[int], Iterable[int]]) -> tuple[list[str], list[tuple[Path, int]]]:
    """The names of the classes, and every file with the number of its class, alternating between the classes.

    Classes, and the files of each, come in the order of the positions that `order` gives for their number.
    """
    own = [(path, -1) for path in _files(folder)]
    if own:
        return [], [own[place] for place in order(len(own))]
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and _files(path))
    found = [[(path, label) for path in _files(folder / name)] for label, name in enumerate(names)]
    turns = zip_longest(*([found[label][place] for place in order(len(found[label]))] for label in order(len(names))))
    return names, [entry for entry in chain.from_iterable(turns) if entry is not None]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file())


def _transform(folder: Path, source: str, settings: str, model: Path | None) -> tuple[Transform, str]:
    """The transform, and its origin."""
    places = [place / _CONFIG for place in (folder, model) if place is not None and (place / _CONFIG).is_file()]
    start = transform_of_config(_config(places[0]), str(places[0])) if places else Transform()
    origins = [*([f"by {_CONFIG}"] if places else []), *(["as asked"] if settings else [])]
    return transform_of_text(settings, source, start), " and ".join(origins) or f"neither settings nor {_CONFIG}"


def _config(path: Path) -> dict[str, Any]:
    found = read_json(path, error=DataError, absent="correct it", remedy="correct it").value
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object: correct it")
    return found


def _image(path: Path, source: str, transform: Transform) -> Tensor:
    """One image, float32 [channels, height, width]."""
    pillow = _pillow(source)
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > IMAGE_BYTES:
                raise DataError(f"{path} has more than the {IMAGE_BYTES:,} bytes allowed for an image file")
            content = file.read()  # Pillow would allocate the size that the file claims
        with warnings.catch_warnings(), pillow.open(BytesIO(content), formats=("PNG", "JPEG")) as opened:
            warnings.simplefilter("error")
            if opened.width * opened.height > IMAGE_PIXELS:
                raise DataError(f"{path} has {opened.width} x {opened.height} pixels, more than the {IMAGE_PIXELS:,} allowed")
            channels = len(transform.mean)
            image = _cut(opened.convert("L" if channels == 1 else "RGB"), transform)
            values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, channels)
    except DataError:
        raise
    except Exception as error:  # Pillow may raise any error, depending on the file
        raise DataError(f"{path} cannot be read as an image ({first_line(error)}): remove or repair it") from error
    mean, std = torch.tensor(transform.mean).view(-1, 1, 1), torch.tensor(transform.std).view(-1, 1, 1)
    return (values.permute(2, 0, 1).float() * transform.scale - mean) / std


def _cut(image: Any, transform: Transform) -> Any:
    if transform.resize is not None:
        image = image.resize(_new_size(image, transform.resize), transform.resample)
    if transform.crop is None:
        return image
    height, width = transform.crop
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _new_size(image: Any, size: tuple[int, int] | int) -> tuple[int, int]:
    """Width and height. A single number applies to the shorter side; the other side is rounded down to whole pixels, as in torchvision."""
    if isinstance(size, tuple):
        return size[1], size[0]
    if image.width <= image.height:
        return size, max(1, int(size * image.height / image.width))
    return max(1, int(size * image.width / image.height)), size


def _shape(image: Tensor) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"


def _pillow(source: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(f"{source} holds images, which need Pillow: {install('data')}, or give tensors") from error
    return Image
