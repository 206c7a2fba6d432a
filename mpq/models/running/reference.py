"""The reference: outputs of the unquantized model on some samples, and the error of a changed model against them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.dataset import Batch, Data
from mpq.errors import NumericsError
from mpq.models.memory.offload import Offload, used
from mpq.models.running.forward import forward
from mpq.models.running.metrics import Metric, Prepared
from mpq.models.running.swap import swapped

CACHE_BYTES = 2 << 30


class Reference:
    """Measures changed weights on fixed samples.

    The prepared outputs of the reference are kept in memory up to `cache_bytes`; for further batches, the reference runs again at each
    measurement.

    Args:
        module: the unquantized model; between measurements it is always unchanged.
        data: the samples.
        metric: measures the error.
        cache_bytes: memory limit.
        offload: keeps all of it on disk instead.

    Raises:
        NumericsError: if the reference's own outputs are not finite.
    """

    def __init__(
        self, module: nn.Module, data: Data, metric: Metric, *, cache_bytes: int = CACHE_BYTES, offload: Offload | None = None
    ) -> None:
        self.module, self.data, self.metric = module, data, metric
        self.forwards = 0
        self._cache: list[Prepared | None] = []
        held = 0
        for batch in data.batches:
            prepared = self._prepare(batch)
            if offload is not None:
                self._cache.append(pytree.tree_map(offload.keep, prepared))
                continue
            held += sum(tensor.numel() * tensor.element_size() for tensor in pytree.tree_leaves(prepared))
            self._cache.append(prepared if held <= cache_bytes else None)

    def errors(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The error of each sample with `weights` (by canonical parameter name) swapped in, float64 [samples]; NaN if not finite."""
        return torch.cat(list(self.parts(weights)))

    def parts(self, weights: Mapping[str, Tensor]) -> Generator[Tensor, None, None]:
        """Like `errors`, batch by batch; the module is unchanged again when the generator is exhausted or closed."""
        with closing(self.placed(weights)) as batches:
            for index, prepared in batches:
                outputs = forward(self.module, self.data.batches[index])
                self.forwards += 1
                yield self.errors_of(prepared, outputs)

    def placed(self, weights: Mapping[str, Tensor]) -> Generator[tuple[int, Prepared], None, None]:
        """The number and prepared reference of each batch, with `weights` swapped in: once for all batches whose reference is kept.

        Close the generator if it may not be exhausted, so that the module is unchanged again.
        """
        kept = sum(prepared is not None for prepared in self._cache)  # the first ones
        if kept:
            with swapped(self.module, weights):
                for index in range(kept):
                    yield index, self.prepared(index)
        for index in range(kept, len(self._cache)):
            prepared = self.prepared(index)
            with swapped(self.module, weights):
                yield index, prepared

    def batch_errors(self, index: int, weights: Mapping[str, Tensor]) -> Tensor:
        """Like `errors`, for the samples of one batch."""
        prepared = self.prepared(index)
        with swapped(self.module, weights):
            outputs = forward(self.module, self.data.batches[index])
        self.forwards += 1
        return self.errors_of(prepared, outputs)

    def compared(self, index: int, outputs: tuple[Tensor, ...]) -> Tensor:
        """The error of each sample of one batch, from given outputs; the module must be unchanged."""
        return self.errors_of(self.prepared(index), outputs)

    def singles(self, index: int, prepared: Prepared) -> list[tuple[Batch, Prepared]]:
        """The samples of one batch, each with its part of the batch's prepared reference.

        If the model accepts only one batch size, the batch stays whole.
        """
        batch = self.data.batches[index]
        if self.data.fixed_batch:
            return [(batch, prepared)]
        return [(batch.select([each]), sample_of(prepared, each)) for each in range(batch.size)]

    def prepared(self, index: int) -> Prepared:
        """The prepared reference for one batch; the module must be unchanged."""
        cached = self._cache[index]
        kept = self._prepare(self.data.batches[index]) if cached is None else cached
        for tensor in pytree.tree_leaves(kept):
            used(tensor)
        return kept

    def errors_of(self, prepared: Prepared, outputs: tuple[Tensor, ...]) -> Tensor:
        """The error of each sample, from the prepared reference of some samples and given outputs; NaN if not finite."""
        errors = self.metric.errors(prepared, outputs).cpu()
        return torch.where(torch.isfinite(errors), errors, torch.nan)

    def _prepare(self, batch: Batch) -> Prepared:
        outputs = forward(self.module, batch)
        self.forwards += 1
        prepared = self.metric.prepare_batch(outputs, batch)
        if not bool(torch.isfinite(self.metric.errors(prepared, outputs)).all()):
            raise NumericsError(
                "the unquantized model gives NaN or infinity on the calibration data: check the data's scale and the weights"
            )
        return prepared


def sample_of(prepared: Prepared, place: int) -> Prepared:
    """The prepared reference of one sample of a batch."""
    one: Prepared = pytree.tree_map(lambda tensor: tensor[place : place + 1], prepared)
    return one
