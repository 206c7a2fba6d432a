"""A short example for each public name, in the order in which a program uses them; run by a test as one program."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, str] = {
    "load_model": 'import mpq\n\nmodel = mpq.load_model("model.pt2")',
    "load_data": 'data = mpq.load_data("calibration.pt", model=model, num_samples=128)',
    "Batch": """
import torch

images = torch.load("calibration.pt")
batches = [mpq.Batch((images[:64],)), mpq.Batch((images[64:96],))]  # for analyze, apply and evaluate
""",
    "analyze": 'table = mpq.analyze(model, data, candidates=("4", "8", "16"), quantizer="mse", output="model.sensitivity.jsonl")',
    "AnalysisSettings": """
settings = mpq.AnalysisSettings(candidates=("4", "8", "16"), quantizer="mse")
table = mpq.analyze(model, data, settings=settings)
""",
    "read_sensitivity": 'table = mpq.read_sensitivity("model.sensitivity.jsonl")',
    "Sensitivity": 'frame = table.frame()\nprint(frame.sort_values("error", ascending=False).head())',
    "Scheme": 'scheme = mpq.Scheme("int4", group_size=32)\nprint(scheme, scheme.stored_bits((64, 64)) / 64**2)  # int4-g32 4.5',
    "Budget": 'budget = mpq.Budget("12kB", scope="layers")\nprint(budget.bytes(weights=25_000, original_bytes=100_000))  # 12000',
    "search": 'found = mpq.search(table, "4.5bits", pins={"head": "int8"})\nprint(found.reason)',
    "PlanMeasurer": """
measurer = mpq.PlanMeasurer(model, data, table)
found = mpq.search(table, "4.5bits", measurer=measurer, trials=4)
print(measurer.held_out(found.plan.layers).mean())
""",
    "SearchSettings": """
settings = mpq.SearchSettings(trials=4, min_bits={"stem.*": 8})
found = mpq.search(table, "5bits", settings=settings)
""",
    "Plan": "plan = found.plan\nprint(plan.size.file_bytes, dict(plan.layers))",
    "write_plan": 'mpq.write_plan(plan, "plan.yaml")',
    "read_plan": 'plan = mpq.read_plan("plan.yaml")',
    "apply": 'mpq.apply(model, plan, "model.mpq.safetensors", data=data)',
    "prepare": """
student = mpq.prepare(mpq.load_model("model.pt2"), plan)
optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
(student(images) - model.module(images)).square().mean().backward()
optimizer.step()
""",
    "convert": 'mpq.convert(student, "trained.mpq.safetensors")',
    "compress": 'done = mpq.compress(model, data, "4.5bits", output="smaller")\nprint(done.path, done.passed)',
    "load": 'quantized = mpq.load("model.mpq.safetensors", packed=True)',
    "evaluate": """
import torch

images, labels = torch.load("test.pt")
evaluation = mpq.evaluate(model, quantized, [(images, labels)])
print(evaluation["accuracy"].quantized)
""",
    "export": 'exported = mpq.export("model.mpq.safetensors", "pt2", "exported.pt2")\nprint(exported.bytes, exported.notes)',
    "verify": 'found = mpq.verify("exported.pt2")\nprint(found.passed)',
    "monitor": """
from pathlib import Path
from mpq.monitor.baseline import baseline_of
from mpq.records.baseline import write_baseline

write_baseline(baseline_of(quantized, batches), Path("model.mpq.safetensors"))
with mpq.monitor(quantized, "model.mpq.safetensors", sample=1.0) as watching:
    quantized(images[:32])
print(watching.alarms())
""",
    "MpqError": """
try:
    mpq.search(table, "0.1bits")
except mpq.MpqError as error:
    print(error.exit_code, error)
""",
}
