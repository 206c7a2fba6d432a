"""Calibration and evaluation data in memory: batches with a hash and a description, and how they are split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from mpq.data.batch import Batch as Batch
from mpq.data.batch import regroup
from mpq.data.hashing import sha256_of_batches
from mpq.data.interpret import interpretations
from mpq.data.split_rule import POSITION, SplitRule, rule_in
from mpq.data.spread import samples_at, spread_order, spread_ranks
from mpq.errors import DataError, UsageError


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """Batches, and their origin.

    Args:
        batches: at least one.
        sha256: over shapes, dtypes and contents of all samples, independent of batching.
        source: the file or callable, for messages and records.
        description: for people, for example "512 samples of [3, 32, 32]".
        ordered: whether the samples are windows cut from running text.
        fixed_batch: the only batch size that the model accepts; None if it accepts any.
        rule: how it is split; None splits windows of text by position and everything else at random.
        ranks: for samples spread evenly over a source (`data/spread.py`): when each was chosen; with a fixed batch size, each batch.
    """

    batches: tuple[Batch, ...]
    sha256: str
    source: str
    description: str
    ordered: bool = False
    fixed_batch: int | None = None
    rule: SplitRule | None = None
    ranks: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<Data: {self.description}, from {self.source}, in {len(self.batches):,} batches>"

    @property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(batch.size for batch in self.batches)

    @property
    def splitting(self) -> SplitRule:
        """How it is split."""
        return self.rule or rule_in({}, text=self.ordered)

    def split(self, held_out: float, seed: int, parts: Sequence[int] = ()) -> tuple[Data, Data]:
        """A calibration part and a held-out part with a share `held_out` of the samples, the same for the same seed.

        By position, the last samples are held out, and a gap before them is not used if there are enough samples. At random, samples are
        permuted, or whole batches if the model accepts only one batch size. See `data/split_rule.py`.

        Args:
            held_out: share of the samples.
            seed: seed of the permutation.
            parts: numbers of samples in the order in which they were added; each part is split separately, so that its samples stay on
                their side when more are added. By default, all samples are one part. If samples are spread over a source, later parts lie
                between those of the first one: by position, they are split where the first part is.

        Raises:
            UsageError: if `held_out` is not between 0 and 1.
            DataError: if there is only one sample.
        """
        if not 0 < held_out < 1:
            raise UsageError(f"{held_out} is not a share to hold out: give a number between 0 and 1, for example 0.2")
        count = self._units
        if count < 2:
            number = f"{self.samples} sample{'s' if self.samples > 1 else ''}"
            alone = f" (the model takes exactly {self.fixed_batch} per batch)" if self.fixed_batch else ""
            if self.batches[0].whole:
                raise DataError(
                    f"{self.source}: one batch is one sample here, and one sample cannot be split into a calibration and a held-out part: "
                    "give a list of batches, or --batch-axis N if axis N counts samples"
                )
            raise DataError(f"{self.source}: {number}{alone} cannot be split into a calibration and a held-out part: give more samples")
        unit = self.fixed_batch or 1
        halves = self._halves([part // unit for part in parts] or [count], held_out, seed)
        kept, held = (
            self._made([piece for part in side if part for piece in self._at(part).batches]) for side in zip(*halves, strict=True)
        )
        return kept, held

    def _halves(self, sizes: Sequence[int], held_out: float, seed: int) -> Iterator[tuple[list[int], list[int]]]:
        """The positions on both sides of the split, part by part: batches end where parts end, and old samples stay before new ones."""
        rule, begin, order = self.splitting, 0, self._added()
        gap, first = -(-rule.gap // (self.fixed_batch or 1)), None
        for size in sizes:
            places = sorted(order[begin : begin + size])
            if rule.by != POSITION:
                found = _at_random(size, held_out, seed)
            elif first is None or not self.ranks:
                found = _by_position(size, held_out, gap, first=first is None)
            else:
                found = _as_before(places, *first)
            kept, held = ([places[index] for index in side] for side in found)
            first = first or (kept[-1], held[0])
            yield kept, held
            begin += size

    def split_as(self, facts: Mapping[str, Any]) -> Split:
        """The split recorded in the `data` of an analysis's header: held_out, seed, split and, if samples were added, parts.

        Raises:
            UsageError, DataError: like `split`.
        """
        share, seed, parts = float(facts["held_out"]), int(facts["seed"]), [int(part) for part in facts.get("parts", ())]
        noted = replace(self, rule=rule_in(facts, text=self.ordered))
        if parts and facts.get("spread") and not self.ranks:
            noted = replace(noted, ranks=spread_ranks(self._units)[1])
        calibration, held_out = noted.split(share, seed, parts)
        first = noted._at(sorted(noted._added()[: parts[0] // (self.fixed_batch or 1)])).split(share, seed)[0] if parts else calibration
        return Split(calibration, held_out, first)

    def rebatch(self, batch_size: int) -> Data:
        """The same samples in the same order, `batch_size` per batch; samples of different shapes are never joined.

        Raises:
            UsageError: if `batch_size` is not positive.
            DataError: if the model accepts only a different batch size.
        """
        if batch_size < 1:
            raise UsageError(f"{batch_size} is not a batch size: give 1 or more")
        if self.fixed_batch not in (None, batch_size):
            raise DataError(f"the model takes exactly {self.fixed_batch} samples per batch, not {batch_size}")
        return replace(self, batches=regroup(self.batches, batch_size))

    def first(self, n: int) -> Data:
        """The first `n` samples, or all if there are fewer; whole batches if the model accepts only one batch size.

        Raises:
            UsageError: if `n` is not positive.
        """
        return self._at(range(self._share(n)))

    def spread(self, n: int) -> Data:
        """`n` samples spread evenly over all, in their order, or all if there are fewer; whole batches if the model accepts only one size.

        Raises:
            UsageError: if `n` is not positive.
        """
        return self._at(self._spread_over(n))

    def spread_places(self, n: int) -> list[int]:
        """The positions of the samples of `spread(n)`, ascending."""
        size = self.fixed_batch or 1
        return [size * unit + place for unit in self._spread_over(n) for place in range(size)]

    def _spread_over(self, n: int) -> list[int]:
        share = self._share(n)
        return sorted(self._added()[:share] if self.ranks else spread_order(self._units, share))

    def _added(self) -> list[int]:
        """The positions of the samples in the order in which they were added."""
        return sorted(range(self._units), key=self.ranks.__getitem__) if self.ranks else list(range(self._units))

    @property
    def _units(self) -> int:
        """What is counted in a split: samples, or batches if the model accepts only one batch size."""
        return len(self.batches) if self.fixed_batch else self.samples

    def _share(self, n: int) -> int:
        """How many units hold at most `n` samples, at least one."""
        if n < 1:
            raise UsageError(f"{n} is not a number of samples: give 1 or more")
        return min(max(1, n // (self.fixed_batch or 1)), self._units)

    def _at(self, indices: Sequence[int]) -> Data:
        """The samples at `indices` (ascending), or the batches at `indices` if batches must stay whole."""
        if len(indices) == self._units:
            return replace(self, ranks=())
        if self.fixed_batch:
            return self._with([self.batches[i] for i in indices])
        return self._with(samples_at(self.batches, indices))

    def _with(self, pieces: Sequence[Batch]) -> Data:
        size = self.fixed_batch or max(batch.size for batch in self.batches)
        return self._made(regroup(pieces, size))

    def _made(self, batches: Sequence[Batch]) -> Data:
        """Some of the samples, with everything else unchanged."""
        return make_data(batches, source=self.source, ordered=self.ordered, fixed_batch=self.fixed_batch, rule=self.rule)


class Split(NamedTuple):
    """The samples of an analysis.

    Args:
        calibration: samples to measure on.
        held_out: samples for decisions.
        first: the calibration samples before any were added. A quantizer's statistics are computed on these, so that codes, and the values
            measured with them, do not change.
    """

    calibration: Data
    held_out: Data
    first: Data


def make_data(
    batches: Sequence[Batch],
    *,
    source: str,
    ordered: bool = False,
    fixed_batch: int | None = None,
    rule: SplitRule | None = None,
    ranks: tuple[int, ...] = (),
    there: int = 0,
    notes: Sequence[str] = (),
) -> Data:
    """Data with its hash and description; `notes` are appended to the description, which says of how many `there` samples were chosen.

    Raises:
        DataError: if there is no sample.
    """
    samples = sum(batch.size for batch in batches)
    if samples == 0:
        raise DataError(f"{source} holds no samples: give at least one")
    shapes = list(dict.fromkeys(batch.shapes for batch in batches))
    whole = any(batch.whole for batch in batches)
    unit = "window" if ordered else "sample"
    more = f" and {len(shapes) - 1} other shape{'s' if len(shapes) > 2 else ''}" if len(shapes) > 1 else ""
    named = (f"batch{'es' if (there or samples) > 1 else ''}") if whole else f"{unit}{'s' if (there or samples) > 1 else ''}"
    counted = f"{samples} of {there} {named}" if there else f"{samples} {named}"
    text = f"{counted} of {shapes[0]}{more}{', spread evenly over all' if there else ''}"
    description = "; ".join([text, *notes])
    return Data(tuple(batches), sha256_of_batches(batches), source, description, ordered, fixed_batch, rule, ranks)


def data_from_batches(batches: Iterable[Any]) -> Data:
    """Data from batches in memory, for example from a DataLoader.

    Args:
        batches: tensors, tuples of inputs whose last element may be a 1-D integer tensor of labels, dicts of keyword arguments whose
            "labels" are labels, or `Batch`. One tensor, one dict or one tuple of tensors is one batch.

    Raises:
        DataError: if there is no sample, or an element is none of these.
    """
    return make_data([batch for batch in next(interpretations(batches)) if batch.size], source="memory")


def _held(count: int, share: float) -> int:
    return min(count - 1, max(1, math.floor(share * count + 0.5)))


def _by_position(count: int, held_out: float, gap: int, *, first: bool) -> tuple[list[int], list[int]]:
    """Positions of the calibration and held-out pieces: the last ones are held out.

    There is a gap of `gap` pieces between the sides, and in a part that is not the `first`, another gap at its start, after the held-out
    pieces of the previous part. A gap uses at most a quarter of the pieces, and never the last piece of a side.
    """
    held = _held(count, held_out)
    gap = min(gap, max(count // 4, 1 if first else 0), count - held - 1)
    begin = 0 if first else min(gap, count - held - gap - 1)
    return list(range(begin, count - held - gap)), list(range(count - held, count))


def _as_before(places: Sequence[int], last: int, begin: int) -> tuple[list[int], list[int]]:
    """Which of these places are up to the `last` one for calibration, and which from the `begin` of the held-out ones on."""
    numbered = list(enumerate(places))
    return [index for index, place in numbered if place <= last], [index for index, place in numbered if place >= begin]


def _at_random(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of the calibration and held-out pieces, both in ascending order."""
    held = _held(count, held_out)
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[held:]), sorted(order[:held])
