import math
from pathlib import Path
from typing import Any

import pytest

from mpq.errors import BudgetError, FormatError, MpqError, UsageError
from mpq.records.loaded_size import loaded_bytes
from mpq.records.plan import Plan
from mpq.search.costs import read_costs
from mpq.search.run import search
from tests.search.measuring import FakeMeasurer
from tests.small import REST, random_table

TABLE = random_table(5, count=8)


def cost_file(folder: Path, *, name: str = "latency_ms", drop: str = "") -> Path:
    """Every 4-bit scheme is slow."""
    lines = [f"layer,scheme,{name}"]
    for layer in TABLE.layers:
        for scheme in TABLE.header.candidates[layer.name]:
            lines += [] if str(scheme) == drop else [f"{layer.name},{scheme},{2.5 if scheme.bits == 4 else 0.5}"]
    path = folder / "latency.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("measured", [False, True])
def test_a_cost_file_limits_the_plan_besides_its_size(tmp_path: Path, measured: bool) -> None:
    measurer = FakeMeasurer(TABLE) if measured else None
    free = search(TABLE, "6bits", measurer=measurer, trials=12).plan
    slow = sum(scheme.bits == 4 for scheme in free.layers.values())
    assert slow > 1
    found = search(TABLE, "6bits", measurer=measurer, trials=12, costs={str(cost_file(tmp_path)): 8 * 0.5 + 2.0}).plan
    assert sum(scheme.bits == 4 for scheme in found.layers.values()) <= 1
    assert found.evidence["costs"] == {"latency_ms": {"total": pytest.approx(found.evidence["costs"]["latency_ms"]["total"]), "most": 6.0}}
    assert found.evidence["costs"]["latency_ms"]["total"] <= 6.0
    assert found.evidence["predicted"] >= search(TABLE, "6bits").plan.evidence["predicted"]
    for row in found.evidence.get("finalists", ()):
        assert row["effective_bits"] <= 6


def held(plan: Plan) -> int:
    """Bytes of the loaded model with packed weights."""
    matrices = {layer.name: layer.matrix for layer in TABLE.layers}
    return loaded_bytes(plan.layers, matrices, original_bytes=0, rest_bytes=REST.original_bytes, form="packed")


def test_a_limit_of_memory_counts_what_is_never_quantized() -> None:
    free = search(TABLE, "8bits").plan
    assert search(TABLE, "8bits", memory=f"{held(free)}B").plan.layers == free.layers
    tighter = search(TABLE, "8bits", memory=f"{held(free) * 3 // 4}B").plan
    assert held(tighter) <= held(free) * 3 // 4
    assert tighter.evidence["costs"]["memory_bytes"]["total"] == held(tighter)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"costs": {"latency.csv": 3.9}}, BudgetError, "latency_ms of 3.9 cannot be met: with these candidates it is 4 to 20"),
        ({"memory": "150B"}, BudgetError, "memory 150B cannot be met: unquantized tensors take 160 bytes of 150"),
        ({"costs": {"none.csv": 3}}, FormatError, "cannot read none.csv: No such file or directory; name a CSV file of costs"),
    ],
)
def test_limits_that_cannot_be_met_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], kind: type[MpqError], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cost_file(tmp_path)
    with pytest.raises(kind) as caught:
        search(TABLE, "6bits", **change)
    assert str(caught.value) == message


def test_limits_that_exclude_each_other_are_refused_together(tmp_path: Path) -> None:
    path = tmp_path / "cost.csv"
    lines = [f"{layer.name},{s},{1000 / s.bits}" for layer in TABLE.layers for s in TABLE.header.candidates[layer.name]]
    path.write_text("layer,scheme,heat\n" + "\n".join(lines) + "\n")
    with pytest.raises(BudgetError, match=r"^budget 2.6bits \(layers\) and heat 600 can each be met, but not together: raise one of them$"):
        search(TABLE, "2.6bits", costs={str(path): 600})


def test_a_missing_pair_is_named_with_the_line_to_add(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no latency_ms for layer 'blocks.0.q' under int2: add the line blocks.0.q,int2,NUMBER$"):
        search(TABLE, "6bits", costs={str(cost_file(tmp_path, drop="int2")): 5.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,scheme\na,int4\n", "has the columns layer, scheme: it needs the columns layer, scheme and one cost, such as latency_ms"),
        ("layer,scheme,ms\na,int4,-1\n", "line 2: ms is '-1': give a number of 0 or more"),
        ("layer,scheme,ms\na,int4,1\na,int8,fast\n", "line 3: ms is 'fast': give a number of 0 or more"),
        ("layer,scheme,ms\na,int99,1\n", "int99"),
        ("", "has no rows: it needs the columns layer, scheme and one cost"),
        ("layer,scheme,ms\na,int4,1,2,3\n", "line 2: 'a,int4,1,2,3' is not a row of 3 fields"),
        ("layer,scheme,ms\na,int4,1\na,int4,2\n", "line 3: 'a' under int4 appears twice"),
        ("layer,scheme,ms\na,int4,1e200\n", "line 2: ms is '1e200': give a number"),
        ("layer,scheme,scheme\na,int4,1\n", "names a column twice"),
        ('layer,scheme,ms\n"a' + "x" * 200_000, "is not CSV (line 2: field larger than field limit"),
    ],
)
def test_damaged_cost_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cost.csv"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        read_costs(path)
    assert message in str(caught.value)
    assert math.isfinite(read_costs(cost_file(tmp_path))[1][TABLE.layers[0].name, TABLE.header.candidates[TABLE.layers[0].name][0]])
