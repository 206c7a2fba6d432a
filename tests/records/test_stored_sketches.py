import json
import math

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.reading.documents import Document
from mpq.records.sketch import Sketch
from mpq.records.stored_sketches import StoredFacts, StoredSketches, sketch_bytes, stored_in, watched_layers

DOCUMENT = Document({}, "a.mpq.safetensors", FormatError, "run `mpq apply` again")


def seen(seed: int, values: int = 1000) -> Sketch:
    sketch = Sketch()
    sketch.add(np.random.default_rng(seed).standard_normal(values).astype(np.float32), samples=5)
    return sketch


def read_back(stored: StoredSketches, layers: tuple[str, ...]) -> StoredSketches:
    record = stored.to_dict()
    return stored_in(DOCUMENT, StoredFacts(record["layers"], record["data"]), layers)


def test_sketches_read_back_exactly_where_no_bin_has_more_than_2047_values() -> None:
    rows = (*((seen(seed), 0.5 * seed) for seed in range(4)), (Sketch(), 0.0))
    stored = StoredSketches(("fc",), rows)
    assert read_back(stored, ("conv", "fc")) == stored


def test_each_sketch_takes_360_bytes_whatever_it_holds() -> None:
    assert sketch_bytes(["a", "b"]) - sketch_bytes(["a"]) == 360 + len(r",\"b\"")
    assert sketch_bytes(None) == 0
    for rows in (((seen(0, 100_000), 1.0),) * 5, ((Sketch(), 0.0),) * 5):
        text = json.dumps({"sketches": StoredSketches(("layer.é",), rows).to_dict()}, separators=(",", ":"), ensure_ascii=False)[1:-1]
        assert len(json.dumps(text + ",", ensure_ascii=False).encode()) - 2 == sketch_bytes(["layer.é"])


@pytest.mark.parametrize(
    ("layers", "data"),
    [
        (["unknown"], StoredSketches((), ((Sketch(), 0.0),) * 5).to_dict()["data"]),
        (["fc"], StoredSketches((), ((Sketch(), 0.0),) * 4).to_dict()["data"]),
        ([], StoredSketches((), ((Sketch(), math.nan),) * 4).to_dict()["data"]),
        ([], StoredSketches((), ((Sketch(seen(0).counts, 2.0, 1.0), 0.0),) * 4).to_dict()["data"]),
        ([], "not base 85"),
    ],
)
def test_damaged_sketches_are_refused(layers: list[str], data: str) -> None:
    with pytest.raises(FormatError, match="its sketches are damaged: run `mpq apply` again"):
        stored_in(DOCUMENT, StoredFacts(layers, data), {"fc"})


def test_up_to_eight_layers_are_watched_evenly_spaced() -> None:
    names = [str(number) for number in range(20)]
    assert watched_layers(names, "hf") == ("1", "3", "6", "8", "11", "13", "16", "18")
    assert watched_layers(names[:3], "hf") == ("0", "1", "2")
    assert watched_layers(names, "export") == watched_layers(names, "torchscript") == ()
