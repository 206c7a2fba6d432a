"""What is told of a kernel is what runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.kernels import bags, choose, int4pack, int8pack, stored, watched
from mpq.tensors.kernels.codes import Codes
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named

MODULES = {"bags": bags, "int4pack": int4pack, "int8pack": int8pack}


def codes(text: str, layout: str) -> Codes:
    weight = quantizer_named("rtn").quantize(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), parse_scheme(text))
    return choose.in_layout(stored.stored_codes(weight.pack(), weight.scheme, (64, 64)), layout)


def noting(called: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        called.append(name)
        return real(*given)

    return noted


def told(call: Any) -> list[tuple[str, int]]:
    seen: list[tuple[str, int]] = []
    watch = watched.Watch(lambda name, _, samples: seen.append((name, samples)))
    try:
        call()
    finally:
        watch.remove()
    call()  # nobody asks
    return seen


@pytest.mark.parametrize(
    ("text", "layout", "dtype"),
    [
        ("int4-g32", "bags", torch.float32),
        ("int8", "bags", torch.float32),
        ("int4-g32", "int4pack", torch.bfloat16),
        ("int8", "int8pack", torch.bfloat16),
        ("nf4", "stored", torch.float32),
    ],
)
@pytest.mark.parametrize("samples", [1, 4, 128])
def test_the_kernel_that_is_told_is_the_function_that_runs(
    monkeypatch: pytest.MonkeyPatch, text: str, layout: str, dtype: torch.dtype, samples: int
) -> None:
    if layout != "stored" and not MODULES[layout].available():
        pytest.skip(f"this CPU has no {layout}")
    packed, called = codes(text, layout), list[str]()
    module = MODULES.get(layout, stored)
    for name in ("few_rows", "many_rows", "product"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, noting(called, name, getattr(module, name)))
    ((kernel, rows),) = told(lambda: choose.product(torch.ones(samples, 64, dtype=dtype), packed))
    assert rows == samples
    few = f"bags{packed.bits}" if layout == "bags" else layout
    assert kernel == {"few_rows": few, "many_rows": "blocks", "product": "rows"}[called[0]]


def test_lookups_and_dequantized_weights_are_told() -> None:
    weight = PackedTensor(codes("int4-g32", "stored"), (64, 64), (0,), torch.float32)
    assert told(lambda: torch.nn.functional.embedding(torch.tensor([3, 5]), weight)) == [("lookup", 2)]
    assert told(lambda: torch.abs(weight)) == [("dequantize", 0)]


def test_several_may_ask() -> None:
    weight, seen = PackedTensor(codes("int4-g32", "stored"), (64, 64), (0,), torch.float32), list[str]()
    first, second = (watched.Watch(lambda name, *_: seen.append(name)) for _ in range(2))
    weight.dequantize()
    first.remove()
    first.remove()
    weight.dequantize()
    second.remove()
    weight.dequantize()
    assert seen == 3 * ["dequantize"]
    assert watched.notes == ()
