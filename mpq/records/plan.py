"""The plan: which scheme each layer uses, why, and how big the result is. YAML, meant to be read, edited and committed. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from mpq.budget import Budget
from mpq.errors import BudgetError, FormatError, MismatchError, SchemeError
from mpq.files import check_version, write_text
from mpq.formats.matrix import alike_rows
from mpq.formats.scheme import Scheme
from mpq.reading.documents import Document, read_yaml
from mpq.reading.validate import validated
from mpq.records.activations import Groups, groups_in, header_bytes, to_dict
from mpq.records.artifact_layout import file_bytes, layer_header_bytes
from mpq.records.equalization import Chain, chains_of, chains_text
from mpq.records.facts import scheme_in
from mpq.records.finalist_names import plain_evidence
from mpq.records.layer import Layer
from mpq.records.plan_file import ANALYSED, ROUNDED, VERSION, BudgetFacts, PlanFile, check_names, matrices_in, shape_text
from mpq.records.plan_size import Size
from mpq.records.plan_table import layer_rows, layers_page
from mpq.records.sensitivity_header import Rest
from mpq.records.stored_sketches import sketch_bytes
from mpq.records.yaml_text import yaml_key, yaml_text
from mpq.shown import bits_text, figure, shown

if TYPE_CHECKING:
    import pandas as pd

_REMEDY = "correct it, or run `mpq search` again"


@dataclass(frozen=True, repr=False)
class Plan:
    """A scheme for each layer.

    Args:
        model: path, sha256, kind and, for a state dict, factory.
        budget: the limit it was solved for; None for a plan written by hand.
        quantizer: the quantizer that measured it and that must apply it.
        layers: scheme by layer name, in model order.
        shapes: (rows, columns) by layer name.
        original_bytes: bytes of the layers before quantization.
        rest: the constant part of the artifact.
        axes: output axes by layer name, where they are not (0,).
        groups: of a grouped transposed convolution, by layer name; see `Layer`.
        pinned: layers whose scheme the user fixed.
        ties: groups of layers that share one scheme.
        data: how to read and split the data of the analysis again, with its sha256; quantizers that need statistics collect them on it.
        analysis: path and sha256 of the sensitivity file's first line; empty for a plan that was not searched from a file.
        evidence: what is known about its error; see `docs/formats.md`.
        remarks: by layer name, for people: written as comments next to the layers, and never read.
        activations: groups of tensors between layers that are integers, by name; all others are floating point.
        equalization: channels to scale before weights are quantized.
        sketches: layers whose inputs the artifact's sketches for `mpq monitor` watch; None if it has no sketches.
    """

    model: dict[str, Any]
    budget: Budget | None
    quantizer: str
    layers: dict[str, Scheme]
    shapes: dict[str, tuple[int, int]]
    original_bytes: int
    rest: Rest
    axes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    analysis: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict, compare=False)
    activations: Groups = field(default_factory=dict)
    equalization: tuple[Chain, ...] = ()
    sketches: tuple[str, ...] | None = None

    @property
    def size(self) -> Size:
        """The size of what `mpq apply` writes, computed from schemes and shapes, exact to the byte."""
        data = sum(scheme.stored_bits(self.shapes[name]) // 8 for name, scheme in self.layers.items())
        header = sum(layer_header_bytes(name, self.shapes[name], scheme) for name, scheme in self.layers.items())
        header += header_bytes(self.activations) + sketch_bytes(self.sketches)
        total = file_bytes(header_bytes=self.rest.header_bytes + header, data_bytes=self.rest.data_bytes + data)
        return Size(8 * data / self.weights, data, total, 8 * total / (self.weights + self.rest.weights))

    @property
    def weights(self) -> int:
        """Number of weights of the searched layers."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    def __repr__(self) -> str:
        size, budget = self.size, "" if self.budget is None else f", budget {self.budget}"
        return f"<Plan: {len(self.layers):,} layers, {bits_text(size.effective_bits)} bits per weight, {size.file_bytes:,} bytes{budget}>"

    def _repr_html_(self) -> str:
        told = self.evidence if self.evidence_is_current else {}
        error = told.get("measured", {}).get("held_out", told.get("predicted"))
        kind = f"; {'held-out' if 'measured' in told else 'predicted'} {told.get('metric', 'error')} "
        title = repr(self)[1:-1] + ("" if error is None else kind + figure(error))
        return layers_page(title, layer_rows(self.layers, self.shapes, self.pinned))

    def frame(self) -> pd.DataFrame:
        """One row per layer, in model order: layer, scheme, rows, columns, weights, bytes, effective_bits, pinned."""
        import pandas as pd

        return pd.DataFrame(layer_rows(self.layers, self.shapes, self.pinned))

    def counted(self, budget: Budget) -> tuple[int, int, int]:
        """This plan measured against `budget`: bytes used, bytes allowed, and the weights that bits are counted over."""
        taken, weights, original = self.size.layer_bytes, self.weights, self.original_bytes
        if budget.scope == "file":
            taken, weights, original = self.size.file_bytes, weights + self.rest.weights, original + self.rest.original_bytes
        return taken, budget.bytes(weights=weights, original_bytes=original), weights

    @property
    def assignment(self) -> str:
        """A short digest of the schemes; evidence holds it, so that evidence for another assignment is detected."""
        return assignment_of(self.layers, self.activations)

    @property
    def evidence_is_current(self) -> bool:
        """Whether the evidence belongs to these schemes."""
        return self.evidence.get("assignment") == self.assignment

    def layer(self, name: str, parameters: tuple[str, ...], shape: tuple[int, ...], dtype: str, *, source: str) -> Layer:
        """One of its layers, given what `source` says of the tensor.

        Raises:
            MismatchError: if it has another shape than the plan says.
        """
        rows, columns = self.shapes[name]
        layer = Layer(name, parameters, shape, self.axes.get(name, (0,)), dtype, groups=self.groups.get(name, 1))
        fits = max(layer.axes) < len(shape) and (layer.groups == 1 or (len(shape) > 2 and not shape[0] % layer.groups))
        if not fits or layer.matrix != (rows, columns):
            found = "x".join(map(str, layer.matrix if fits else shape))
            raise MismatchError(f"'{name}' is {rows}x{columns} in the plan and {found} in {source}: analyze it again")
        return replace(layer, alike=alike_rows(self.shapes[name]))

    @property
    def held_out_error(self) -> float | None:
        """The error on held-out samples, after training where the plan's artifact was trained; None if nothing was measured."""
        recovered = self.evidence.get("recovery", {}).get("after")
        found = self.evidence.get("measured", {}).get("held_out") if recovered is None else recovered
        return None if found is None else float(found)

    def with_layers(self, layers: Mapping[str, Scheme]) -> Plan:
        """The same plan with other schemes and the same activations, no evidence and no remarks."""
        return replace(self, layers=dict(layers), evidence={}, remarks={})


def assignment_of(layers: Mapping[str, Scheme], activations: Groups | None = None) -> str:
    """A short digest of the schemes of layers, independent of their order, and of the activations if there are any."""
    text = "\n".join(f"{name}: {scheme}" for name, scheme in sorted(layers.items()))
    if activations:
        text += "\n" + json.dumps(to_dict(activations), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plan_for(layers: Iterable[Layer], schemes: Mapping[str, Scheme], *, model: dict[str, Any], quantizer: str, rest: Rest) -> Plan:
    """A plan without a budget: `schemes` for `layers`, in model order."""
    ordered = list(layers)
    return Plan(
        model=model,
        budget=None,
        quantizer=quantizer,
        layers={layer.name: schemes[layer.name] for layer in ordered},
        shapes={layer.name: layer.matrix for layer in ordered},
        original_bytes=sum(layer.original_bytes for layer in ordered),
        rest=rest,
        axes={layer.name: layer.axes for layer in ordered if layer.axes != (0,)},
        groups={layer.name: layer.groups for layer in ordered if layer.groups > 1},
    )


def plan_to_yaml(plan: Plan) -> str:
    """The text of a plan file."""
    size = plan.size
    rounded = bool(plan.activations or plan.equalization)
    version = VERSION if plan.sketches is not None else ROUNDED if rounded else ANALYSED if plan.analysis else 1
    head: dict[str, Any] = {"mpq_plan": version, "model": plan.model}
    if plan.data:
        head["data"] = plan.data
    if plan.analysis:
        head["analysis"] = plan.analysis
    if plan.budget is not None:
        head["budget"] = {"limit": plan.budget.limit, "scope": plan.budget.scope}
    head["quantizer"] = plan.quantizer
    head["size"] = {
        "effective_bits": round(size.effective_bits, 4),
        "layer_bytes": size.layer_bytes,
        "file_bytes": size.file_bytes,
        "file_effective_bits": round(size.file_effective_bits, 4),
        "unsearched_bytes": size.unsearched_bytes,
    }
    if plan.evidence:
        head["evidence"] = plan.evidence
    if plan.pinned:
        head["pinned"] = list(plan.pinned)
    if plan.ties:
        head["ties"] = [list(group) for group in plan.ties]
    text = yaml_text(head) + "layers:\n"
    for name, scheme in plan.layers.items():
        text += f"  {yaml_key(name)}: {scheme}{_comment(plan, name)}\n"
    if plan.activations:
        text += "# Tensors between layers that are 8-bit integers, by the operators that read them; all others are floating point.\n"
        text += yaml_text({"activations": to_dict(plan.activations)})
    if plan.equalization:
        text += chains_text(plan.equalization)
    if plan.sketches is not None:
        text += "# The artifact has sketches of the calibration data: of the model's inputs, outputs, and the inputs of these layers.\n"
        text += yaml_text({"sketches": list(plan.sketches)})
    text += "# What follows is for computing sizes without the model: rows x columns of each layer, and the part that no scheme changes.\n"
    text += "shapes:\n" + "".join(f"  {yaml_key(name)}: {shape_text(matrix)}\n" for name, matrix in plan.shapes.items())
    if plan.axes:
        text += yaml_text({"axes": {name: list(axes) for name, axes in plan.axes.items()}})
    if plan.groups:
        text += yaml_text({"groups": plan.groups})
    return text + yaml_text({"original_bytes": plan.original_bytes, "rest": plan.rest.to_dict()})


def _comment(plan: Plan, name: str) -> str:
    told = [*(["pinned"] if name in plan.pinned else []), *([plan.remarks[name]] if name in plan.remarks else [])]
    return f"  # {' '.join('; '.join(told).split())}" if told else ""


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan file, whole or not at all.

    Args:
        plan: the plan, as `search` found it or with layers changed.
        path: the file, usually plan.yaml; an existing file is replaced.

    Raises:
        OutputError: if it cannot be written.
    """
    write_text(Path(path), plan_to_yaml(plan))


def read_plan(path: Path | str) -> Plan:
    """The plan in a YAML file, as written by mpq or edited by hand.

    Raises:
        FormatError: if it is missing, not YAML, not a plan, from a newer version, or has an unknown key or a wrong value.
        SchemeError: if a layer names an unknown scheme.
        BudgetError: if its budget cannot be read.
    """
    document = read_yaml(Path(path), error=FormatError, absent="name a plan, as `mpq search` writes it", remedy=_REMEDY)
    data = document.value
    if not isinstance(data, dict):
        raise FormatError(f"{path} is not a plan: expected a mapping with mpq_plan, model and layers")
    check_version(data.get("mpq_plan"), supported=VERSION, path=path, kind="a plan")
    return _plan(validated(document, PlanFile), document)


def _plan(file: PlanFile, document: Document) -> Plan:
    layers = {name: scheme_in(document, text, "layers", name, error=SchemeError) for name, text in file.layers.items()}
    shapes = matrices_in(document, file.shapes, "shapes")
    check_names(document, file)
    strays = sorted(set(layers) ^ set(shapes))
    if strays:
        reason = f"layer {shown(strays[0])} is in only one of 'layers' and 'shapes': restore the line, or run `mpq search` again"
        raise document.refuse(reason, "layers" if strays[0] in layers else "shapes", strays[0])
    data = document.value
    return Plan(
        model=data["model"],
        budget=None if file.budget is None else _budget(document, file.budget),
        quantizer=file.quantizer,
        layers=layers,
        shapes=shapes,
        original_bytes=file.original_bytes,
        rest=Rest(**structs.asdict(file.rest)),
        axes={name: tuple(axes) for name, axes in file.axes.items()},
        groups=dict(file.groups),
        pinned=tuple(file.pinned),
        ties=tuple(tuple(group) for group in file.ties),
        data=data.get("data") or {},
        analysis=data.get("analysis") or {},
        evidence=plain_evidence(data.get("evidence") or {}),
        activations=groups_in(document, file.activations),
        equalization=chains_of(file.equalization),
        sketches=None if file.sketches is None else tuple(file.sketches),
    )


def _budget(document: Document, facts: BudgetFacts) -> Budget:
    try:
        return Budget(facts.limit, facts.scope)
    except BudgetError as error:
        raise BudgetError(f"{document.place('budget', 'limit')}: {error}") from error
