"""The figures of docs/method, from real measurements on the two demo models that ship with mpq.

    python -m benchmarks.pictures [--only sensitivity predicted quantizers recovery bytes] [--output docs/pictures]

Needs matplotlib and a few minutes of one core. Each figure prints the numbers that it draws, so that the text can quote them.
The picture of the rooms in docs/architecture.md is drawn by benchmarks/architecture_picture.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mpq
from mpq.analyze.selfcheck import random_plans
from mpq.demo import demo_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTIZERS = ("rtn", "hqq", "mse", "act", "gptq", "descent")
STEPS: Mapping[str, Mapping[str, bool]] = {
    "quantized only": {"recovery": False},
    "+ sequential, bias correction": {"sequential": True, "tune": False},
    "+ tuning": {"sequential": True, "tune": True},
}
BLUE, GREEN, RED, GREY = "#1f5fbf", "#2a9d8f", "#c2255c", "#6b7280"


def prepared(name: str) -> tuple[mpq.models.sources.loaded.LoadedModel, mpq.data.dataset.Data, torch.Tensor]:
    """A demo model, its calibration data and its test inputs."""
    files = demo_files(name)
    model = mpq.load_model(files.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibration.pt"
        torch.save(files.calibration, path)
        return model, mpq.load_data(str(path), model=model), files.test


def sensitivity(axes: Axes) -> None:
    """A heat map of the character model: layers by bits."""
    from matplotlib.colors import LogNorm

    model, data, _ = prepared("chars")
    table = mpq.analyze(model, data, candidates=("int2", "int3", "int4", "int5", "int6", "int8"), quantizer="descent", method="measure")
    frame = table.frame().pivot(index="layer", columns="scheme", values="error").loc[[layer.name for layer in table.layers]]
    image = axes.imshow(frame.clip(lower=1e-7), aspect="auto", cmap="YlOrBr", norm=LogNorm())
    axes.set_xticks(range(len(frame.columns)), frame.columns)
    axes.set_yticks(range(len(frame)), frame.index, fontsize=8)
    axes.xaxis.tick_top()
    axes.figure.colorbar(image, ax=axes, label="KL divergence, nats")
    print(frame.to_string(float_format="{:.2e}".format))


def predicted(axes: Axes) -> None:
    """Whole plans: the sum of the table's errors against what the model says."""
    model, data, _ = prepared("chars")
    table = mpq.analyze(model, data, candidates=("2..8", "16"), quantizer="mse")
    measurer = mpq.PlanMeasurer(model, data, table)
    weights = sum(layer.weights for layer in table.layers)
    rows = []
    for plan in random_plans(table, seed=3, count=60, shares=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3)):
        bits = sum(plan[layer.name].stored_bits(layer.matrix) for layer in table.layers) / weights
        rows.append((bits, sum(table.mean(name, scheme) for name, scheme in plan.items()), measurer.calibration(plan).mean()))
    bits, sums, measured = np.array(rows).T
    low, high = min(sums.min(), measured.min()) * 0.7, max(sums.max(), measured.max()) * 1.4
    axes.plot([low, high], [low, high], color=GREY, lw=1, label="equal")
    shown = axes.scatter(sums, measured, c=bits, cmap="viridis", s=26)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set(xlabel="sum of the layers' errors in the table, nats", ylabel="measured on the model, nats")
    axes.figure.colorbar(shown, ax=axes, label="bits per weight")
    axes.legend(frameon=False)
    for least, most in ((0, 3), (3, 4), (4, 5), (5, 9)):
        inside = (bits >= least) & (bits < most)
        if inside.any():
            print(f"{least} to {most} bits: {inside.sum()} plans, measured / sum {np.median(measured[inside] / sums[inside]):.2f}")


def grouped_bars(axes: Axes, found: Mapping[str, Mapping[str, float]], label: str) -> None:
    """Bars side by side: one group for each outer key, one colour for each inner key."""
    names = list(next(iter(found.values())))
    width = 0.8 / len(names)
    colors = [GREY, "#94b3d6", GREEN, BLUE, "#584b9f", RED] if len(names) > 3 else [GREY, BLUE, GREEN]
    for index, name in enumerate(names):
        heights = [values[name] for values in found.values()]
        places = np.arange(len(found)) + (index - (len(names) - 1) / 2) * width
        bars = axes.bar(places, heights, width * 0.92, label=name, color=colors[index])
        axes.bar_label(bars, fmt="{:.2g}", fontsize=7, padding=2)
    axes.set_xticks(range(len(found)), found)
    axes.set(ylabel=label, yscale="log")
    axes.margins(y=0.15)
    axes.legend(frameon=False, ncols=3, fontsize=8)
    print(json.dumps(found, indent=1))


def quantizers(axes: Axes) -> None:
    """Uniform plans of the character model under each quantizer."""
    model, data, _ = prepared("chars")
    schemes = ("int2-g32", "int3-g32", "int4-g32")
    found: dict[str, dict[str, float]] = {scheme: {} for scheme in schemes}
    for name in QUANTIZERS:
        table = mpq.analyze(model, data, candidates=schemes, quantizer=name, method="weight")
        measurer = mpq.PlanMeasurer(model, data, table)
        for text in schemes:
            scheme = next(each for each in table.header.candidates[table.layers[0].name] if str(each) == text)
            found[text][name] = float(measurer.held_out(dict.fromkeys((layer.name for layer in table.layers), scheme)).mean())
    grouped_bars(axes, found, "KL divergence on held-out text, nats")


def recovery(axes: Axes) -> None:
    """The character model after each step of `mpq apply`, on text that took no part in any of them."""
    model, data, test = prepared("chars")
    found: dict[str, dict[str, float]] = {}
    for text in ("int3-g32", "int4-g32"):
        table = mpq.analyze(model, data, candidates=(text,), quantizer="descent", method="weight")
        plan = mpq.search(table, "8bits").plan
        found[text] = {name: applied(model, plan, data, test, choices) for name, choices in STEPS.items()}
    grouped_bars(axes, found, "KL divergence on test text, nats")


def applied(
    model: mpq.models.sources.loaded.LoadedModel,
    plan: mpq.Plan,
    data: mpq.data.dataset.Data,
    test: torch.Tensor,
    choices: Mapping[str, Any],
) -> float:
    """KL divergence on test data of the artifact that these steps give."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mpq.safetensors"
        mpq.apply(model, plan, path, data=data, tune_minutes=60, **choices)
        return mpq.evaluate(model, mpq.load(path), [test])["kl_divergence"].quantized


def share_of_file(path: Path) -> dict[str, int]:
    """Bytes of an artifact by what they hold, which add up to the size of the file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    found: Counter[str] = Counter(codes=0, scales=0, other=0, program=0, header=8 + length)
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        kind = {"codes": "codes", "scales": "scales", "zero_points": "scales", "values": "codes", "program": "program"}
        found[kind.get(name.rpartition(".")[2], "other")] += last - first
    return dict(found)


def bytes_of_files(axes: Axes) -> None:
    """Where the bytes of the two demo artifacts are."""
    names = {
        "codes": "codes and 16-bit layers",
        "scales": "scales",
        "other": "unquantized tensors",
        "program": "graph of the model",
        "header": "header",
    }
    found = {}
    for name in ("digits", "chars"):
        model, data, _ = prepared(name)
        plan = mpq.search(mpq.analyze(model, data, quantizer="mse"), "4.5bits").plan
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.mpq.safetensors"
            mpq.apply(model, plan, path)
            found[f"{name}\n{path.stat().st_size:,} bytes"] = share_of_file(path)
            assert sum(share_of_file(path).values()) == path.stat().st_size
    starts = np.zeros(len(found))
    for (kind, label), color in zip(names.items(), (BLUE, "#7fb0e6", GREEN, "#e9c46a", GREY), strict=True):
        widths = np.array([100 * shares[kind] / sum(shares.values()) for shares in found.values()])
        axes.barh(list(found), widths, left=starts, color=color, label=label, height=0.6)
        starts += widths
    axes.invert_yaxis()
    axes.set(xlabel="share of the file, percent", xlim=(0, 100))
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    print(json.dumps(found, indent=1))


PICTURES: Mapping[str, tuple[tuple[float, float], Callable[[Axes], None]]] = {
    "sensitivity": ((6.4, 4.6), sensitivity),
    "predicted": ((6.4, 4.6), predicted),
    "quantizers": ((8.0, 3.8), quantizers),
    "recovery": ((6.4, 3.6), recovery),
    "bytes": ((8.0, 2.6), bytes_of_files),
}


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args()
    for name in options.only:
        inches, draw = PICTURES[name]
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        print(f"== {name}", flush=True)
        draw(axes)
        figure.savefig(options.output / f"{name}.png", dpi=150)


if __name__ == "__main__":
    main()
