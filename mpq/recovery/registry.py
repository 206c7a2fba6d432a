"""The recovery steps, in the order in which they run. A new step is one file and one line here."""

from __future__ import annotations

from mpq.recovery.base import Step
from mpq.recovery.bias_correction import BiasCorrection
from mpq.recovery.reconstruction import Reconstruction
from mpq.recovery.sequential import Sequential
from mpq.recovery.tuning import Tuning

STEPS: tuple[Step, ...] = (Sequential(), BiasCorrection(), Reconstruction(), Tuning())
