from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpq.errors import NumericsError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.memory.store import Folder, Scope, Store
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.swap import swapped, tensor_of
from mpq.tensors.matrix import to_matrix
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.models.layers.test_unquantized_tensors import batch_of
from tests.models.small import MODELS, bits, mlp

INT4 = parse_scheme("int4-g8")


class Counting(RoundToNearest):
    def __init__(self) -> None:
        self.count = 0

    def round(self, *arguments):  # type: ignore[no-untyped-def]
        self.count += 1
        return super().round(*arguments)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("text", ["int4-g8", "int3-asym", "int8", "fp16", "bf16", "fp32"])
def test_a_variant_has_the_parameters_shape_and_dtype_and_the_quantized_values(kind: str, text: str) -> None:
    module = MODELS[kind][0]()
    before = bits(module)
    layers = discover(module, [batch_of(kind)]).layers
    variants = Variants(module, layers, RoundToNearest())
    for layer in layers:
        weight = tensor_of(module, layer.parameters[0])
        found = variants.weight(layer.name, parse_scheme(text))
        assert (found.shape, found.dtype) == (weight.shape, weight.dtype)
        quantized = RoundToNearest().quantize(to_matrix(weight.detach(), layer.axes, layer.groups), parse_scheme(text))
        assert torch.equal(to_matrix(found, layer.axes, layer.groups), quantized.dequantize().to(weight.dtype).float())
    assert bits(module) == before


def test_a_variant_is_made_once_while_memory_allows() -> None:
    module, quantizer = mlp(), Counting()
    layers = discover(module, [batch_of("mlp")]).layers
    variants = Variants(module, layers, quantizer)
    for _ in range(3):
        variants.weights({"0": INT4, "3": INT4})
    assert quantizer.count == 2


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_no_pair_is_quantized_twice_however_little_memory_there_is(memory: int) -> None:
    module, quantizer = mlp(), Counting()
    layers = discover(module, [batch_of("mlp")]).layers
    variants = Variants(module, layers, quantizer, cache_bytes=0, codes=Scope(Store(memory=memory), {}))
    expected = {name: RoundToNearest().quantize(variants.matrix(name), INT4).dequantize() for name in ("0", "3", "5")}
    for name in ("0", "3", "0", "5", "0", "3"):
        assert torch.equal(variants.weight(name, INT4), expected[name])
    assert quantizer.count == 3


def test_codes_are_found_again_in_a_folder_but_not_those_of_another_quantizer_or_layer(tmp_path: Path) -> None:
    module = mlp()
    layers = discover(module, [batch_of("mlp")]).layers
    quantizers = [Counting(), Counting(), Counting()]
    quantizers[2].name = "other"  # type: ignore[misc]
    found = []
    for quantizer in quantizers:
        variants = Variants(module, layers, quantizer, codes=Scope(Store(Folder(tmp_path)), {}))
        found.append(variants.weights({"0": INT4, "3": INT4}))
    assert [quantizer.count for quantizer in quantizers] == [2, 0, 2]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_filling_tells_of_each_pair_and_leaves_casts_out() -> None:
    module, quantizer, told = mlp(), Counting(), list[tuple[int, int, str]]()
    variants = Variants(module, discover(module, [batch_of("mlp")]).layers, quantizer)
    schemes = {"0": [INT4, parse_scheme("fp16")], "3": [INT4]}
    for _ in range(2):
        variants.fill(schemes, lambda *line: told.append(line))
    assert told[:2] == [(1, 2, "quantizing 0 int4-g8"), (2, 2, "quantizing 3 int4-g8")]
    assert quantizer.count == 2


def test_entries_of_another_shape_or_dtype_are_not_believed() -> None:
    module, quantizer, store = mlp(), Counting(), Store()
    variants = Variants(module, discover(module, [batch_of("mlp")]).layers, quantizer, codes=Scope(store, {}))
    good = variants.weight("0", INT4)
    (key,) = store._kept
    for wrong in (torch.zeros(3, dtype=torch.uint8), store._kept[key]["codes"].int()):
        store._kept[key] = {**store._kept[key], "codes": wrong}
        other = Variants(module, variants.layers.values(), quantizer, codes=Scope(store, {}))
        assert torch.equal(other.weight("0", INT4), good)
    assert quantizer.count == 3


def test_weights_are_named_by_their_canonical_parameter() -> None:
    module = MODELS["tied"][0]()
    layers = discover(module, [batch_of("tied")]).layers
    found = Variants(module, layers, RoundToNearest()).weights({"embedding": INT4, "body": INT4})
    assert list(found) == ["embedding.weight", "body.weight"]


def test_the_weights_of_a_plan_are_quantized_at_once_and_made_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module, quantizer, made = mlp(), Counting(), list[str]()
    variants = Variants(module, discover(module, [batch_of("mlp")]).layers, quantizer, cache_bytes=0)
    expected, weight = {f"{name}.weight": variants.weight(name, INT4) for name in ("0", "3")}, variants.weight

    def counted(name: str, scheme: Scheme) -> Tensor:
        made.append(name)
        return weight(name, scheme)

    monkeypatch.setattr(variants, "weight", counted)
    other = torch.ones(4, 12)
    found = variants.weights({"0": INT4, "3": INT4}, beside={"5.weight": other})
    assert (quantizer.count, made, len(found), list(found)) == (2, [], 3, ["0.weight", "3.weight", "5.weight"])
    assert torch.equal(found["3.weight"], expected["3.weight"])
    assert made == ["3"]
    with swapped(module, found):
        assert made == ["3", "0", "3"]
        assert all(torch.equal(module.get_parameter(name), value) for name, value in {**expected, "5.weight": other}.items())
    replaced = variants.weights({"5": INT4}, beside={"5.weight": other})
    assert (len(replaced), replaced["5.weight"] is other) == (1, True)


def test_errors_name_layer_and_scheme() -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(1e7)
    layers = discover(module, [batch_of("mlp")]).layers
    with pytest.raises(NumericsError, match=r"^layer '0' at int4-g8: a scale of .* does not fit fp16 \(at most 65504\)"):
        Variants(module, layers, RoundToNearest()).weight("0", INT4)
