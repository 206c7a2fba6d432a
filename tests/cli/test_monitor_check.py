import json
from pathlib import Path

import pytest

from mpq.data.batch import Batch
from mpq.monitor.baseline import baseline_of
from mpq.monitor.log import append
from mpq.monitor.watch import monitor
from mpq.records.baseline import write_baseline
from tests.cli.typed import done, refused, typed
from tests.monitor.conftest import data, model, packed_model, run, run_with_fallback

LINE = "monitor check log.jsonl --against m.mpq.safetensors"
KERNELS = "; which kernels ran is not known, because no layer is packed"


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the baseline of a model, and the log of calls like those of the baseline and of others."""
    monkeypatch.chdir(tmp_path)
    module = model()
    baseline = baseline_of(module, [Batch((inputs,)) for inputs in data(0)])
    write_baseline(baseline, Path("m.mpq.safetensors"))
    for name, scale in (("log.jsonl", 1), ("far.jsonl", 9)):
        with monitor(module, baseline, sample=1.0) as watching:
            run(module, [scale * inputs for inputs in data(1, calls=200)])
            append(watching, name)
    return tmp_path


def test_a_log_like_the_calibration_data_passes_and_another_fails(watched: Path) -> None:
    found = json.loads(done(f"{LINE} --json").out)
    assert (found["passed"], found["judged"], found["alarms"]) == (True, True, [])
    assert found["calls"] == found["sampled"] > 0
    assert done(LINE).out == f"ok    log.jsonl: 200 of 200 calls seen, nothing has drifted{KERNELS}\n"
    far = typed(f"{LINE} --json".replace("log.jsonl", "far.jsonl"))
    assert far.code == 1
    assert json.loads(far.out)["passed"] is False
    assert json.loads(far.out)["alarms"]


def test_drift_is_not_judged_by_too_few_samples(watched: Path) -> None:
    module = model()
    with monitor(module, "m.mpq.safetensors", sample=1.0) as watching:
        run(module, [9 * inputs for inputs in data(1, calls=6)])
        append(watching, "few.jsonl")
    line = LINE.replace("log.jsonl", "few.jsonl")
    assert done(line).out == f"ok    few.jsonl: 6 of 6 calls seen, too few to judge drift: 48 samples, at least 50 are needed{KERNELS}\n"
    assert json.loads(done(f"{line} --json").out) == {
        "passed": True,
        "judged": False,
        "calls": 6,
        "sampled": 6,
        "kernels": None,
        "alarms": [],
    }


def test_what_is_missing_or_unknown_is_one_line(watched: Path) -> None:
    assert (
        refused(LINE.replace("log.jsonl", "none.jsonl"), 3)
        == "cannot read none.jsonl: No such file or directory; name a log of `mpq.monitor`"
    )
    assert "none.safetensors" in refused(LINE.replace("m.mpq", "none"), 3)


def test_a_layer_that_fell_back_to_another_kernel_is_one_line(watched: Path) -> None:
    module = packed_model()
    with monitor(module, "m.mpq.safetensors", sample=1.0) as watching:
        run(module, data(1, calls=3))
        append(watching, "packed.jsonl")
        line = LINE.replace("log.jsonl", "packed.jsonl")
        assert done(line).out.endswith("at least 50 are needed; kernels that ran: rows 6 times\n")
        run_with_fallback(module, data(1, calls=3))
        append(watching, "packed.jsonl")
    ran = typed(line)
    assert ran.code == 1
    assert ran.out == "FAIL  packed.jsonl: kernel in '0': dequantize ran instead of rows, 2 times there and in 1 other layer\n"
    found = json.loads(typed(f"{line} --json").out)
    assert found["kernels"] == {"0": {"dequantize": 1, "rows": 2}, "2": {"dequantize": 1, "rows": 2}}
    assert (found["passed"], [alarm["kind"] for alarm in found["alarms"]]) == (False, ["kernel"])
