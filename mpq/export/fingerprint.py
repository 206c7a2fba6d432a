"""What an export should contain and compute, from the artifact and from the export read back.

Layers are found in the file by name; in an OpenVINO model, by their weights. The weights read back must be the artifact's. The checksums in
the fingerprint are those of the file, because some formats reorder rows or round values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpq.data.batch import Batch
from mpq.data.checksums import checksum
from mpq.data.fixed_inputs import FixedInput, fixed_like
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.llama_names import gguf_name
from mpq.export.source import Source
from mpq.export.stored.base import Held, Place
from mpq.export.stored.read import held_in
from mpq.export.weights.calls import Call, takes_tokens
from mpq.export.weights.compare import SUPPRESSED, first_sample, half_of_the_digits, inputs_of, rounded_inputs, that_count
from mpq.export.weights.gguf.target import row_order
from mpq.export.weights.quiet import quiet
from mpq.export.weights.reopen import quantized_module, simulated_module
from mpq.models.layers.state_tensors import state_of
from mpq.models.running.forward import main_output, named, outputs_of
from mpq.models.running.layer_outputs import LayerOutputs
from mpq.records.fingerprint import VERSION, Fingerprint, InputFacts, LayerFingerprint, OutputFacts
from mpq.records.layer import Layer
from mpq.tensors.matrix import from_matrix
from mpq.tensors.quantized import QuantizedWeight

VALUES = 64
"""Values of each output that are kept."""
_ROUNDED = ("executorch", "gguf")  # their kernels round inputs to 8 bits
_SINGLE = ("executorch",)
_OWN_OUTPUTS = ("pt2", "executorch")  # return all outputs; the others return the main output, except for exported programs
_TIMES_ROUNDING = 3
_STEP = 2.0**-7
_CLOSE = 2.0**-8  # share of the largest weight: rounding of 16-bit values
_ONE_CODE = 2.0**-6  # of a row whose scale became positive


def fingerprint_of(source: Source, target: str, export: Path, options: Options) -> Fingerprint:
    """The fingerprint of the export of `source` at `export`.

    Args:
        source: the artifact, with the exported schemes.
        target: the target.
        export: the written export.
        options: the choices of the export.

    Raises:
        ExportError: if the export does not have the artifact's weights.
    """
    module = simulated_module(source, options)
    tokens = takes_tokens(module, source, options)
    call = inputs_of(module, source, options)
    below = int(source.artifact.config.get("vocab_size") or 2) if tokens else None
    fixed, call = _fixed(first_sample(call) if target in _SINGLE else call, below)
    main = tokens if target in _OWN_OUTPUTS else source.kind != "export"
    outputs, given = _run(module, source, call, main=main)
    nested = target == "pt2" and not all(isinstance(leaf, Tensor) for leaf in (*call.args, *call.kwargs.values()))
    held = held_in(target, export, list(_candidates(source, target)))
    layers = _layers(source, target, held, given)
    places = {layer.place for layer in layers.values()}
    others = {} if held is None else {name: checksum(tensor) for name, tensor in held.tensors.items() if name not in places}
    return Fingerprint(
        mpq_fingerprint=VERSION,
        target=target,
        tolerance=_tolerance(source, target, options, call, outputs, main=main),
        inputs=[] if nested else [InputFacts(**(asdict(each) | {"shape": list(each.shape)})) for each in fixed],
        names=[name for name, leaf in call.kwargs.items() if isinstance(leaf, Tensor)],
        outputs=[] if nested else [_output(name, tensor) for name, tensor in outputs.items()],
        layers=layers,
        tensors=others,
        ties=dict(source.artifact.aliases),
    )


def _tolerance(source: Source, target: str, options: Options, call: Call, outputs: Mapping[str, Tensor], *, main: bool) -> float:
    """How far an output may be from the artifact's; where activations are integers, a few times what rounding them changes here."""
    if not source.activations:
        return rounded_inputs(source) if target in _ROUNDED else half_of_the_digits(source)
    floating, _ = _run(quantized_module(source, options), source, call, main=main)
    shares = [_share(outputs[name], floating[name]) for name in outputs]
    return _short(min(max(_TIMES_ROUNDING * max(shares), _STEP), rounded_inputs(source)))


def _share(values: Tensor, others: Tensor) -> float:
    """The largest difference of two outputs as a share of the largest value."""
    counts = that_count(values) & others.isfinite()
    apart = (values[counts].double() - others[counts].double()).abs()
    return float(apart.max()) / (float(values[counts].abs().max()) or 1.0) if apart.numel() else 0.0


def kept_values(tensor: Tensor) -> list[float | None]:
    """Values of an output at evenly spaced places; None if one is not finite or means "impossible"."""
    flat = tensor.detach().reshape(-1)
    places = torch.linspace(0, max(len(flat) - 1, 0), min(VALUES, len(flat)), dtype=torch.float64).round().long()
    return [_short(value) if SUPPRESSED < value < float("inf") else None for value in flat[places].double().tolist()]


def _short(value: float) -> float:
    """Rounded to the digits of a float32."""
    return float(f"{value:.8g}")


def _output(name: str, tensor: Tensor) -> OutputFacts:
    values = tensor.double()
    counts = values[that_count(values)]
    largest = _short(float(counts.abs().max())) if counts.numel() else 0.0
    return OutputFacts(name, list(tensor.shape), largest, kept_values(tensor))


def _fixed(call: Call, below: int | None) -> tuple[list[FixedInput], Call]:
    """Descriptions of the inputs of a call, and the call with these values."""
    fixed: list[FixedInput] = []

    def made(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        fixed.append(fixed_like(leaf, below=below))
        return fixed[-1].tensor(len(fixed) - 1)

    args, kwargs = pytree.tree_map(made, (call.args, call.kwargs))
    return fixed, Call(args, kwargs, call.dynamic)


def _run(module: nn.Module, source: Source, call: Call, *, main: bool) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """The outputs of the artifact, and the magnitudes of its layers' outputs."""
    state = state_of(module)
    watch = LayerOutputs({layer.name: state[layer.parameters[0]] for layer in source.artifact.layers})
    with torch.no_grad(), quiet(), watch:
        result = module(*call.args, **call.kwargs)
    return named(outputs_of(main_output(result)[1] if main else result, Batch(call.args, call.kwargs))), watch.found


def _candidates(source: Source, target: str) -> Iterator[Place]:
    """Where each layer may be in the file."""
    for layer in source.artifact.layers:
        scheme = source.schemes[layer.name]
        for name in _names(layer.name, target):
            yield Place(name, scheme, layer.matrix)


def _names(layer: str, target: str) -> tuple[str, ...]:
    flat = layer.replace(".", "__")
    known = {"gguf": (gguf_name(layer) or layer,), "pt2": (flat, f"model.{flat}"), "openvino": (layer, f"{layer}.codes")}
    return known.get(target, (layer,))


def _layers(source: Source, target: str, held: Held | None, given: Mapping[str, tuple[float, float]]) -> dict[str, LayerFingerprint]:
    weights = {} if held is None else held.weights
    by_content = {checksum(weight.dequantize()): place for place, weight in weights.items()} if target == "openvino" else {}
    layers = {layer.name: layer for layer in source.artifact.layers}
    found = {}
    for name, weight in source.weights():
        own, output = weight.dequantize(), [_short(each) for each in given[name]] if name in given else None
        names = _names(name, target)
        place = by_content.get(checksum(own)) or next((each for each in names if each in weights), None)
        if place is None or held is None:
            found[name] = LayerFingerprint(name, str(weight.scheme), list(weight.matrix), output=output)
            continue
        orders, read = _orders(layers[name], own, source, target), weights[place].dequantize()
        if source.activations and not _is_close(orders, read, _CLOSE):  # batch norms are folded into rows
            orders, output = [_scaled_like(each, read) for each in orders if each.shape == read.shape], None
        is_turned = target == "openvino" and not orders  # [columns, rows]: checked by its parts alone
        if not is_turned:
            _check_same(name, orders, read, target, _ONE_CODE if source.activations else _CLOSE)
        found[name] = layer_facts(place, weights[place], held.uses.get(place, ()), output)
    return found


def layer_facts(place: str, weight: QuantizedWeight, uses: Sequence[str], output: list[float] | None = None) -> LayerFingerprint:
    """The fingerprint of a weight in a file."""
    scales = None if weight.scales is None else weight.scales.float()
    return LayerFingerprint(
        place,
        str(weight.scheme),
        list(weight.matrix),
        weights=checksum(weight.dequantize()),
        codes=None if scales is None else checksum(weight.codes),
        scales=None if scales is None else checksum(scales),
        row_scales=None if scales is None else checksum(scales.sort(dim=1).values),
        all_scales=None if scales is None else checksum(scales.flatten().sort().values),
        zero_points=None if weight.zero_points is None else checksum(weight.zero_points),
        uses=list(uses),
        output=output,
    )


def _orders(layer: Layer, own: Tensor, source: Source, target: str) -> list[Tensor]:
    """A weight [rows, columns] in each order that a target may use."""
    rows = row_order(layer.name, source.artifact.config, len(own)) if target == "gguf" else None
    if rows is not None:
        return [own[rows]]
    in_shape = from_matrix(own, layer.shape, layer.axes, layer.groups)  # if values keep the model's own shape
    return [own, in_shape.reshape(own.shape)]


def _scaled_like(own: Tensor, read: Tensor) -> Tensor:
    """A weight times a factor for each row, so that it is as near to `read` as it can be."""
    factors = (own * read).sum(1, keepdim=True) / own.square().sum(1, keepdim=True).clamp_min(1e-30)
    return own * factors


def _is_close(orders: Sequence[Tensor], read: Tensor, limit: float) -> bool:
    """Whether a weight that was read is the artifact's, in one of its orders, up to a share of the largest value."""
    return any(own.shape == read.shape and float((own - read).abs().max()) <= limit * float(own.abs().max()) for own in orders)


def _check_same(name: str, orders: Sequence[Tensor], read: Tensor, target: str, limit: float) -> None:
    """Refuse an export whose weights differ from the artifact's."""
    if not _is_close(orders, read, limit):
        raise ExportError(f"the {target} export does not hold the weights of '{name}' as written: this is a bug in mpq, please report it")
