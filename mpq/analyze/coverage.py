"""Coverage: how much of the model and the data an analysis covers."""

from __future__ import annotations

from mpq.analyze.task import Prepared
from mpq.data.masks import counted_positions
from mpq.models.layers.outside_state import bytes_of, outside_weights
from mpq.models.layers.unquantized_tensors import rest_tensors
from mpq.models.running.comparison import Comparison
from mpq.models.running.forward import forward
from mpq.models.sources.loaded import LoadedModel
from mpq.records.artifact import PROGRAM
from mpq.records.coverage import Coverage


def coverage_of(model: LoadedModel, prepared: Prepared) -> Coverage:
    """The coverage of the analysis `prepared` of `model`. Runs the first calibration sample to see what the model returns."""
    header, batches = prepared.header, prepared.calibration.batches
    returned = len(forward(model.module, batches[0]))
    counted, given = counted_positions(batches)
    others = rest_tensors(model, header.layers)
    outside = outside_weights(model.module, batches[0])
    return Coverage(
        layers=len(header.layers),
        searched_bytes=sum(layer.original_bytes for layer in header.layers),
        left_out=sum(name != PROGRAM for name in others) + len(outside),
        left_out_bytes=header.rest.original_bytes + bytes_of(outside),
        outputs=sum(part.weight > 0 for part in prepared.metric.parts) if isinstance(prepared.metric, Comparison) else 1,
        outputs_returned=returned,
        positions=counted,
        positions_given=given,
        calibration=prepared.calibration.samples,
        held_out=int(header.data["samples"]["held_out"]),
    )
