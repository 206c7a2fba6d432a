"""Choosing the method of analysis.

"auto" estimates the floating-point operations of measuring every pair on every sample. If that is at most `AFFORDABLE`, it chooses the
exact method, else the second-order one. The estimate does not depend on time, so the same model and data always get the same method.
"""

from __future__ import annotations

from torch import nn

from mpq.analyze.methods.fisher import Fisher
from mpq.analyze.methods.measure import Measure
from mpq.analyze.methods.registry import method_named
from mpq.data.dataset import Data
from mpq.models.running.metrics import Metric
from mpq.models.running.operations import operations

AFFORDABLE = 5e12  # floating-point operations: about two minutes on two CPU cores


def choose_method(name: str, module: nn.Module, data: Data, metric: Metric, *, pairs: int) -> tuple[str, str]:
    """The method's name and the reason for it.

    Args:
        name: the user's choice; "auto" leaves the choice to mpq.
        module: the model.
        data: calibration samples.
        metric: measures the error.
        pairs: number of (layer, scheme) pairs to measure.

    Raises:
        UsageError: if there is no such method.
    """
    if name != "auto":
        return method_named(name).name, f"method {name}: as asked"
    work = flops(module, data) * pairs
    if work <= AFFORDABLE:
        return (
            Measure.name,
            f"method measure: measuring {pairs} values takes about {work:.1e} operations, within the {AFFORDABLE:.0e} of auto",
        )
    if not metric.has_projection:
        return Measure.name, f"method measure: {metric.name} has no gradient, although {pairs} values take {work:.1e} operations"
    reason = (
        f"measuring {pairs} values would take {work:.1e} operations, over the {AFFORDABLE:.0e} of auto; --method measure does it anyway"
    )
    return Fisher.name, f"method fisher: {reason}"


def flops(module: nn.Module, data: Data) -> float:
    """Floating-point operations of one pass over the data, extrapolated from its first sample."""
    sample = data.batches[0] if data.fixed_batch else data.batches[0].select([0])
    return operations(module, sample) * data.samples / sample.size
