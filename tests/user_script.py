"""A program of a user, in the folder that `mpq demo --keep .` fills: `mypy --strict` accepts it, and it runs. `.ci/package` does both."""

from pathlib import Path

import torch
from torch import Tensor, nn

import mpq


def analyzed(model: nn.Module, batches: list[Tensor]) -> mpq.Sensitivity:
    """A table for candidates of one's own."""
    return mpq.analyze(model, batches, candidates=(4, "8", "int4-g32"), quantizer="rtn", held_out=0.25, seed=1)


def compared(table: mpq.Sensitivity, budgets: list[str]) -> list[dict[str, float | str]]:
    """Bytes and predicted errors by budget."""
    rows: list[dict[str, float | str]] = []
    for budget in budgets:
        plan: mpq.Plan = mpq.search(table, budget, pins={"head": "int8"}, min_bits={"stem.*": 8}, trials=0).plan
        rows.append({"budget": budget, "bytes": plan.size.file_bytes, "predicted": float(plan.evidence["predicted"])})
    return rows


def main() -> None:
    """The way from model to artifact."""
    images: Tensor = torch.load("calibration.pt")
    loaded = mpq.load_model(Path("model.pt2"))
    table = analyzed(loaded.module, [images[:128], images[128:256]])
    print(compared(table, ["5bits", "6bits"]))
    measurer = mpq.PlanMeasurer(loaded.module, [images[:128], images[128:256]], table)
    found = mpq.search(table, mpq.Budget("5bits"), measurer=measurer, trials=2, progress=True)
    print(found, found.frame(), found.plan.frame(), sep="\n")
    written = mpq.apply(loaded.module, found.plan, "own.mpq.safetensors", data=[images[:128], images[128:256]], tune=False)
    labelled: tuple[Tensor, Tensor] = torch.load("test.pt")
    evaluation = mpq.evaluate(loaded.module, mpq.load(written.path, mpq.load_model("model.pt2").module), [labelled])
    print(evaluation["accuracy"].quantized)
    done = mpq.compress(loaded, [images[:128]], "5bits", output="small", searching=mpq.SearchSettings(trials=1), progress=True)
    assert done.passed
    try:
        mpq.search(table, "0.1bits")
    except mpq.MpqError as error:
        print(error.exit_code, error)


if __name__ == "__main__":
    main()
