"""How an image becomes a tensor: resize, crop, scale, normalize, like torchvision and Hugging Face processors.

    resize=256          the shorter side to 256; resize=224x224 sets height and width
    crop=224            the center 224 x 224
    mean=0.5,0.5,0.5    subtracted after dividing by 255, and
    std=0.5,0.5,0.5     divided by

They are written after the folder (`photos?resize=256&crop=224&mean=...&std=...`), or read from a preprocessor_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpq.errors import DataError
from mpq.shown import shown

_KEYS = ("resize", "crop", "mean", "std")
_BILINEAR = 2  # Pillow's filter numbers, which processors store
_LARGEST = 8192


@dataclass(frozen=True)
class Transform:
    """The steps applied to each image, in this order.

    Args:
        resize: (height, width), or the length of the shorter side, or None.
        crop: (height, width) of the center part to keep, or None.
        scale: multiplies the values, which are 0 to 255.
        mean: then subtracted from each channel.
        std: then divides each channel.
        resample: Pillow's number of a filter.
    """

    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resample: int = _BILINEAR

    def __str__(self) -> str:
        """For people."""
        steps = []
        if isinstance(self.resize, int):
            steps.append(f"shorter side to {self.resize}")
        elif self.resize is not None:
            steps.append(f"resized to {self.resize[0]} x {self.resize[1]}")
        if self.crop is not None:
            steps.append(f"middle {self.crop[0]} x {self.crop[1]}")
        steps.append("values 0 to 1" if self.scale == 1 / 255 else f"values times {self.scale:g}")
        if set(self.mean) != {0.0} or set(self.std) != {1.0}:
            steps.append(f"mean {_list(self.mean)}, std {_list(self.std)}")
        return ", ".join(steps)


def transform_of_text(text: str, source: str, start: Transform) -> Transform:
    """`start`, changed by the part after "?" in a source.

    Raises:
        DataError: if a key is unknown or a value is not a number in range.
    """
    found = start
    for part in filter(None, text.split("&")):
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise DataError(f"{source}: images have no setting {shown(key)}; use {', '.join(_KEYS)}, as in 'photos?resize=256&crop=224'")
        try:
            found = replace(found, **{key: _parsed(key, value)})
        except ValueError as error:
            raise DataError(f"{source}: {key}={shown(value)} cannot be read; write resize=256, crop=224, mean=0.5,0.5,0.5") from error
    return found


def transform_of_config(config: Mapping[str, Any], source: str) -> Transform:
    """The transform of a preprocessor_config.json.

    Raises:
        DataError: if its settings cannot be read.
    """
    try:
        size = config.get("size") if config.get("do_resize", "size" in config) else None
        crop = config.get("crop_size", size) if config.get("do_center_crop", "crop_size" in config) else None
        normal = config.get("do_normalize", "image_mean" in config)
        return Transform(
            resize=None if size is None else _size_of(size, square=False),
            crop=None if crop is None else _pair(_size_of(crop, square=True)),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=tuple(float(value) for value in config["image_mean"]) if normal else (0.0, 0.0, 0.0),
            std=_divisors(config["image_std"]) if normal else (1.0, 1.0, 1.0),
            resample=int(config.get("resample", _BILINEAR)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{source}: its sizes, mean or std cannot be read; write them after the folder, as in 'photos?resize=256&crop=224'"
        ) from error


def _parsed(key: str, value: str) -> Any:
    if key in ("mean", "std"):
        numbers = tuple(float(part) for part in value.split(","))
        return _divisors(numbers) if key == "std" else numbers
    sides = [_side(int(part)) for part in value.split("x")]
    if len(sides) > 2:
        raise ValueError(value)
    return _pair(sides[0] if len(sides) == 1 else (sides[0], sides[1])) if key == "crop" else sides[0] if len(sides) == 1 else tuple(sides)


def _size_of(size: Any, *, square: bool) -> tuple[int, int] | int:
    """A size in the form of processors: a number, or a mapping with height and width or the shortest edge."""
    if isinstance(size, int):
        return (_side(size), _side(size)) if square else _side(size)
    if "shortest_edge" in size:
        return _side(int(size["shortest_edge"]))
    return _side(int(size["height"])), _side(int(size["width"]))


def _pair(size: tuple[int, int] | int) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _side(pixels: int) -> int:
    if not 1 <= pixels <= _LARGEST:
        raise ValueError(pixels)
    return pixels


def _divisors(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(number > 0 for number in numbers):
        raise ValueError(numbers)
    return numbers


def _list(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
