import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpq.errors import DataError, NumericsError
from mpq.gradients.error_gradients import error_gradients
from mpq.recovery.base import State
from mpq.recovery.training import run
from mpq.recovery.training.checkpoints import Checkpoints
from mpq.recovery.training.job import Line
from mpq.recovery.training.run import train
from tests.models.small import bits, data
from tests.recovery.training.making import error, job


def content(state: State) -> dict[str, Any]:
    codes = {
        name: (weight.codes.tolist(), None if weight.scales is None else weight.scales.tolist()) for name, weight in state.weights.items()
    }
    return codes | {name: tensor.tolist() for name, tensor in state.tensors.items()}


@pytest.mark.parametrize("texts", [("int4-g8",), ("int2-g8",), ("ternary",), ("int1",), ("nf4-g8",), ("int3-asym-g8", "int8")])
def test_the_error_on_new_samples_falls_and_the_schemes_stay(texts: tuple[str, ...]) -> None:
    given = job(*texts, epochs=4, rate=None)
    before, new = bits(given.module), data(64, seed=7)
    found = train(given)
    assert found.improved
    assert error(given.module, new, found.state, given) < 0.9 * error(given.module, new, given.state, given)
    assert bits(given.module) == before
    assert {n: (w.scheme, w.matrix) for n, w in found.state.weights.items()} == {
        n: (w.scheme, w.matrix) for n, w in given.state.weights.items()
    }


@pytest.mark.parametrize(("level", "moves"), [("scales", {False}), ("codes", {True, False}), ("weights", {True})])
def test_a_level_says_whose_codes_move(level: str, moves: set[bool]) -> None:
    given = job("int2-g8", "ternary", "int2-g8", level=level, rate=30.0)
    found = train(given).state.weights
    changed = {name: not torch.equal(weight.codes, given.state.weights[name].codes) for name, weight in found.items()}
    assert set(changed.values()) == moves
    assert level != "codes" or not changed["3"]  # the ternary one


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train(job(rate=None))

    class KilledError(Exception):
        pass

    def kill(lines: list[Line]) -> None:
        if len(lines) == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(job(rate=None), checkpoints=Checkpoints(tmp_path / "c", "key"), on_line=kill)
    told: list[list[Line]] = []
    again = train(job(rate=None), checkpoints=Checkpoints(tmp_path / "c", "key"), on_line=told.append)
    assert told[0] == whole.lines[:5]  # at once, for the file of lines may be half-written
    assert again.resumed == whole.lines[4].step > 0
    assert again.lines == whole.lines
    assert content(again.state) == content(whole.state)


def test_errors_that_are_not_numbers_take_the_run_back_at_half_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [0], error_gradients

    def sometimes(*args: Any, **given: Any) -> Any:
        calls[0] += 1
        found = real(*args, **given)
        return (float("nan"), found[1]) if calls[0] == 9 else found

    monkeypatch.setattr(run, "error_gradients", sometimes)
    found = train(job())
    events = [(line.step, line.rate, line.event) for line in found.lines if "NaN" in line.event]
    assert events == [(6, 1.5, "an error of NaN: back to step 6 with half the rate")]
    assert found.lines[-1].rate == 1.5
    monkeypatch.setattr(run, "error_gradients", lambda *args, **given: (float("nan"), real(*args, **given)[1]))
    with pytest.raises(NumericsError, match="training gives an error of NaN at any rate"):
        train(job())


def test_rates_are_tried_in_short_runs_and_told() -> None:
    first = train(job(rate=None)).lines[0]
    assert first.event.startswith("rates tried: 0.3 gives ")
    assert "; rates of codes tried: 0 gives " in first.event
    assert first.rate in run.RATES
    assert first.of == 54
    tried = first.code_rate * math.sqrt(54 / 9)  # the short runs had 9 steps, a sixth
    assert min(abs(tried - rate) for rate in run.CODE_RATES) < 1e-9
    assert first.event.endswith(f"; the rate of codes is lowered to {first.code_rate:.3g}, because this run has 54 steps, not 9")


def test_minutes_settle_the_number_of_steps_once() -> None:
    found = train(job(minutes=0.01))
    shortened = [line for line in found.lines if "ends at step" in line.event]
    assert {line.of for line in found.lines} == {found.lines[0].of} | {line.of for line in shortened}
    assert 1 <= found.lines[-1].step == found.lines[-1].of
    assert found.seconds < 20


def test_one_sample_is_too_few() -> None:
    with pytest.raises(DataError, match="1 sample is too few to train on: give more"):
        train(job(samples=1))


def test_the_first_line_says_what_was_done_before_and_how_the_outputs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpq.recovery.training.teacher.available_bytes", lambda: 2000)
    found = train(replace(job(), note="blocks came first"), checkpoints=Checkpoints(tmp_path / "c", "key"))
    assert found.lines[0].event.startswith("blocks came first; the original's outputs on 144 samples would take ")
    whole = train(job())
    assert whole.lines[0].event == ""
    assert [line.aside for line in whole.lines] == [line.aside for line in found.lines]


def test_batches_are_small_where_there_are_few_samples() -> None:
    assert train(job(batch_size=None, epochs=1)).lines[0].of == 36  # 144 samples in batches of 4
    assert train(job(epochs=1)).lines[0].of == 18


def test_errors_that_do_not_fall_shorten_the_second_half_of_a_run_and_stop_it_at_once_if_they_are_far_above_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_of(factor: float) -> list[tuple[int, str]]:
        calls = [0.0]

        def rising(_: Any, __: Any) -> float:
            calls[0] += 1
            return 1.0 if calls[0] == 1 else factor + calls[0] / 1000

        monkeypatch.setattr(run._Run, "_error", rising)
        lines = train(job(samples=160, epochs=6)).lines
        return [(line.step, line.event) for line in lines if line.event or line is lines[-1]]

    assert run_of(1.1) == [(80, "no gain in 6 evaluations: ends at step 94"), (94, "")]  # of 108 steps, with an evaluation at each fifth
    assert run_of(3.0) == [(30, "no gain in 6 evaluations: stopped")]
