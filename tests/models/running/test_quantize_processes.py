import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpq.errors import NumericsError, UsageError
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.models.layers.discover import discover
from mpq.models.memory.store import Scope, Store
from mpq.models.running import quantize_processes
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.quantize_processes import one_thread, workers_of
from mpq.processors import processors
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.base import Statistics
from mpq.tensors.quantizers.gptq import Descent
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.cli import warm
from tests.models.layers.test_unquantized_tensors import batch_of
from tests.models.small import mlp
from tests.tensors.quantizers.making import statistics_of

SCHEMES = [parse_scheme(text) for text in ("int4-g8", "int3", "fp16", "nf4-g8")]


class Dying(RoundToNearest):
    """Ends its process the first time that it meets the second layer, as the system does where memory runs out."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        if matrix.shape[1] == 16 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().round(matrix, scheme, statistics)


class Strided(RoundToNearest):
    """Its scales are not in one piece, as those of some conv layers under descent."""

    def round(self, matrix: Tensor, scheme: Scheme, statistics: Statistics | None) -> QuantizedWeight:
        made = super().round(matrix, scheme, statistics)
        assert made.scales is not None
        return replace(made, scales=made.scales.repeat_interleave(2, 1)[:, ::2])


@pytest.fixture
def warm_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes are forked from a server that has imported torch."""
    monkeypatch.setattr(quantize_processes, "get_context", warm.context)


def filled(variants: Variants) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    variants.fill(dict.fromkeys(variants.layers, SCHEMES), lambda done, total, _: told.append((done, total)))
    return told


def test_the_codes_are_the_same_for_any_number_of_processes() -> None:
    module = mlp()
    layers = discover(module, [batch_of("mlp")]).layers
    known = {layers[0].name: statistics_of(layers[0].matrix[1])}
    found = []
    for workers in (1, 2):
        variants = Variants(module, layers, Descent(), statistics=known, workers=workers)
        assert filled(variants)[-1] == (3 * len(layers), 3 * len(layers))
        found.append({(name, scheme): variants.quantized(name, scheme) for name in variants.layers for scheme in SCHEMES})
    for pair, one in found[0].items():
        other = found[1][pair].pack()
        assert all(torch.equal(part, other[name]) for name, part in one.pack().items())


@pytest.mark.usefixtures("warm_pool")
def test_where_a_process_dies_the_others_layers_are_kept_and_the_rest_is_quantized_here(tmp_path: Path) -> None:
    module, store = mlp(), Store()
    layers = discover(module, [batch_of("mlp")]).layers
    variants = Variants(module, layers, Dying(tmp_path / "died"), codes=Scope(store, {}), workers=2)
    told = filled(variants)
    assert (tmp_path / "died").exists()
    assert told[-1] == (3 * len(layers), 3 * len(layers))
    (note,) = variants.notes
    assert re.match("a worker process was killed: ", note)
    expected = Variants(module, layers, RoundToNearest())
    for name in variants.layers:
        assert torch.equal(variants.weight(name, SCHEMES[0]), expected.weight(name, SCHEMES[0]))


@pytest.mark.usefixtures("warm_pool")
def test_parts_that_are_not_contiguous_come_back_too() -> None:
    module = mlp()
    layers = discover(module, [batch_of("mlp")]).layers
    variants = Variants(module, layers, Strided(), workers=2)
    filled(variants)
    assert torch.equal(variants.weight("0", SCHEMES[0]), Variants(module, layers, RoundToNearest()).weight("0", SCHEMES[0]))


@pytest.mark.usefixtures("warm_pool")
def test_an_error_in_a_process_names_layer_and_scheme() -> None:
    module = mlp()
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(1e7)
    variants = Variants(module, discover(module, [batch_of("mlp")]).layers, RoundToNearest(), workers=2)
    with pytest.raises(NumericsError, match=r"^layer '0' at int4-g8: a scale of .* does not fit fp16"):
        filled(variants)


def test_a_layer_is_quantized_by_one_thread() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_number_of_processes_is_what_was_asked_for_or_by_the_work() -> None:
    assert (workers_of("3", 1), workers_of("auto", 1000), workers_of("auto", 10**9)) == (3, 1, processors())
    for text in ("0", "-1", "two", "1.5", "99999", ""):
        with pytest.raises(UsageError, match=r"is not a number of processes: write 1, 2, \.\.\. or auto$"):
            workers_of(text, 1)
