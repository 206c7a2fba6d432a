"""Trials of a storage that anyone may have written: read as they were written, or refused in one line."""

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from mpq.errors import FormatError
from mpq.search.problem import Problem, build_groups
from mpq.search.trial_facts import is_choice, read_facts
from tests.small import random_table

PROBLEM = Problem(build_groups(random_table(0, count=4)), 10**9)
SOUND: dict[str, Any] = {"options": [0, 1, 2, 0], "error_of_each_sample": [0.5, None], "stage": "swap", "note": "why"}


def trial(**changes: Any) -> FrozenTrial:
    state = changes.pop("state", TrialState.PRUNED if "estimated_error" in changes else TrialState.COMPLETE)
    attributes = {key: value for key, value in (SOUND | changes).items() if value is not ...}
    return FrozenTrial(7, state, 1.0, datetime.now(), datetime.now(), {}, {}, attributes, {}, {}, 7)


def test_the_facts_of_a_sound_trial_are_read() -> None:
    facts = read_facts(trial(), PROBLEM, samples=2)
    assert (facts.options, facts.stage, facts.note, facts.estimate) == ([0, 1, 2, 0], "swap", "why", None)
    assert np.array_equal(facts.errors, [0.5, np.nan], equal_nan=True)


def test_a_plan_that_was_given_up_has_an_estimate_and_fewer_samples() -> None:
    assert read_facts(trial(estimated_error=3.5), PROBLEM, samples=20).estimate == 3.5
    assert read_facts(trial(estimated_error=None), PROBLEM, samples=20).estimate == np.inf


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": ...}, "it lacks the key 'stage'"),
        ({"stage": 5}, "stage is 5: give text"),
        ({"error_of_each_sample": ...}, "it lacks the key 'error_of_each_sample'"),
        ({"error_of_each_sample": "x"}, "error_of_each_sample is 'x': give a list"),
        ({"error_of_each_sample": ["x", 1.0]}, "error_of_each_sample[0] is 'x'"),
        ({"error_of_each_sample": [1.0]}, "has the errors of 1 samples, and others have 2"),
        ({"error_of_each_sample": []}, "has the errors of 0 samples"),
        ({"error_of_each_sample": [1.0] * 3, "estimated_error": 2.0}, "has the errors of 3 samples"),
        ({"options": [0, 1, 2]}, "has options that this problem does not have"),
        ({"options": [0, 1, 2, 9]}, "has options that this problem does not have"),
        ({"options": [0, 1, -1, 0]}, "options[2] is -1"),
        ({"options": {"a": 1}}, "options is {'a': 1}"),
        ({"state": TrialState.PRUNED}, "is pruned, and has no estimated error"),
        ({"state": TrialState.COMPLETE, "estimated_error": 1.0}, "is complete, and has an estimated error"),
        ({"estimated_error": "x"}, "estimated_error is 'x'"),
    ],
)
def test_what_no_search_wrote_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError) as error:
        read_facts(trial(**changes), PROBLEM, samples=2)
    assert str(error.value).startswith("trial 7 of the study")
    assert said in str(error.value)
    assert str(error.value).endswith("remove the study, and the search starts over")


@pytest.mark.parametrize("options", [None, "0120", [0, 1, 2], [0, 1, 2, 0.0], [0, 1, 2, 99], {}, [[0], 1, 2, 0]])
def test_only_an_index_for_each_group_is_a_choice(options: object) -> None:
    assert is_choice(SOUND["options"], PROBLEM)
    assert not is_choice(options, PROBLEM)
