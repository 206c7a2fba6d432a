import json
from pathlib import Path

import pytest

from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from mpq.records.baseline import Baseline
from tests.cli.typed import done, refused
from tests.monitor.conftest import baseline as baseline
from tests.monitor.conftest import data, model, run


def test_rows_of_a_log_become_a_table(baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    module = model()
    with monitor(module, baseline, sample=1.0) as watching:
        append(watching, "empty.jsonl")
        run(module, data(1, calls=5))
        append(watching, "log.jsonl")
    assert done("monitor table log.jsonl -o out.parquet").out == "out.parquet: 5 rows, 14 columns\n"
    assert len(pandas.read_parquet("out.parquet")) == 5
    found = json.loads(done("monitor table log.jsonl -o out.parquet --json").out)
    assert (found["output"], found["rows"], len(found["columns"])) == ("out.parquet", 5, 14)
    assert refused("monitor table empty.jsonl -o none.parquet", 3) == "the log has no rows: no call was sampled"
    assert "log.jsonl" in refused("monitor table log.jsonl -o log.jsonl", 3)
