"""Mixed-precision quantization for PyTorch: the best format for each layer under a size limit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpq.distribution import VERSION

if TYPE_CHECKING:
    from mpq.analyze.run import analyze as analyze
    from mpq.apply.prepare import convert as convert
    from mpq.apply.prepare import prepare as prepare
    from mpq.apply.run import apply as apply
    from mpq.budget import Budget as Budget
    from mpq.config import AnalysisSettings as AnalysisSettings
    from mpq.config import SearchSettings as SearchSettings
    from mpq.data.batch import Batch as Batch
    from mpq.errors import MpqError as MpqError
    from mpq.evaluate.plan_measurer import PlanMeasurer as PlanMeasurer
    from mpq.evaluate.run import evaluate as evaluate
    from mpq.export.run import export as export
    from mpq.formats.scheme import Scheme as Scheme
    from mpq.models.inputs.load_data import load_data as load_data
    from mpq.models.sources.load import load_model as load_model
    from mpq.monitor.watch import monitor as monitor
    from mpq.one_shot import compress as compress
    from mpq.records.plan import Plan as Plan
    from mpq.records.plan import read_plan as read_plan
    from mpq.records.plan import write_plan as write_plan
    from mpq.records.sensitivity import Sensitivity as Sensitivity
    from mpq.records.sensitivity import read_sensitivity as read_sensitivity
    from mpq.runtime.load import load as load
    from mpq.search.run import search as search
    from mpq.verify.run import verify as verify

_HOMES = {
    "AnalysisSettings": "mpq.config",
    "Batch": "mpq.data.batch",
    "Budget": "mpq.budget",
    "MpqError": "mpq.errors",
    "Plan": "mpq.records.plan",
    "PlanMeasurer": "mpq.evaluate.plan_measurer",
    "Scheme": "mpq.formats.scheme",
    "SearchSettings": "mpq.config",
    "Sensitivity": "mpq.records.sensitivity",
    "analyze": "mpq.analyze.run",
    "apply": "mpq.apply.run",
    "compress": "mpq.one_shot",
    "convert": "mpq.apply.prepare",
    "evaluate": "mpq.evaluate.run",
    "export": "mpq.export.run",
    "load": "mpq.runtime.load",
    "load_data": "mpq.models.inputs.load_data",
    "load_model": "mpq.models.sources.load",
    "monitor": "mpq.monitor.watch",
    "prepare": "mpq.apply.prepare",
    "read_plan": "mpq.records.plan",
    "read_sensitivity": "mpq.records.sensitivity",
    "search": "mpq.search.run",
    "verify": "mpq.verify.run",
    "write_plan": "mpq.records.plan",
}
__all__ = [
    "AnalysisSettings",
    "Batch",
    "Budget",
    "MpqError",
    "Plan",
    "PlanMeasurer",
    "Scheme",
    "SearchSettings",
    "Sensitivity",
    "analyze",
    "apply",
    "compress",
    "convert",
    "evaluate",
    "export",
    "load",
    "load_data",
    "load_model",
    "monitor",
    "prepare",
    "read_plan",
    "read_sensitivity",
    "search",
    "verify",
    "write_plan",
]

__version__ = VERSION

# A room and its main function share a name. Importing a room binds its name here, once: done now, the function wins for good.
for _room in ("analyze", "apply", "evaluate", "export", "monitor", "search", "verify"):
    import_module(f"mpq.{_room}")
    del globals()[_room]

import_module("mpq.integrations.import_hook").install()


def __dir__() -> list[str]:
    """The public names only, so that completion shows nothing else."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import mpq` does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mpq' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
