"""A sound file of every kind that mpq reads, with all that it may hold, from which `hostile.py` makes damaged ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpq.budget import Budget
from mpq.files import Journal
from mpq.records.artifact import ArtifactHeader
from mpq.records.artifact_layout import header, layer_entries
from mpq.records.plan import Plan
from mpq.records.sensitivity import Sensitivity
from mpq.search.run import search
from tests.small import random_table

LAYER = "blocks.0.q"
CONFIG_TEXT = """
analyze: {calib: a.pt, candidates: ["4", 8, 2..8], targets: "re:.*proj", ignore: [a, b], metric: auto, quantizer: rtn, method: auto,
  held_out: 0.2, seed: 0, seq-len: 64, num-samples: 64, batch_size: 4}
search: {budget: 6bits, scope: file, trials: 0, pins: {blocks.0.q: int8}, ties: [[blocks.0.q, blocks.0.k], auto], min_bits: {"*": 2},
  candidates: {"blocks.1.*": [4, 8]}, costs: {costs.csv: 1000000.0}, memory: 200MB, timeout: 10.0, seed: 0, start: good.yaml}
check: {budget: 30%, scope: layers, max_error: 0.02, max_loaded: 1MB, max-loaded-packed: 1000000}
"""
BUDGETS_TEXT = """
mpq_budgets: 1
budgets:
  - name: plans
    files: [good.yaml, "*.yaml"]
    max_bits: 4.5
    max_bytes: 12MiB
    max_loaded: 64MB
    max_loaded_packed: 1000000
    max_share: 30%
    max_error: 0.02
    baseline: good.yaml
    max_growth: 0.5%
    max_error_growth: 10%
    forbid: {"*q": [int2, int4], "re:.*k": fp16}
    require: {"blocks.*": int4}
  - files: several/*.safetensors
    max_bits: 5
    max_bytes: 1MB
"""


CSV_TEXT = "layer,bits,group_size,symmetric\nblocks.0.q,4,32,\nblocks.0.k,8,,true\n"
FORMS: dict[str, Any] = {
    "layer-config": {".*q$": {"bits": 4, "group_size": 32, "sym": False}, "blocks.0.k": "W8A16"},
    "auto-round": {"bits": 4, "group_size": 128, "sym": True, "extra_config": {"blocks.0.k": {"bits": 8}}},
    "gptqmodel": {"bits": 4, "group_size": 128, "dynamic": {"+:.*k": {"bits": 8}, "-:.*0.q": {}}},
    "modelopt-state": {"best": {"recipe": {"l": "INT4_X"}}, "candidate_stats": {"l": {"module_names": ["blocks.0.q"]}}},
    "modelopt": {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*q.weight*", "cfg": {"num_bits": [4, 3], "block_sizes": {"-1": 32}}},
        ]
    },
}


def index_text(table: Sensitivity) -> str:
    names = {f"{layer.name}.codes": "a.mpq.safetensors" for layer in table.layers}
    return json.dumps({"metadata": {"mpq_index": 1, "total_size": 4}, "weight_map": names})


def full_table() -> Sensitivity:
    table = random_table(3)
    data = {**table.header.data, "samples": {"calibration": 4, "held_out": 2}, "seq_len": None, "num_samples": 6, "parts": [6]}
    return replace(table, header=replace(table.header, data=data, notes=("a note",), versions={"mpq": "0.1.0"}), finish={"parts": [6]})


def full_plan(table: Sensitivity) -> Plan:
    plan = search(table, "5bits", pins={LAYER: "int8"}, ties=(("blocks.1.q", "blocks.1.k"),)).plan
    figures = {"calibration": 0.1, "calibration_stderr": 0.01, "held_out": 0.12, "held_out_stderr": None}
    rows = [{"name": name, "effective_bits": bits, "predicted": 0.1, **figures} for name, bits in (("exact", 4.9), ("int4", 4.5))]
    evidence = {
        **plan.evidence,
        "assignment": plan.assignment,
        "measured": {**figures, "samples": {"calibration": 4, "held_out": 2}},
        "best_uniform": {"scheme": "int4", "effective_bits": 4.5, "held_out": 0.2},
        "with_interactions": {"predicted": 0.1, "bound": 0.05},
        "costs": {"latency_ms": {"total": 2.5, "most": 3.0}},
        "asked": {"name": "drop", "value": 0.1, "most": 0.2},
        "decision": "exact: 0.6 of the held-out error of the best uniform plan (int4), beyond noise",
        "finalists": rows,
    }
    return replace(plan, evidence=evidence, budget=Budget("5bits"), axes={"blocks.0.k": (1,)})


def write_table(table: Sensitivity, path: Path) -> None:
    journal, draw = Journal.create(path, table.header.to_dict()), np.random.default_rng(0)
    for (layer, scheme), errors in table.errors.items():
        for first in (0, 2):
            figures = {"errors": errors.tolist(), "products": draw.normal(size=4).tolist()}
            journal.append({"layer": layer, "scheme": str(scheme), "first": first, **figures})
    quality = {"rank": 0.9, "bias": 0.1, "spread": 0.2}
    check = {"plans": 12, "additive": quality, "interactions": {**quality, "rank": 0.95, "spread": 0.1}}
    journal.append({"blend": 0.5, "draws": 2})
    journal.append({"finish": {"cost": {"seconds": 1.5}, "check": check, "fallbacks": {LAYER: "no input seen"}, "parts": [6]}})
    journal.close()


def artifact_bytes(plan: Plan, table: Sensitivity) -> bytes:
    facts = ArtifactHeader(plan.model, "rtn", table.layers, plan.layers, {"tied": LAYER}, {"hidden_size": 8})
    entries = [part for layer in table.layers for part in layer_entries(layer.name, layer.matrix, plan.layers[layer.name])]
    return header(entries, facts.to_metadata()) + bytes(sum(part.stored.bytes for part in entries))


def costs_text(table: Sensitivity) -> str:
    rows = [f"{layer.name},{scheme},{1 + scheme.bits / 8}" for layer in table.layers for scheme in table.header.candidates[layer.name]]
    return "\n".join(["layer,scheme,latency_ms", *rows]) + "\n"
