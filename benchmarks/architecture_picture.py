"""The picture of docs/architecture.md: the data flow, and the floors of the rooms.

    python -m benchmarks.architecture_picture [--output docs/pictures/architecture.png]

Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOORS = (
    ("command line", ("cli",)),
    ("whole jobs", ("one_shot", "reallocation", "deployed_times", "verify", "monitor")),
    ("stages", ("analyze", "search", "apply", "evaluate", "check", "report", "export", "demo")),
    ("around a model", ("recovery", "runtime", "gradients", "activations", "calibration", "integrations")),
    ("the model", ("models/layers", "models/inputs", "models/running", "models/sources", "models/memory")),
    ("statistics", ("evidence",)),
    ("files, tensors, samples", ("records", "tensors", "data", "config")),
    ("ground", ("formats", "budget", "files", "reading", "writing", "patterns", "registry", "limits", "errors")),
)
TORCH_FREE = {"search", "check", "report", "evidence", "records", "config", *FLOORS[-1][1]}
STAGES = (("analyze", 1), ("search", 3), ("apply", 5), ("runtime,\nevaluate,\nexport", 7))
FILES = (("model", 0), (".sensitivity\n.jsonl", 2), ("plan.yaml", 4), (".mpq\n.safetensors", 6))
BLUE, PALE, GREEN, SAND, INK = "#1f5fbf", "#dbe7f8", "#d8f0e4", "#fdf0d5", "#1f2430"


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str, *, bold: bool = False) -> None:
    """One rounded box with its text in the middle."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=color, ec="#8fa3bf", lw=0.8))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5, color=INK, weight="bold" if bold else "normal")


def way(axes: Axes, y: float) -> None:
    """The files, and the stages between them."""
    for text, place in FILES:
        box(axes, 1.55 * place, y, 1.3, 0.8, text, "white")
    for text, place in STAGES:
        box(axes, 1.55 * place, y, 1.3, 0.8, text, SAND, bold=True)
    for place in range(7):
        start, end = (1.55 * place + 1.3, y + 0.4), (1.55 * (place + 1), y + 0.4)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.2, "shrinkA": 1, "shrinkB": 1})
    axes.text(0, y + 1.15, "The data flow: each stage writes one file, and the next stage reads it", fontsize=10, weight="bold")


def floors(axes: Axes, top: float) -> None:
    """The rooms, floor by floor."""
    axes.text(0, top + 0.35, "The rooms: a file imports only from rooms below its own", fontsize=10, weight="bold")
    for number, (name, rooms) in enumerate(FLOORS):
        y = top - 0.72 * (number + 0.7)
        axes.text(0, y + 0.27, name, fontsize=8.5, va="center", color="#555d6b")
        width = min(10.05 / len(rooms), 2.2)
        for index, room in enumerate(rooms):
            color = GREEN if room in TORCH_FREE else PALE
            box(axes, 2.1 + index * width, y, width - 0.1, 0.54, room, color)


def legend(axes: Axes, y: float) -> None:
    """What the colors mean."""
    for x, color, text in ((2.1, GREEN, "never imports torch"), (5.2, PALE, "needs torch")):
        box(axes, x, y, 0.4, 0.26, "", color)
        axes.text(x + 0.55, y + 0.13, text, fontsize=8.5, va="center")


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures/architecture.png"))
    figure = Figure(figsize=(9.2, 6.5), layout="constrained")
    axes = figure.subplots()
    way(axes, 6.4)
    floors(axes, 5.4)
    legend(axes, -0.65)
    axes.set(xlim=(-0.05, 12.3), ylim=(-0.75, 7.9))
    axes.axis("off")
    figure.savefig(parser.parse_args().output, dpi=150)


if __name__ == "__main__":
    main()
