import pytest

from mpq.errors import DataError
from mpq.recovery.training import memory
from mpq.recovery.training.memory import check_memory, training_bytes
from tests.recovery.training.making import job

STATE = job("int4", "nf4-g8", "fp16").state
COUNTS = {name: weight.codes.numel() for name, weight in STATE.weights.items()}


def test_codes_that_move_take_more_than_those_that_stay() -> None:
    kinds = {name: weight.scheme.format for name, weight in STATE.weights.items()}
    assert set(kinds.values()) >= {"int4", "nf4", "fp16"}
    for codes, moving in (("none", set()), ("integers", {"int4"}), ("all", {"int4", "nf4"})):
        expected = sum(count * (90 if kinds[name] in moving else 12) for name, count in COUNTS.items())
        assert training_bytes(STATE, codes) == expected  # type: ignore[arg-type]


def test_codes_behind_scales_that_are_no_fp16_stay() -> None:
    state = job("mxfp4").state
    assert training_bytes(state, "all") == 12 * sum(weight.codes.numel() for weight in state.weights.values())


def test_too_little_memory_is_refused_with_what_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: training_bytes(STATE, "all"))
    check_memory(STATE, "all")
    monkeypatch.setattr(memory, "available_bytes", lambda: training_bytes(STATE, "none"))
    with pytest.raises(
        DataError, match=r"^training would take about \S+ GB of memory, and \S+ GB are available: --level scales takes \S+ GB$"
    ):
        check_memory(STATE, "integers")
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with pytest.raises(DataError, match=r" GB are available$"):
        check_memory(STATE, "none")
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    check_memory(STATE, "all")
