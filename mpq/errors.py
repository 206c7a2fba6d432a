"""The errors of mpq: one tree, and each class carries the exit code of the command line.

MpqError                3
├── UsageError          2   a value given by the user cannot be used
│   ├── BudgetError         a budget that cannot be read, or that no plan can meet
│   ├── SchemeError         an unknown or impossible scheme
│   ├── PatternError        a layer pattern that matches nothing
│   └── ConfigError         a configuration file with an unknown key or a wrong value
├── ModelError          3   a model that cannot be loaded, run or searched
├── DataError           3   calibration or evaluation data that does not fit
├── NumericsError       3   NaN or infinity where a number was needed
├── OutputError         3   a file that cannot be written
├── HeldError           3   a file that another process is writing
├── FormatError         3   an mpq file that is damaged, foreign, or from a newer version
├── MismatchError       3   files that do not belong together: different model, data or settings
├── TrustError          3   a file that would run code, without --trust
└── ApplyError          3   a plan that cannot be applied as written
"""

from __future__ import annotations

from mpq.shown import one_line


class MpqError(Exception):
    """Any expected failure. The message is one line: what is wrong, the value, the remedy.

    Messages repeat names and values from files, so they are made printable and shortened here.
    """

    exit_code = 3

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UsageError(MpqError):
    """A value given by the user cannot be used."""

    exit_code = 2


class BudgetError(UsageError):
    """A budget that cannot be read, or that no plan can meet."""


class SchemeError(UsageError):
    """An unknown or impossible scheme."""


class PatternError(UsageError):
    """A layer pattern that matches nothing."""


class ConfigError(UsageError):
    """A configuration file with an unknown key or a wrong value."""


class ModelError(MpqError):
    """A model that cannot be loaded, run or searched."""


class DataError(MpqError):
    """Calibration or evaluation data that does not fit the model."""


class NumericsError(MpqError):
    """NaN or infinity where a number was needed."""


class OutputError(MpqError):
    """A file that cannot be written."""


class HeldError(MpqError):
    """A file that another process is writing."""


class FormatError(MpqError):
    """An mpq file that is damaged, foreign, or from a newer version."""


class MismatchError(MpqError):
    """Files that do not belong together: different model, data or settings."""


class TrustError(MpqError):
    """A file that would make mpq run code, which requires `--trust`."""


class ApplyError(MpqError):
    """A plan that cannot be applied as written."""
