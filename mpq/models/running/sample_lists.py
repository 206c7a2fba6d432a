"""Lists in a model's output with one value for each sample, as detectors return; their tensors are stacked.

A list is known by its path: "" is the returned value itself, "boxes" a list in a mapping. Its tensors "boxes.0", "boxes.1" become "boxes".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mpq.errors import ModelError
from mpq.shown import listed

WRAP = "wrap the model to return one tensor for all samples, such as its scores before detections are selected"


def sample_lists(together: Iterable[str], alone: Sequence[Iterable[str]]) -> tuple[str, ...]:
    """The paths of containers with one entry for each sample, none within another.

    Args:
        together: names of the outputs for several samples in one call.
        alone: the same for each of these samples in a call of its own.
    """
    single = [_entries(names) for names in alone]
    found = [path for path in _counting(together, len(alone)) if all(one.get(path) == {"0"} for one in single)]
    return tuple(path for path in found if not any(_inside(path, other) for other in found))


def may_have_lists(alone: Iterable[str]) -> bool:
    """Whether the outputs of a single sample, by their names, have a container with one entry."""
    return bool(_counting(alone, 1))


def is_in_list(name: str, names: Iterable[str], samples: int) -> bool:
    """Whether an output belongs to a container with one entry for each of several samples; `names` are those of all outputs."""
    return samples > 1 and any(_inside(name, path) for path in _counting(names, samples))


def without_place(name: str, lists: Sequence[str]) -> tuple[str, int | None]:
    """An output's name without the place of its sample, and this place; None if it is in no list."""
    for path in lists:
        if _inside(name, path):
            place, _, rest = name.removeprefix(path).removeprefix(".").partition(".")
            return ".".join(filter(None, (path, rest))) or "output", int(place)
    return name, None


def by_sample(outputs: Mapping[str, Tensor], lists: Sequence[str]) -> dict[str, list[Tensor]]:
    """The tensors in lists, by their common name, in the order of the samples that have one."""
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in outputs.items():
        common, place = without_place(name, lists)
        if place is not None:
            found.setdefault(common, []).append((place, tensor))
    return {name: [tensor for _, tensor in sorted(tensors, key=lambda pair: pair[0])] for name, tensors in found.items()}


def stacked(outputs: Mapping[str, Tensor], lists: Sequence[str], samples: int) -> dict[str, Tensor]:
    """Outputs with one row per sample in place of each list; others stay, and so does the order.

    Raises:
        ModelError: if a list does not have one value of the same shape for each of `samples` samples.
    """
    groups = by_sample(outputs, lists)
    made: dict[str, Tensor] = {}
    for name, tensor in outputs.items():
        common, place = without_place(name, lists)
        if place is None:
            made[name] = tensor
        elif common not in made:
            made[common] = torch.stack(_alike(common, groups[common], samples))
    return made


def same_shapes(tensors: Sequence[Tensor], samples: int) -> bool:
    """Whether there is a tensor of the same shape and dtype for each of `samples` samples."""
    return len(tensors) == samples and len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1


def _alike(name: str, tensors: Sequence[Tensor], samples: int) -> list[Tensor]:
    if not same_shapes(tensors, samples):
        shapes = list(dict.fromkeys(str(list(tensor.shape)) for tensor in tensors))
        dtypes = list(dict.fromkeys(str(tensor.dtype).removeprefix("torch.") for tensor in tensors))
        held = f"of shape{'s' if len(shapes) > 1 else ''} {listed(shapes, 5)}"
        wanted, held = ("shape and dtype", f"{held} and dtypes {', '.join(dtypes)}") if len(dtypes) > 1 else ("shape", held)
        raise ModelError(
            f"output '{name}' must have one tensor of the same {wanted} for each of {samples} samples, but it has {len(tensors)}, {held}: "
            f"{WRAP}; if the shapes follow from the inputs, --batch-size 1 compares the samples one at a time"
        )
    return list(tensors)


def _counting(names: Iterable[str], samples: int) -> list[str]:
    """The paths of containers with as many entries as there are samples."""
    each = set(map(str, range(samples)))
    return [path for path, entries in _entries(names).items() if entries == each]


def _entries(names: Iterable[str]) -> dict[str, set[str]]:
    """The entries of every container, by its path."""
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for depth, part in enumerate(parts):
            found.setdefault(".".join(parts[:depth]), set()).add(part)
    return found


def _inside(name: str, path: str) -> bool:
    return bool(name) and (not path or name.startswith(f"{path}."))
