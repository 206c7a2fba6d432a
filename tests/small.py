"""Small things that many tests need: layers, tables and schemes without torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from mpq.formats.scheme import Scheme, parse_scheme
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.records.sensitivity_header import Rest, SensitivityHeader

REST = Rest(header_bytes=500, data_bytes=256, weights=40, original_bytes=160)


def schemes(*texts: str) -> tuple[Scheme, ...]:
    return tuple(parse_scheme(text) for text in texts)


def linear(name: str, rows: int, columns: int, *, dtype: str = "float32") -> Layer:
    return Layer(name, (f"{name}.weight",), (rows, columns), (0,), dtype, "linear", (name,))


def table(
    layers: Sequence[Layer],
    errors: Mapping[str, Mapping[str, float | Sequence[float]]],
    *,
    rest: Rest = REST,
) -> Sensitivity:
    """A finished table: errors[layer][scheme] is one figure per sample, or one figure for two samples."""
    header = SensitivityHeader(
        model={"path": "model.pt2", "sha256": "a" * 64, "kind": "export"},
        data={"source": "data.pt", "sha256": "b" * 64, "description": "8 samples", "held_out": 0.25, "seed": 0},
        settings={"metric": "kl_divergence", "probabilities": False, "method": "measure", "quantizer": "rtn"},
        layers=tuple(layers),
        candidates={layer.name: schemes(*errors[layer.name]) for layer in layers},
        rest=rest,
    )
    made = Sensitivity(header, finish={"cost": {}, "check": {}})
    for name, figures in errors.items():
        for text, figure in figures.items():
            made.add(name, parse_scheme(text), [figure, figure] if isinstance(figure, (int, float)) else list(figure))
    return made


def random_table(seed: int, *, count: int = 6, texts: Sequence[str] = ("int2", "int4", "int4-g32", "int8", "fp16")) -> Sensitivity:
    """Layers of many sizes whose error falls with every bit."""
    generator = np.random.default_rng(seed)
    layers = [
        linear(f"blocks.{i // 2}.{'qk'[i % 2]}", int(generator.integers(1, 40)), int(generator.integers(33, 200))) for i in range(count)
    ]
    errors = {}
    for layer in layers:
        falling = np.sort(generator.lognormal(0, 2, size=len(texts)))[::-1]
        ordered = sorted(schemes(*texts), key=lambda scheme: scheme.stored_bits(layer.matrix))
        errors[layer.name] = {str(scheme): float(error) for scheme, error in zip(ordered, falling, strict=True)}
    return table(layers, errors)
