import datetime
from pathlib import Path

import pytest

from mpq.errors import FormatError
from mpq.monitor.log import append
from mpq.monitor.table import columns_in, write_table
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline
from mpq.records.monitor_log import Line, MeanFacts, read_lines
from tests.monitor.conftest import data, model, run

MEAN = MeanFacts(1.0, 0, 0.0, 0.0)


def line(**rows: list[float | None]) -> Line:
    return Line(1, 0.0, 0, 0, {}, MEAN, MEAN, rows=rows)


def test_lines_join_to_columns_of_one_length() -> None:
    assert columns_in([line(a=[1.0, 2.0]), line(b=[3.0]), line(a=[None], b=[4.0])]) == {
        "a": [1.0, 2.0, None, None],
        "b": [None, None, 3.0, 4.0],
    }
    with pytest.raises(FormatError, match="the log has no rows: no call was sampled"):
        columns_in([line()])
    with pytest.raises(FormatError, match="line 2 of the log has columns of different lengths"):
        columns_in([line(a=[1.0]), line(a=[1.0], b=[])])


def test_sampled_calls_become_a_table(baseline: Baseline, tmp_path: Path) -> None:
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    module, inputs = model(), data(1, calls=300)
    with monitor(module, baseline, sample=1.0) as watching:
        run(module, inputs[:3])
        append(watching, tmp_path / "log.jsonl")
        run(module, inputs)
        append(watching, tmp_path / "log.jsonl")
    write_table(columns_in(read_lines(tmp_path / "log.jsonl")), tmp_path / "table.parquet")
    table = pandas.read_parquet(tmp_path / "table.parquet")
    assert len(table) == 3 + 256
    assert set(table) == {"time", "prediction", *(f"{name} {kind}" for name in baseline.tensors for kind in ("mean", "deviation"))}
    assert table["input mean"][:3].tolist() == pytest.approx([float(x.mean()) for x in inputs[:3]], abs=1e-6)
    assert table["prediction"][:3].tolist() == [int(module(x)[0].argmax()) for x in inputs[:3]]
    assert table["time"].is_monotonic_increasing
    assert table["time"][0] > datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
