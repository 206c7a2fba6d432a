"""How many passes a training step makes, over which samples: from the operations that one pass takes and the work allowed.

So the result depends on the seed, not on the machine's speed.
"""

from __future__ import annotations

import math

from mpq.data.dataset import Data
from mpq.errors import UsageError
from mpq.recovery.base import Task
from mpq.recovery.cost import LEAST_SAMPLES, forward_operations
from mpq.shown import counted

LEAST_PASSES = 4  # with fewer passes the rate would fall too fast; fewer samples are used instead
ASIDE = 0.125  # of the calibration samples
_BACKWARD = 3  # operations of a forward and a backward pass, in forward passes
_STEPS = 8  # of a pass, at least, if there are that many samples


def planned(task: Task, passes: int, *, least: int = LEAST_PASSES, extra: float = 0.0) -> tuple[int, Data, Data]:
    """The number of passes, the samples to train on, in the batches of the steps, and those kept aside.

    Args:
        task: what the step works with.
        passes: to make if the work allows.
        least: passes; with less work, fewer samples are used.
        extra: work apart from the passes, in forward passes over the samples.

    Raises:
        UsageError: if the work allowed is too little for the least number of passes and samples.
    """
    calibration = task.calibration
    used, aside = calibration.split(ASIDE, task.seed)
    one_sample = forward_operations(task.module, task.layers, used)
    passes, samples = schedule(one_sample, used.samples, task.limits.work, passes, least=least, extra=extra)
    if samples < used.samples:
        used, aside = calibration.spread(max(2, math.ceil(samples / (1 - ASIDE)))).split(ASIDE, task.seed)
    if not used.fixed_batch:
        used = used.rebatch(min(max(batch.size for batch in used.batches), -(-used.samples // _STEPS)))
    return passes, used, aside


def schedule(
    one_sample: float, samples: int, work: float, passes: int, *, least: int = LEAST_PASSES, extra: float = 0.0
) -> tuple[int, int]:
    """Passes, and samples of each, that keep within the work allowed.

    Args:
        one_sample: operations of a forward pass for one sample.
        samples: that there are.
        work: operations allowed.
        passes: at most.
        least: passes.
        extra: work apart from the passes, in forward passes over the samples.

    Raises:
        UsageError: if that is too little.
    """
    most = int(min(passes, (work / (one_sample * samples) - extra) / _BACKWARD))
    if most >= least:
        return most, samples
    one_sample *= _BACKWARD * least + extra
    fitting, fewest = int(work / one_sample), min(LEAST_SAMPLES, samples)
    if fitting < fewest:
        made = f"{counted(least, 'pass', 'passes')} over {fewest} samples"
        raise UsageError(
            f"{made} take{'s' if least == 1 else ''} {one_sample * fewest:.2g} operations, and {work:.2g} are allowed (--tune-work)"
        )
    return least, fitting


def rate(share: float) -> float:
    """A factor that falls from one to zero along a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return (1 + math.cos(math.pi * min(1.0, share))) / 2
