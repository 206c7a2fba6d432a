"""Variants: the fake-quantized weight of any (layer, scheme).

A pair is quantized once: its packed codes go to a store (`models/memory/store.py`) and are read from there afterwards. The weights are
dequantized when needed, and a few are cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from mpq.errors import MismatchError, MpqError
from mpq.formats.scheme import Scheme
from mpq.formats.stored import COMMON_ROWS
from mpq.models.memory.devices import CPU, device_of, moved
from mpq.models.memory.offload import Offload, used
from mpq.models.memory.store import MOST_TEXT, Parts, Scope, Store, as_bytes, text_of
from mpq.models.running.quantize_processes import Unit, one_thread, quantized_in_processes
from mpq.models.running.ranks import Alone, Ranks
from mpq.models.running.swap import tensor_of
from mpq.records.layer import Layer
from mpq.tensors.common_rows import common_rows, merged, to_bits
from mpq.tensors.matrix import from_matrix, to_matrix
from mpq.tensors.quantized import QuantizedWeight, are_parts, unpack_weight
from mpq.tensors.quantizers.base import Quantizer, Statistics, statistics_on

CACHE_BYTES = 256 << 20
_REASON = "reason"  # stored with the codes of a layer without statistics
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what was done)."""


class Variants:
    """The weights of `module` under schemes.

    Args:
        module: the unquantized model; its weights are read, never changed.
        layers: the searched layers.
        quantizer: chooses the codes.
        statistics: input statistics by layer name, for a quantizer that needs them.
        cache_bytes: memory limit for dequantized weights (not codes).
        offload: keeps all weights on disk instead.
        codes: where packed codes are kept; None keeps them only for this object.
        workers: processes that `fill` starts; the codes are the same for any number.
        ranks: processes that `fill` shares the work with, each with variants of its own over the same folder.

    Attributes:
        offload: as given.
        fallbacks: why a layer was quantized without input statistics, by its name.
        notes: what the user should know about the work.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Iterable[Layer],
        quantizer: Quantizer,
        *,
        statistics: Mapping[str, Statistics] | None = None,
        cache_bytes: int = CACHE_BYTES,
        offload: Offload | None = None,
        codes: Scope | None = None,
        workers: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        self.module, self.quantizer, self._workers, self._ranks = module, quantizer, workers, ranks or Alone()
        self.fallbacks: dict[str, str] = {}
        self.notes: list[str] = []
        self._codes = codes or Scope(Store(spill=None if offload is None else offload.folder), {})
        self.layers = {layer.name: layer for layer in layers}
        self._statistics = {} if statistics is None else statistics  # the length of a lazy mapping would collect all of it
        self._cache: OrderedDict[tuple[str, Scheme], Tensor] = OrderedDict()
        self._held, self._limit, self.offload = 0, cache_bytes, offload
        self._filled: set[tuple[str, Scheme]] = set()
        self._common: dict[str, Tensor] = {}

    def matrix(self, name: str) -> Tensor:
        """The unquantized weight of one layer as a float32 matrix."""
        layer = self.layers[name]
        return to_matrix(tensor_of(self.module, layer.parameters[0]).detach(), layer.axes, layer.groups)

    def common(self, name: str) -> Tensor | None:
        """Which rows of a layer are one common row, bool [rows]; None if none are.

        Raises:
            MismatchError: if they are not as many as the layer says.
        """
        alike = self.layers[name].alike
        if alike and name not in self._common:
            found = common_rows(self.matrix(name))
            if found is None or int(found.sum()) != alike:
                there = 0 if found is None else int(found.sum())
                raise MismatchError(f"'{name}' has {there:,} rows alike, and {alike:,} are expected: analyze the model again")
            self._common[name] = found
        return self._common[name] if alike else None

    def quantized(self, name: str, scheme: Scheme, *, instead: tuple[Tensor, Statistics] | None = None) -> QuantizedWeight:
        """The codes of one layer under one scheme; `instead` replaces its matrix and statistics."""
        if instead is not None or scheme.is_float:
            return self._made(name, scheme, *(instead or (self.matrix(name), None)))
        found = self._known(name, scheme)
        if found is None:
            made = self._made(name, scheme, self.matrix(name), self._statistics.get(name))
            found = self._keep(name, scheme, made.pack())
        place = CPU if scheme.is_coded else device_of(self.module)
        return unpack_weight(moved(found, place), scheme, self.layers[name].matrix)

    def fill(self, schemes: Mapping[str, Iterable[Scheme]], on_progress: Progress) -> None:
        """Quantize each layer under all its schemes, unless already done, in `workers` processes."""
        if self._ranks.size > 1:
            self._fill_together({name: list(each) for name, each in schemes.items()}, on_progress)
            return
        pairs = [(name, scheme) for name, each in schemes.items() for scheme in each if not scheme.is_float]
        missing = [pair for pair in pairs if pair not in self._filled and self._known(*pair) is None]
        self._filled.update(pairs)
        done = len(pairs) - len(missing)
        if self._workers > 1:
            for name, made in quantized_in_processes(self._units(missing), self.quantizer, self._workers):
                common = self.common(name)
                for scheme, parts in made:
                    self._keep(name, scheme, parts if common is None else {**parts, COMMON_ROWS: to_bits(common)})
                    missing.remove((name, scheme))
                    done += 1
                on_progress(done, len(pairs), f"quantizing {name}")
            if missing:
                self.notes.append(f"a worker process was killed: {len(missing)} of {len(pairs)} weights were quantized without it")
        for number, (name, scheme) in enumerate(missing, start=done + 1):
            self.quantized(name, scheme)
            on_progress(number, len(pairs), f"quantizing {name} {scheme}")

    def _fill_together(self, schemes: Mapping[str, Sequence[Scheme]], on_progress: Progress) -> None:
        """Each rank quantizes some layers; all find the codes in the folder that they share."""
        names = [name for name, each in schemes.items() if any(not s.is_float and (name, s) not in self._filled for s in each)]

        def quantized(unit: int) -> str:
            for scheme in schemes[names[unit]]:
                if not scheme.is_float:
                    self.quantized(names[unit], scheme)
            return self.fallbacks.get(names[unit], "")

        for number, reason in enumerate(self._ranks.each(len(names), quantized)):
            if reason:
                self.fallbacks[names[number]] = reason
            on_progress(number + 1, len(names), f"quantizing {names[number]}")
        self._filled.update((name, scheme) for name in names for scheme in schemes[name])

    def _units(self, pairs: Sequence[tuple[str, Scheme]]) -> Iterator[Unit]:
        for name, group in groupby(list(pairs), key=lambda pair: pair[0]):
            matrix, common = self.matrix(name).cpu(), self.common(name)
            matrix = matrix if common is None else merged(matrix, common)
            yield Unit(name, [scheme for _, scheme in group], matrix, self._statistics.get(name))

    def _made(self, name: str, scheme: Scheme, matrix: Tensor, statistics: Statistics | None) -> QuantizedWeight:
        try:
            with one_thread():
                place, common = CPU if scheme.is_coded else matrix.device, self.common(name)  # coding goes byte by byte
                matrix = matrix if common is None else merged(matrix, common)
                made = self.quantizer.quantize(matrix.to(place), scheme, statistics_on(place, statistics))
                return made if common is None else made.shared(common)
        except MpqError as error:
            raise type(error)(f"layer '{name}' at {scheme}: {error}") from error

    def _known(self, name: str, scheme: Scheme) -> Parts | None:
        """The stored codes of a pair; None if it has not been quantized yet."""
        layer = self.layers[name]
        found = self._codes.get(self._entry(name, scheme), scheme.stored_bits(layer.matrix) // 8 + MOST_TEXT) or {}
        parts = {part: tensor for part, tensor in found.items() if part != _REASON}
        if not are_parts(parts, scheme, layer.matrix):
            return None
        if _REASON in found:
            self.fallbacks[name] = text_of(found[_REASON])
        return parts

    def _keep(self, name: str, scheme: Scheme, parts: Parts) -> Parts:
        """Store a newly quantized pair, with the reason if it was quantized without statistics."""
        reason = getattr(self._statistics, "fallbacks", {}).get(name, "")
        if reason:
            self.fallbacks[name] = reason
        self._codes.put(self._entry(name, scheme), {**parts, **({_REASON: as_bytes(reason)} if reason else {})})
        return parts

    def _entry(self, name: str, scheme: Scheme) -> str:
        device = device_of(self.module)
        own = "" if device == CPU or scheme.is_coded else f" {device.type}"  # another device may round another way
        own += f" {self.layers[name].alike} alike" if self.layers[name].alike else ""
        return f"{name} {self.layers[name].axes} {scheme} {self.quantizer.identity}{own}"

    def weight(self, name: str, scheme: Scheme) -> Tensor:
        """The fake-quantized parameter of one layer under one scheme, in the parameter's shape and dtype."""
        key = (name, scheme)
        found = self._cache.get(key)
        if found is None:
            layer = self.layers[name]
            found = as_parameter(self.quantized(name, scheme), layer).to(device_of(self.module))
            if self.offload is None:
                self._held += found.numel() * found.element_size()
            else:
                found = self.offload.keep(found)
            self._cache[key] = found
            while self._held > self._limit and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._held -= dropped.numel() * dropped.element_size()
        self._cache.move_to_end(key)
        return found

    def weights(self, schemes: Mapping[str, Scheme], *, beside: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """The fake-quantized parameters of a whole plan, by canonical parameter name; each is made of its codes when it is asked for.

        `beside` has other tensors, which replace those of the same name.
        """
        for name, scheme in schemes.items():
            if not scheme.is_float and (name, scheme) not in self._filled:
                self.quantized(name, scheme)  # now, while the module has its own weights
                self._filled.add((name, scheme))
        return _Weights(self, schemes, beside or {})


class _Weights(Mapping[str, Tensor]):
    """The parameters of a plan; not all of them are in memory together."""

    def __init__(self, variants: Variants, schemes: Mapping[str, Scheme], beside: Mapping[str, Tensor]) -> None:
        self._variants, self._beside = variants, beside
        self._schemes = {variants.layers[name].parameters[0]: (name, scheme) for name, scheme in schemes.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._beside[name] if name in self._beside else self._variants.weight(*self._schemes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._schemes, *self._beside]))

    def __len__(self) -> int:
        return len(self._schemes.keys() | self._beside.keys())


def as_parameter(weight: QuantizedWeight, layer: Layer) -> Tensor:
    """The dequantized values of a weight, in the parameter's shape and dtype."""
    used(weight.codes)
    return from_matrix(weight.dequantize(), layer.shape, layer.axes, layer.groups).to(getattr(torch, layer.dtype))


def as_parameters(weights: Mapping[str, QuantizedWeight], layers: Iterable[Layer], offload: Offload | None = None) -> dict[str, Tensor]:
    """The dequantized values of weights, by canonical parameter name, on disk with `offload`; layers without a weight are left out."""
    keep = offload.keep if offload is not None else lambda tensor: tensor
    return {layer.parameters[0]: keep(as_parameter(weights[layer.name], layer)) for layer in layers if layer.name in weights}


def on_disk(weight: QuantizedWeight, offload: Offload | None) -> QuantizedWeight:
    """The same weight with its codes on disk; unchanged without `offload`."""
    return weight if offload is None else replace(weight, codes=offload.keep(weight.codes))
