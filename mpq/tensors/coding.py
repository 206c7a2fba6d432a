"""The layout of a coded format in a file: Zstandard frames with integers from -128 to 127, row after row.

    bytes 0-1    the step, fp16
    byte 2       the number of classes of rows, 1 to 16
    then         the class of each row, 4 bits, the first one lowest, if there are several classes
                 for each class an exponent (one byte) and the length of its frame (4 bytes, little-endian)
                 the frames; each has the rows of its class in order
    zeros        up to the size that the scheme says

A weight is code * step * 2**(exponent / 2). Frames have no magic number, size or checksum. Zstandard uses Huffman codes for bytes, with a
table for each 128 KiB, and references for repeated sequences. Rows with a similar spread of weights form a class, because codes that fit
each class are shorter than codes that fit all rows. Rows with a weight beyond 127 steps form their own classes; their steps are 1.4, 2,
2.8, ... times as large.

The encoder has two settings. The fast one uses almost only Huffman codes: entropy + 0.05 to 0.08 bits from 3 bits up. The strong one
searches thoroughly for repetitions, at a fiftieth of the speed: it pays below 3 bits, where Huffman codes are too coarse, and for tables
with nearly equal rows, such as those of ids that training never saw. Both are decoded in the same way. Other coders: see
`benchmarks/log.md`.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from zstandard import (
    FORMAT_ZSTD1_MAGICLESS,
    STRATEGY_BTULTRA2,
    STRATEGY_FAST,
    ZstdCompressionParameters,
    ZstdCompressor,
    ZstdDecompressor,
    ZstdError,
)

from mpq.errors import FormatError, NumericsError
from mpq.limits import CODED_WINDOW

CLASSES = (1, 2, 4, 8)
"""In how many classes the encoder tries to divide the rows that have the step itself."""
LARGEST_EXPONENT = 7
FACTORS = torch.tensor([2 ** (exponent / 2) for exponent in range(LARGEST_EXPONENT + 1)], dtype=torch.float64)
"""What the step is multiplied by, by exponent."""
_MOST = 16
_ROUNDING = 1e-3  # fp16 rounding, and less than a quarter of the distance to the next factor
_HEAD = struct.Struct("<eB")
_CLASS = struct.Struct("<BI")
_PLAIN = b"\0"  # the start of a frame without size, checksum or dictionary
_DAMAGED = "its codes are damaged"


class Coded(NamedTuple):
    """The codes of a weight, whose values are code * step * 2**(exponent / 2).

    Args:
        codes: int8 [rows, columns].
        exponents: uint8 [rows], at most `LARGEST_EXPONENT`.
        step: a positive fp16 number.
    """

    codes: Tensor
    exponents: Tensor
    step: float

    @classmethod
    def of(cls, codes: Tensor, scales: Tensor) -> Coded:
        """Codes with their scales, fp16 [rows, 1], from `scales`; the smallest is the step.

        Raises:
            NumericsError: if the scales are not multiples of one step.
        """
        least = float(scales.min())
        found = cls(codes, torch.bucketize(scales.double().view(-1) / least, FACTORS * (1 - _ROUNDING)).sub_(1).clamp_(min=0).byte(), least)
        if not torch.equal(found.scales, scales.half()):
            raise NumericsError("the scales of the rows are not multiples of one step: this is a bug in mpq, please report it")
        return found

    @property
    def scales(self) -> Tensor:
        """The scale of each row, fp16 [rows, 1]."""
        return (self.step * FACTORS)[self.exponents.int()].half().unsqueeze(1)


def encode(weight: Coded, size: int) -> Tensor:
    """The stored bytes of codes, uint8 [size].

    Raises:
        NumericsError: if no setting of the encoder reaches this size.
    """
    order = list(CLASSES)
    for strong in (False, True):
        lengths = {}
        for classes in order:
            found = encoded(weight, classes=classes, strong=strong)
            if len(found) <= size:
                return torch.frombuffer(bytearray(found.ljust(size, b"\0")), dtype=torch.uint8)
            lengths[classes] = len(found)
        order = sorted(CLASSES, key=lambda classes: lengths[classes])  # the slow setting starts from the best number of classes
    raise NumericsError(f"{weight.codes.numel()} codes do not fit in {size} bytes: this is a bug in mpq, please report it")


def encoded(weight: Coded, *, classes: int, strong: bool) -> bytes:
    """The bytes without the trailing zeros, with at most this many classes of rows, by one of the two settings."""
    members = _members(weight, classes)
    compressor = _compressor(strong)  # not shared between threads
    frames = [compressor.compress(weight.codes[rows].numpy().data) for rows in members]
    head = _HEAD.pack(weight.step, len(members))
    if len(members) > 1:
        own = torch.zeros(-(-len(weight.codes) // 2) * 2, dtype=torch.uint8)
        for number, rows in enumerate(members):
            own[rows] = number
        head += (own[::2] | own[1::2] << 4).numpy().tobytes()
    entries = [_CLASS.pack(int(weight.exponents[rows[0]]), len(frame)) for rows, frame in zip(members, frames, strict=True)]
    return b"".join((head, *entries, *frames))


def decode(stored: Tensor, matrix: tuple[int, int]) -> Coded:
    """The weight of shape (rows, columns) that `encode` stored.

    It allocates no more memory than the codes need, even for damaged bytes.

    Raises:
        FormatError: if they are not a valid encoding of a matrix of this shape.
    """
    (rows, columns), reader = matrix, _Reader(stored.contiguous().numpy().data)
    step, classes = _HEAD.unpack(reader.take(_HEAD.size))
    if not 0 < step < math.inf or not 1 <= classes <= _MOST:
        raise FormatError(f"{_DAMAGED}: a step of {step:g} and {classes} classes of rows cannot be")
    own = _stored_classes(reader, rows, classes)
    entries = [_CLASS.unpack(reader.take(_CLASS.size)) for _ in range(classes)]
    if max(exponent for exponent, _ in entries) > LARGEST_EXPONENT:
        raise FormatError(f"{_DAMAGED}: an exponent is beyond {LARGEST_EXPONENT}")
    counts, decompressor = own.bincount().tolist(), _decompressor()
    frames = [_decompressed(decompressor, reader.take(length), count * columns) for count, (_, length) in zip(counts, entries, strict=True)]
    exponents = torch.tensor([exponent for exponent, _ in entries], dtype=torch.uint8)[own]
    if classes == 1:
        return Coded(torch.frombuffer(bytearray(frames[0]), dtype=torch.int8).view(rows, columns), exponents, step)
    codes = torch.empty(rows, columns, dtype=torch.int8)
    for number, frame in enumerate(frames):
        codes.numpy()[own.numpy() == number] = np.frombuffer(frame, dtype=np.int8).reshape(-1, columns)
    return Coded(codes, exponents, step)


class _Reader:
    """Reads bytes part by part."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._place = data, 0

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        first, self._place = self._place, self._place + count
        if self._place > len(self._data):
            raise FormatError(f"{_DAMAGED}: they end too early")
        return self._data[first : self._place]


def _members(weight: Coded, classes: int) -> list[Tensor]:
    """The rows of each class: rows with the step itself by spread, in classes of equal size; all others by exponent."""
    exponents = weight.exponents
    plain = (exponents == 0).nonzero().view(-1)
    larger = [(exponents == other).nonzero().view(-1) for other in range(1, LARGEST_EXPONENT + 1)] if len(plain) < len(exponents) else []
    if classes == 1 or len(plain) < 2 * classes:
        parts = [plain]
    else:
        order = weight.codes[plain].float().square_().sum(1).argsort(stable=True)
        parts = [plain[part.sort().values] for part in order.tensor_split(classes)]
    return [rows for rows in (*parts, *larger) if len(rows)]


def _stored_classes(reader: _Reader, rows: int, classes: int) -> Tensor:
    """The class of each row, int64 [rows]."""
    if classes == 1:
        return torch.zeros(rows, dtype=torch.int64)
    pairs = torch.frombuffer(bytearray(reader.take(-(-rows // 2))), dtype=torch.uint8)
    own = torch.stack((pairs & 15, pairs >> 4), 1).view(-1)[:rows].long()
    if int(own.max()) >= classes or int(own.bincount(minlength=classes).min()) == 0:
        raise FormatError(f"{_DAMAGED}: a class of rows is empty, or is none of {classes}")
    return own


def _decompressor() -> ZstdDecompressor:
    return ZstdDecompressor(format=FORMAT_ZSTD1_MAGICLESS, max_window_size=CODED_WINDOW)


def _decompressed(decompressor: ZstdDecompressor, frame: memoryview, size: int) -> bytes:
    if frame[:1] != _PLAIN:  # otherwise memory would be allocated for the size that a frame states
        raise FormatError(f"{_DAMAGED}: a frame says more than it may")
    try:
        found = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except ZstdError as error:
        raise FormatError(f"{_DAMAGED} ({error})") from error
    if len(found) != size:
        raise FormatError(f"{_DAMAGED}: {len(found)} codes instead of {size}")
    return found


def _compressor(strong: bool) -> ZstdCompressor:
    common = {"format": FORMAT_ZSTD1_MAGICLESS, "write_content_size": 0, "write_checksum": 0, "min_match": 7}
    if strong:
        search = {"window_log": 23, "hash_log": 17, "chain_log": 17, "search_log": 4, "target_length": 48}
        return ZstdCompressor(compression_params=ZstdCompressionParameters(strategy=STRATEGY_BTULTRA2, **search, **common))
    search = {"window_log": 17, "hash_log": 6, "chain_log": 6, "search_log": 1, "target_length": 0}
    return ZstdCompressor(compression_params=ZstdCompressionParameters(strategy=STRATEGY_FAST, **search, **common))
