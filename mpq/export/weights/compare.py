"""Runs the export and the artifact on the same inputs, because a model may compute something different during export.

A forward can check for export (`torch.compiler.is_exporting`, `torch.jit.is_tracing`, `torch.onnx.is_in_onnx_export`), and a converter can
be wrong. Both run on one small batch: the user's data, else random inputs of the model's input shapes. The largest difference is reported
as a share of the largest value of that output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.activations.trace import trace
from mpq.data.batch import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source
from mpq.export.weights.calls import Call, call_of, takes_tokens
from mpq.export.weights.quiet import quiet
from mpq.export.weights.reopen import quantized_module, simulated_module
from mpq.formats.activations import LEVELS
from mpq.models.running.forward import main_output, named, outputs_of
from mpq.shown import first_line

Run = Callable[[Call], Sequence[Tensor]]
"""Runs what was exported, and gives the tensors that it returns, in order."""

_WHY = (
    "Either the model's forward checks whether it is being exported, or the conversion is wrong. Nothing was written; --no-compare writes "
    "it anyway"
)
_TOKENS = (2, 6)
SUPPRESSED = -1e4
"""Values from here down stand for "impossible"."""
_ROUNDING = 2**-8  # rounding of inputs to 8 bits, as a share of their range
_DEVIATIONS = 6
_TIMES_ROUNDING = 5  # rounded samples differ by chance: a batch has two
_LEAST = 2**-9  # share of an output: half a step of 8 bits


def compared(
    source: Source, options: Options, program: str, opened: Callable[[], Run], *, tolerance: float, main: bool, single: bool = False
) -> str:
    """A sentence on the difference between the outputs of the export and of the artifact.

    Args:
        source: the artifact.
        options: the user's choices.
        program: the program that runs the export, for messages.
        opened: loads the export.
        tolerance: largest difference of an output, as a share of its largest value.
        main: whether the export gives only the main output.
        single: whether it takes one sample at a time.

    Raises:
        ExportError: if the outputs differ.
    """
    if not options.compare:
        return "not compared with the artifact, as asked"
    module = simulated_module(source, options)  # loaded again, because tracing may have changed the exported module
    call = inputs_of(module, source, options)
    call = first_sample(call) if single else call
    own = _copy(call)
    with torch.no_grad(), quiet():
        result = module(*own.args, **own.kwargs)
    expected = named(outputs_of(main_output(result)[1] if main else result, Batch(own.args, own.kwargs)))
    try:
        with torch.no_grad(), quiet():
            found = [tensor for tensor in opened()(_copy(call)) if tensor.is_floating_point()]
    except Exception as error:  # a missing operator or runtime proves nothing about the file
        return f"not compared with the artifact: {program} does not run it here ({first_line(error)})"
    worst, name = _difference(expected, found, program)
    if not worst <= tolerance:
        raise ExportError(
            f"{program} gives different outputs than the artifact: '{name}' differs by {worst:.2g} of its largest value, more than its "
            f"arithmetic explains ({tolerance:.2g}). {_WHY}"
        )
    if source.activations:
        _refuse_beyond_rounding(_floating(source, options, call, main=main), expected, found, program)
    told = f"compared with the artifact by {program} on a small batch: outputs differ by at most {worst:.2g} of their largest value"
    return told + (f", {steps_apart(expected, found):.2f} steps of 8 bits of their range" if source.activations else "")


def _floating(source: Source, options: Options, call: Call, *, main: bool) -> list[Tensor]:
    """The outputs of the artifact with all tensors between layers in floating point."""
    module, own = quantized_module(source, options), _copy(call)
    with torch.no_grad(), quiet():
        result = module(*own.args, **own.kwargs)
    return list(named(outputs_of(main_output(result)[1] if main else result, Batch(own.args, own.kwargs))).values())


def _refuse_beyond_rounding(plain: Sequence[Tensor], expected: Mapping[str, Tensor], found: Sequence[Tensor], program: str) -> None:
    """Refuse outputs that are further from the simulation than a few times what rounding the tensors between layers does to them.

    Codes that fall to the other side of a step differ less than rounding itself does; what differs more is computed wrongly.

    Raises:
        ExportError: naming the output.
    """
    for (name, wanted), exact, got in zip(expected.items(), plain, found, strict=True):
        counts = that_count(wanted) & that_count(exact)
        apart, rounding = (_rms(wanted[counts], other[counts]) for other in (got, exact))
        least = _LEAST * float(wanted[counts].double().square().mean().sqrt()) if bool(counts.any()) else 0.0
        if apart > max(_TIMES_ROUNDING * rounding, least):
            raise ExportError(
                f"{program} gives different outputs than the artifact: '{name}' differs by {apart:.2g} (root mean square), "
                f"{apart / max(rounding, 1e-30):.0f} times what rounding its activations to integers changes. {_WHY}"
            )


def _rms(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).square().mean().sqrt()) if one.numel() else 0.0


def steps_apart(expected: Mapping[str, Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference of outputs, in steps of 8 bits of the range of the expected one, without suppressed classes."""
    most = 0.0
    for wanted, got in zip(expected.values(), found, strict=True):
        counts = that_count(wanted)
        own, other = wanted[counts].double(), got[counts].double()
        span = float(own.max() - own.min()) if len(own) else 0.0
        most = max(most, float((own - other).abs().max()) / (span / LEVELS)) if span else most
    return most


def operators_of(source: Source, options: Options) -> list[str]:
    """The operators that runtimes compute in integers, in the order of their calls, as far as the main output needs them."""
    module = quantized_module(source, options)
    call = inputs_of(module, source, options)
    with torch.no_grad(), quiet():
        return trace(_Main(module), Batch(call.args, call.kwargs), ()).reaching()


class _Main(nn.Module):
    """Gives only the main output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return main_output(self.module(*args, **kwargs))[1]


def half_of_the_digits(source: Source) -> float:
    """The tolerance for the same arithmetic in a different order: half of the digits of the layers' coarsest dtype."""
    return float(max(torch.finfo(getattr(torch, layer.dtype)).eps for layer in source.artifact.layers) ** 0.5)


def rounded_inputs(source: Source) -> float:
    """The tolerance if layers round their inputs to 8 bits of their range; the errors of layers add like independent ones."""
    return _DEVIATIONS * _ROUNDING * math.sqrt(1 + len(source.schemes))


def flat(call: Call) -> list[Tensor]:
    """The tensors of a call, positional ones first."""
    return [leaf for leaf in pytree.tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Tensor)]


def inputs_of(module: nn.Module, source: Source, options: Options) -> Call:
    """One call of the model: the user's samples, token ids, or random values in the shapes of the program's inputs."""
    if takes_tokens(module, source, options):
        most = int(source.artifact.config.get("vocab_size") or 2)
        generator = torch.Generator().manual_seed(0)
        return Call((torch.randint(0, most, _TOKENS, generator=generator),), {}, ((frozenset({0, 1}),), {}))
    call = call_of(module, source, options)
    if options.data is not None:
        return call
    generator = torch.Generator().manual_seed(0)
    args, kwargs = pytree.tree_map(lambda leaf: _random(leaf, generator), (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs)


def _random(leaf: Any, generator: torch.Generator) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_floating_point():
        return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
    return torch.randint(0, 2, leaf.shape, generator=generator).to(leaf.dtype)  # every table has at least two rows


def first_sample(call: Call) -> Call:
    """The first sample."""
    args, kwargs = pytree.tree_map(lambda leaf, axes: leaf[:1] if 0 in axes else leaf, (call.args, call.kwargs), call.dynamic)
    return replace(call, args=args, kwargs=kwargs)


def _copy(call: Call) -> Call:
    args, kwargs = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs)


def _difference(expected: dict[str, Tensor], found: Sequence[Tensor], program: str) -> tuple[float, str]:
    """The largest difference over all outputs, and the output's name; infinite if a value is finite in only one of the two."""
    shapes = [list(tensor.shape) for tensor in expected.values()], [list(tensor.shape) for tensor in found]
    if shapes[0] != shapes[1]:
        raise ExportError(f"{program} gives outputs of shape {shapes[1]}, the artifact of {shapes[0]}. {_WHY}")
    worst = (0.0, next(iter(expected)))
    for (name, wanted), got in zip(expected.items(), found, strict=True):
        worst = max(worst, (apart(wanted.double(), got.double()), name))
    return worst


def apart(wanted: Tensor, got: Tensor) -> float:
    """The largest difference of two outputs as a share of the largest value; infinite if a value is finite in only one of them."""
    counts = that_count(wanted)
    if not torch.equal(counts, that_count(got)) or not bool(counts.any()):
        return 0.0 if torch.equal(wanted.isfinite(), got.isfinite()) and torch.equal(wanted, got) else float("inf")
    scale = float(wanted[counts].abs().max())
    return float((wanted - got)[counts].abs().max()) / (scale or 1.0)


def that_count(values: Tensor) -> Tensor:
    """Which values of an output count, bool: those that are finite and do not stand for "impossible"."""
    return values.isfinite() & (values > SUPPRESSED)
