import json
from pathlib import Path

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.records.baseline import Baseline, baseline_path, read_baseline, write_baseline
from mpq.records.sketch import Sketch


@pytest.fixture
def known() -> Baseline:
    sketch = Sketch()
    sketch.add(np.arange(20, dtype=np.float32), samples=5)
    return Baseline({"input": sketch}, {"input": 0.5})


def test_a_baseline_reads_back(known: Baseline, tmp_path: Path) -> None:
    artifact = tmp_path / "model.mpq.safetensors"
    path = write_baseline(known, artifact)
    assert path == tmp_path / "model.mpq.safetensors.monitor.json" == baseline_path(path)
    assert read_baseline(artifact) == known


def test_a_missing_or_damaged_baseline_names_the_remedy(known: Baseline, tmp_path: Path) -> None:
    artifact = tmp_path / "model.mpq.safetensors"
    with pytest.raises(FormatError, match="write it with `mpq monitor baseline ARTIFACT --data FILE`"):
        read_baseline(artifact)
    path = write_baseline(known, artifact)
    record = json.loads(path.read_text())
    record["tensors"]["input"]["first"] = 120
    path.write_text(json.dumps(record))
    with pytest.raises(FormatError, match="its sketch has more than 129 bins"):
        read_baseline(artifact)
    path.write_text(json.dumps({**record, "mpq_monitor": 2}))
    with pytest.raises(FormatError, match="version"):
        read_baseline(artifact)
