"""No (layer, scheme) pair is quantized twice, and statistics are collected once, from the analysis to the artifact, whatever the memory."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mpq
from mpq.budget import Budget
from mpq.calibration import input_moments
from mpq.evaluate.plan_measurer import PlanMeasurer
from mpq.formats.scheme import Scheme
from mpq.gradients import weight_changes
from mpq.models.memory.store import Store
from mpq.models.running import known
from mpq.models.running.fake_quantized import Variants
from mpq.search.run import search
from mpq.tensors.quantizers.gptq import Descent
from tests.models.small import data, mlp


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, str]]:
    """How often each matrix was quantized under each scheme."""
    found = Counter[tuple[bytes, str]]()
    rounded = Descent.round

    def counted(self: Descent, matrix: Tensor, scheme: Scheme, *rest: Any) -> Any:
        found[matrix.numpy().tobytes(), str(scheme)] += 1
        return rounded(self, matrix, scheme, *rest)

    monkeypatch.setattr(Descent, "round", counted)
    return found


def _defaults(kind: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = kind.__init__.__kwdefaults__
    return found


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_defaults(Variants), "cache_bytes", 0)
    monkeypatch.setitem(_defaults(Store), "memory", 0)
    monkeypatch.setattr(known, "MEMORY_BYTES", 0)
    monkeypatch.setattr(weight_changes, "CACHE_BYTES", 0)


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("method", ["fisher", "measure"])
def test_each_pair_is_quantized_once_from_analysis_to_artifact(
    method: str, pairs: Counter[tuple[bytes, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = list[int]()
    collect = input_moments.collect_statistics
    monkeypatch.setattr(input_moments, "collect_statistics", lambda *given: passes.append(1) or collect(*given))  # type: ignore[func-returns-value]
    module, cache = mlp(), tmp_path / "cache"
    table = mpq.analyze(module, data(), candidates=("2", "4", "8", "16"), quantizer="descent", method=method, cache=cache)
    assert (len(pairs), set(pairs.values()), len(passes)) == (3 * len(table.layers), {1}, 1)
    plan = search(table, Budget("5bits"), measurer=PlanMeasurer(module, data(), table, cache=cache), trials=4).plan
    with_cache, without = (tmp_path / f"{name}.mpq.safetensors" for name in ("a", "b"))
    mpq.apply(module, plan, with_cache, data=data(), recovery=False, cache=cache)
    assert (len(pairs), set(pairs.values()), len(passes)) == (3 * len(table.layers), {1}, 1)
    mpq.apply(module, plan, without, data=data(), recovery=False)
    assert set(pairs.values()) == {1, 2}
    assert with_cache.read_bytes() == without.read_bytes()


def test_a_later_analysis_with_more_candidates_quantizes_only_what_is_new(pairs: Counter[tuple[bytes, str]], tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"quantizer": "descent", "method": "fisher"}
    for number, candidates in enumerate((("4", "8"), ("3", "4", "8"))):
        table = mpq.analyze(mlp(), data(), candidates=candidates, cache=tmp_path / "cache", output=tmp_path / f"{number}.jsonl", **chosen)
    fresh = mpq.analyze(mlp(), data(), candidates=("3", "4", "8"), **chosen)
    assert {scheme: count for (_, scheme), count in pairs.items()} == {"int3": 2, "int4": 2, "int8": 2}
    assert {key: errors.tolist() for key, errors in table.errors.items()} == {key: errors.tolist() for key, errors in fresh.errors.items()}


@pytest.mark.usefixtures("no_memory")
def test_the_choice_of_a_quantizer_quantizes_nothing_that_the_analysis_does_again(pairs: Counter[tuple[bytes, str]]) -> None:
    torch.manual_seed(0)
    mpq.analyze(mlp(), data(), candidates=("4", "8"), method="measure")
    assert pairs
    assert set(pairs.values()) == {1}
