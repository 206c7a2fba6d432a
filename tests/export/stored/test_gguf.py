from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpq.errors import FormatError
from mpq.export.stored.base import Place
from mpq.export.stored.gguf import read
from tests.small import schemes

gguf: Any = pytest.importorskip("gguf")
VALUES = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("token_embd.weight", gguf.quants.quantize(VALUES, kind), raw_dtype=kind)
    writer.add_tensor("blk.0.attn_q.weight", VALUES)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return tmp_path / "m.gguf"


def test_blocks_values_and_the_uses_of_a_tied_table_are_read(path: Path) -> None:
    (scheme,) = schemes("int8-g32")
    held = read(path, [Place(name, scheme, (2, 64)) for name in ("token_embd.weight", "blk.0.attn_q.weight", "none")])
    table = held.weights["token_embd.weight"]
    expected = gguf.quants.dequantize(gguf.quants.quantize(VALUES, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0)
    assert str(table.scheme) == "int8-g32"
    assert torch.allclose(table.dequantize(), torch.from_numpy(expected))
    assert torch.equal(held.weights["blk.0.attn_q.weight"].dequantize(), torch.from_numpy(VALUES))
    assert list(held.tensors) == ["output_norm.weight"]
    assert held.uses == {"token_embd.weight": ("embedding", "head")}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="is not a GGUF file, or is damaged"):
        read(tmp_path / "a", [])
