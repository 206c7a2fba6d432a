"""The sensitivity table: the error of the model's output when one layer uses one scheme. No torch.

File `*.sensitivity.jsonl`: a header line, then one line per measurement, in the order in which they were made:

    {"mpq_sensitivity": 1, "model": {...}, "data": {...}, "settings": {...}, "layers": [...], "rest": {...}, "versions": {...}}
    {"layer": "conv1", "scheme": "int4-g32", "first": 0, "errors": [0.0012, ...]}

    {"activation": "conv2", "scheme": "a8", ...}, see `measured_activations.py`
    {"finish": {"cost": {...}, "check": {...}, "fallbacks": {layer: why it was quantized without statistics}}}

`errors` holds one value per calibration sample, starting with sample `first`, in the unit of the metric; null for a sample whose
output was not finite. Several lines of one (layer, scheme) are joined. Method "fisher" ends with `{"blend": share, "draws": n}`:
that share of the errors comes from the mean squares of the signed values `products`, n per sample. Then come lines `{"layer": name,
"scheme": scheme, "scale": factor}`: the pair was measured on some samples, and its errors are multiplied by the factor. Each line has a
checksum (`writing/checksums.py`), and each sample counts once (`duplicates.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpq.errors import FormatError, SchemeError
from mpq.files import journal_line, journal_lines, open_file
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.limits import LARGEST_ERROR
from mpq.notebook import html_page, sparkline
from mpq.records.artifact_layout import layer_header_bytes
from mpq.records.duplicates import new_figures
from mpq.records.layer import Layer
from mpq.records.measured_activations import Measured, measured_group
from mpq.records.sensitivity_file import header_line, record_line
from mpq.records.sensitivity_header import SensitivityHeader, header_in
from mpq.shown import figure, shown

if TYPE_CHECKING:
    import pandas as pd

Errors = np.ndarray[tuple[int], np.dtype[np.float64]]
MAIN_OUTPUTS = ("output", "logits")
"""Outputs that a plan does not name if only this one is compared; plans of early versions compare them, too."""
ABSENT = "name a sensitivity file, as `mpq analyze` writes it"
_COLUMNS = 6  # of a table in a notebook
NONE: Errors = np.empty(0)


@dataclass(repr=False)
class Sensitivity:
    """A sensitivity table in memory.

    Args:
        header: what was measured.
        errors: per sample by (layer, scheme), float64; NaN where an output was not finite.
        path: the file it came from, if any.
        products: method "fisher": signed values v by (layer, scheme), several draws per sample;
            the error of a plan is the mean of (sum of v)^2.
        rows: method "fisher": errors by (layer, scheme) that treat the rows of a weight as independent; `errors` blends these with v^2.
        finish: cost and self-check, written at the end of an analysis; None while it is unfinished.
        first_line: sha256 of the first line of its file, by which plans name their analysis; None if it was not read from a file.
        blend: method "fisher": the share and the draws that `errors` are blended with; None before that and after more values are added.
        scales: method "fisher": measured over predicted errors by (layer, scheme), for the few that were measured; `errors` include it.
        repeated: number of values that appear twice in the file, and were dropped.
        notes: what was left out of the file, for people.
        activations: what was measured of tensors between layers, by the name of their group and scheme.
    """

    header: SensitivityHeader
    errors: dict[tuple[str, Scheme], Errors] = field(default_factory=dict)
    path: Path | None = None
    products: dict[tuple[str, Scheme], Errors] = field(default_factory=dict)
    rows: dict[tuple[str, Scheme], Errors] = field(default_factory=dict)
    finish: dict[str, Any] | None = None
    first_line: str | None = None
    blend: tuple[float, int] | None = None
    scales: dict[tuple[str, Scheme], float] = field(default_factory=dict)
    repeated: int = 0
    notes: tuple[str, ...] = ()
    activations: Measured = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """sha256 of the first line, in hexadecimal: it does not change as values are added to the file."""
        return self.first_line or hashlib.sha256(journal_line(self.header.to_dict()).rstrip(b"\n")).hexdigest()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The searched layers in the order of the forward pass."""
        return self.header.layers

    @property
    def compared(self) -> dict[str, Any]:
        """The comparison as a plan's evidence records it: the metric, and the outputs unless only the main one is compared."""
        outputs = self.header.settings.get("outputs", [])
        plain = len(outputs) < 2 and all(each["output"] in MAIN_OUTPUTS and each["weight"] == 1 for each in outputs)
        return {"metric": self.metric} | ({} if plain else {"outputs": outputs})

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.header.settings["metric"])

    @property
    def missing(self) -> list[tuple[Layer, Scheme]]:
        """What has not been measured yet, in model order."""
        return [
            (layer, scheme)
            for layer in self.layers
            for scheme in self.header.candidates[layer.name]
            if (layer.name, scheme) not in self.errors
        ]

    @property
    def finished(self) -> bool:
        """Whether the analysis is finished for all of its current samples, with nothing missing."""
        return self.finish is not None and not self.missing and self.finish.get("parts") == self.header.data.get("parts")

    def count(self, layer: str, scheme: Scheme) -> int:
        """Number of samples measured."""
        found = self.errors.get((layer, scheme))
        return 0 if found is None else len(found)

    def read(self, record: Mapping[str, Any]) -> None:
        """Add one line of the file, in place."""
        if "finish" in record:
            self.finish = dict(record["finish"])
            return
        self.finish = None
        if "activation" in record:
            rounded = measured_group(record)
            self.activations[rounded.name, rounded.group.scheme] = rounded
            return
        if "blend" in record:
            self._blend(float(record["blend"]), int(record["draws"]))
            return
        layer, scheme = str(record["layer"]), parse_scheme(record["scheme"])
        if "scale" in record:
            self._scale((layer, scheme), float(record["scale"]))
            return
        old, kept = self.products.get((layer, scheme), NONE), self.rows.get((layer, scheme))
        measured = self.errors.get((layer, scheme), NONE) if kept is None else kept
        errors, products = new_figures(record, measured, old)
        self.repeated += len(record["errors"]) - len(errors)
        if not errors:
            return
        self.blend = None
        self.add(layer, scheme, errors)
        if "products" in record:
            self.products[layer, scheme] = np.concatenate([old, np.array(products, dtype=np.float64)])
            added = self.errors[layer, scheme][-len(errors) :]
            self.rows[layer, scheme] = added if kept is None else np.concatenate([kept, added])

    def _blend(self, share: float, draws: int) -> None:
        self.blend = (share, draws)
        for key, rows in self.rows.items():
            squares = np.square(self.products[key]).reshape(-1, draws).mean(1)
            squares = np.repeat(squares, rows.size // squares.size)  # one value for all samples of a batch that cannot be split
            self.errors[key] = (rows + share * (squares - rows)) * self.scales.get(key, 1.0)

    def _scale(self, pair: tuple[str, Scheme], scale: float) -> None:
        if pair in self.errors and self.blend is not None:
            self.errors[pair] = self.errors[pair] * (scale / self.scales.get(pair, 1.0))
        self.scales[pair] = scale

    def add(self, layer: str, scheme: Scheme, errors: Iterable[float | None]) -> None:
        """Append values for (layer, scheme), in place."""
        new = np.array([math.nan if error is None else error for error in errors], dtype=np.float64)
        old = self.errors.get((layer, scheme))
        self.errors[layer, scheme] = new if old is None else np.concatenate([old, new])

    def mean(self, layer: str, scheme: Scheme) -> float:
        """Mean error over samples; infinity where an output was not finite, or the mean is too large to add up."""
        with np.errstate(over="ignore"):
            value = float(self.errors[layer, scheme].mean())
        return value if abs(value) <= LARGEST_ERROR else math.inf

    def stderr(self, layer: str, scheme: Scheme) -> float:
        """Standard error of the mean; NaN for a single sample."""
        return standard_error(self.errors[layer, scheme])

    def __repr__(self) -> str:
        found = f"{len(self.layers):,} layers, {len(self.errors):,} pairs of layer and scheme, {self.metric}"
        return f"<Sensitivity: {found}{'' if self.finished else ', unfinished'}>"

    def _repr_html_(self) -> str:
        """For notebooks: the layers that lose most, under up to six schemes."""
        schemes = sorted({scheme for _, scheme in self.errors}, key=lambda scheme: (scheme.bits, str(scheme)))
        lost = {layer.name: self._means(layer.name, schemes) for layer in self.layers}
        worst = {name: max(filter(math.isfinite, errors), default=-1.0) for name, errors in lost.items()}
        rows = [[name, *map(figure, lost[name][:_COLUMNS])] for name in sorted(worst, key=lambda name: -worst[name])]
        bars = sparkline([math.log10(error) if error > 0 else math.nan for error in worst.values()])
        heads = ["most sensitive layers", *map(str, schemes[:_COLUMNS])]
        return html_page(repr(self)[1:-1], heads, rows, bars=(bars, "largest error by layer, in model order, logarithmic"))

    def _means(self, layer: str, schemes: Iterable[Scheme]) -> list[float]:
        return [self.mean(layer, scheme) if (layer, scheme) in self.errors else math.nan for scheme in schemes]

    def frame(self) -> pd.DataFrame:
        """One row per (layer, scheme): layer, scheme, weights, bytes, effective_bits, error, stderr, samples."""
        import pandas as pd

        rows = []
        for layer in self.layers:
            for scheme in self.header.candidates[layer.name]:
                if (layer.name, scheme) not in self.errors:
                    continue
                bits = scheme.stored_bits(layer.matrix)
                rows.append(
                    {
                        "layer": layer.name,
                        "scheme": str(scheme),
                        "weights": layer.weights,
                        "bytes": bits // 8,
                        "effective_bits": bits / layer.weights,
                        "error": self.mean(layer.name, scheme),
                        "stderr": self.stderr(layer.name, scheme),
                        "samples": len(self.errors[layer.name, scheme]),
                    }
                )
        return pd.DataFrame(rows)


def standard_error(values: Errors) -> float:
    """Standard error of the mean of independent samples; NaN for fewer than two."""
    with np.errstate(over="ignore"):
        return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def layer_bytes(layers: Iterable[Layer], schemes: Mapping[str, Scheme]) -> int:
    """Bytes of the searched layers under `schemes`."""
    return sum(schemes[layer.name].stored_bits(layer.matrix) // 8 for layer in layers)


def scheme_cost(layer: Layer, scheme: Scheme, *, scope: str) -> int:
    """Bytes that this choice adds to the searched layers, or to the whole file with its header."""
    data = scheme.stored_bits(layer.matrix) // 8
    return data if scope == "layers" else data + layer_header_bytes(layer.name, layer.matrix, scheme)


def read_sensitivity(path: Path | str) -> Sensitivity:
    """The table in a `*.sensitivity.jsonl` file, finished or not.

    Raises:
        FormatError: if it is missing, damaged, not a sensitivity file, or from a newer version.
    """
    path = Path(path)
    notes: list[str] = []
    lines = journal_lines(path, absent=ABSENT, on_note=notes.append)
    _, first = next(lines)
    header = header_in(header_line(first, f"{path}, line 1"), path)
    table = Sensitivity(header, path=path, first_line=hashlib.sha256(first.rstrip(b"\n")).hexdigest())
    samples = table.header.data.get("samples", {}).get("calibration", math.inf)
    for number, line in lines:
        name = f"{path}, line {number}"
        record = record_line(line, name)
        try:
            table.read(record)
        except (FormatError, SchemeError) as error:
            raise FormatError(f"{name}: {error}") from error
        except (ValueError, ZeroDivisionError) as error:
            raise FormatError(f"{name}: its values do not match those before it; the file is damaged: run `mpq analyze` again") from error
        if "layer" in record and table.count(record["layer"], parse_scheme(record["scheme"])) > samples:
            raise FormatError(f"{name}: {shown(record['layer'])} has more values than the {samples:,} samples: run `mpq analyze` again")
    if table.finish is not None:
        _check_complete(table, path)
    if table.repeated:
        notes.append(f"{path}: {table.repeated:,} values appear twice in the file; each is counted once")
    table.notes = tuple(notes)
    return table


def _check_complete(table: Sensitivity, path: Path) -> None:
    """Refuse a finished table whose products do not all cover the same samples and draws."""
    wanted = {(layer.name, scheme) for layer in table.layers for scheme in table.header.candidates[layer.name]}
    counts = {pair: len(found) for pair, found in table.products.items() if pair in wanted}
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    if least < most:
        layer, scheme = min(counts, key=lambda pair: counts[pair])
        raise FormatError(f"{path}: {shown(layer)} under {scheme} has {least:,} products, others have {most:,}: run `mpq analyze` again")


def first_line_sha256(path: Path) -> str:
    """sha256 of a file's first line without its end, in hexadecimal: the name by which plans find an analysis.

    Raises:
        FormatError: if the file cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.sha256(file.readline().rstrip(b"\n")).hexdigest()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; {ABSENT}") from error
