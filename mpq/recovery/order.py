"""The order in which a model uses its layers, and the inputs of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mpq.calibration.input_moments import InputWatch, plain_kernels
from mpq.calibration.memory_parts import experts
from mpq.calibration.placement import Placement
from mpq.data.dataset import Data
from mpq.models.memory.storage_tracker import pointer
from mpq.models.running.forward import forward
from mpq.records.layer import Layer

Calls = dict[str, list[Tensor]]
"""The input vectors of each layer in one batch, call by call."""


@dataclass(frozen=True)
class Use:
    """How one layer is used in a pass over all samples.

    Args:
        name: of the layer.
        groups: of its rows, each with its own inputs.
        values: number of input values.
        kept_bytes: of these in memory; zero for inputs shared with an earlier layer.
    """

    name: str
    groups: int
    values: int
    kept_bytes: int


def stages(module: nn.Module, layers: Sequence[Layer], data: Data) -> list[list[Use]]:
    """The layers that are used once, in order of use; layers that share their input form one stage. Runs one batch."""
    watch, batch = OrderWatch(module, layers), data.batches[0]
    with plain_kernels(module), watch.active():
        forward(module, batch)
    order: list[list[int]] = []
    groups, met, sizes = Counter[int](), Counter[int](), Counter[int]()
    last: Tensor | None = None
    for number, vectors in watch.calls:
        if not order or not (vectors is last or number in order[-1]):
            order.append([])
        order[-1] += [] if number in order[-1] else [number]
        count = vectors.numel() * data.samples // batch.size
        groups[number] = max(groups[number], len(vectors), experts(layers[number]))
        met[number] += count
        sizes[number] += 0 if vectors is last else 4 * count
        last = vectors
    times = Counter(number for stage in order for number in stage) + Counter(watch.looked_up)
    once = [[Use(layers[n].name, groups[n], met[n], sizes[n]) for n in stage if times[n] == 1] for stage in order]
    return [stage for stage in once if stage]


def recorded(module: nn.Module, layers: Sequence[Layer], data: Data, on_batch: Callable[[], None]) -> list[Calls]:
    """The inputs of `layers` in the unquantized model, batch by batch; `on_batch` is called before each."""
    found = []
    with plain_kernels(module):
        for batch in data.batches:
            on_batch()
            watch = OrderWatch(module, layers)
            with watch.active():
                forward(module, batch)
            calls: Calls = {layer.name: [] for layer in layers}
            for number, vectors in watch.calls:
                calls[layers[number].name].append(vectors)
            found.append(calls)
    return found


class OrderWatch(InputWatch):  # type: ignore[no-untyped-call]
    """Keeps the input vectors of layers, call by call; a shared tensor is kept once."""

    def __init__(self, module: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(module, layers, summed=False)
        self.calls: list[tuple[int, Tensor]] = []
        self._before: Tensor | None = None  # kept alive, so that its memory is not reused

    def _written(self, storages: Collection[int]) -> None:
        if self._before is not None and pointer(self._before) in storages:
            self._before = None

    def _take(self, number: int, placed: Placement, group: int | None, vectors: Tensor) -> None:
        same = self._before is not None and _place(vectors) == _place(self._before)
        self.calls.append((number, self.calls[-1][1] if same else vectors.float().clone()))  # later ops may write to them
        self._before = vectors


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()
