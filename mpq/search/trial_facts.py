"""The facts of a finished trial, checked when they are read, because anyone may have written the storage. No torch."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from optuna.trial import FrozenTrial, TrialState

from mpq.errors import FormatError
from mpq.reading.documents import Document
from mpq.reading.fields import Size, Text
from mpq.reading.validate import validated
from mpq.records.sensitivity import Errors
from mpq.search.problem import Problem

REMEDY = "remove the study, and the search starts over"


class TrialFacts(msgspec.Struct):
    """The attributes of a finished trial that mpq reads back.

    Args:
        options: the plan: the index of an option of each group.
        error_of_each_sample: null for a sample whose output was not finite.
        stage: the stage that proposed the plan.
        note: for people.
        estimated_error: estimate for a plan that was stopped early; null for infinity.
    """

    options: list[Size]
    error_of_each_sample: list[float | None]
    stage: Text
    note: Text = ""
    estimated_error: float | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def errors(self) -> Errors:
        """The error of each sample; NaN if an output was not finite."""
        return np.array([math.nan if error is None else error for error in self.error_of_each_sample], dtype=np.float64)

    @property
    def estimate(self) -> float | None:
        """The estimated error of a plan that was stopped early; None if all samples were measured."""
        if self.estimated_error is msgspec.UNSET:
            return None
        return math.inf if self.estimated_error is None else self.estimated_error


def read_facts(trial: FrozenTrial, problem: Problem, *, samples: int | None) -> TrialFacts:
    """The facts of a finished trial.

    Args:
        trial: from any storage.
        problem: defines the meaning of its options.
        samples: number of errors of a fully measured plan; None if no such plan is known.

    Raises:
        FormatError: if they do not belong to a trial of this problem.
    """
    document = Document(trial.user_attrs, f"trial {trial.number} of the study", FormatError, REMEDY)
    facts = validated(document, TrialFacts)
    if not is_choice(facts.options, problem):
        raise FormatError(f"{document.name} has options that this problem does not have: {REMEDY}")
    count, whole = len(facts.error_of_each_sample), facts.estimate is None
    if whole != (trial.state is TrialState.COMPLETE):
        raise FormatError(f"{document.name} is {trial.state.name.lower()}, and has {'no' if whole else 'an'} estimated error: {REMEDY}")
    if count == 0 or (samples is not None and (count != samples if whole else count > samples)):
        raise FormatError(f"{document.name} has the errors of {count} samples, and others have {samples}: {REMEDY}")
    return facts


def is_choice(options: object, problem: Problem) -> bool:
    """Whether this is a list with the index of one option of each group."""
    counts = [len(group.options) for group in problem.groups]
    if not isinstance(options, list) or len(options) != len(counts):
        return False
    return all(isinstance(index, int) and 0 <= index < count for index, count in zip(options, counts, strict=True))
