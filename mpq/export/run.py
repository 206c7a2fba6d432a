"""Export: converts a plan or an artifact for another program."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from mpq.errors import UsageError
from mpq.export.abilities import ExportError
from mpq.export.base import Options, Target
from mpq.export.nearest_scheme import without_idle_group
from mpq.export.registry import PROGRAMS, target_named
from mpq.export.source import Source, open_source
from mpq.formats.activations import DYNAMIC
from mpq.formats.matrix import alike_rows
from mpq.formats.scheme import Scheme
from mpq.records.activations import around_zero, summary
from mpq.records.artifact_files import artifact_files
from mpq.records.fingerprint import fingerprint_path, write_fingerprint
from mpq.shown import counted, listed
from mpq.writing.outputs import refuse_inputs

_SHOWN = 12
_HAS = ("has", "have")


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: the file or folder.
        bytes: its size on disk.
        source_bytes: size of the artifact, or the size that the plan predicts for it.
        layer_bytes: bytes of the layers in mpq's own storage, before and after replacements.
        weights: whether weights were written, or text only.
        replaced: layers whose scheme changed, with the old and the new scheme.
        notes: what the user should know.
        fingerprint_bytes: size of the fingerprint that was written with it, 0 without one.
    """

    path: Path
    bytes: int
    source_bytes: int
    layer_bytes: tuple[int, int]
    weights: bool
    replaced: dict[str, tuple[Scheme, Scheme]]
    notes: tuple[str, ...]
    fingerprint_bytes: int = 0


def export(
    source: Path | str, target: str, output: Path | str | None = None, *, nearest: bool = False, options: Options | None = None
) -> Exported:
    """Write a plan or an artifact for another program.

    Args:
        source: the plan or the artifact.
        target: name of the target, see `mpq.export.registry.TARGETS`.
        output: the path to write; next to the source by default.
        nearest: if the target lacks a layer's scheme, use the next one that represents the same values.
        options: the user's other choices.

    Raises:
        OutputError: if `output` cannot be written to, or is an input.
        UsageError: if ranges around 0 are asked for where they are not possible.
        ExportError: if the target does not support a layer's scheme and `nearest` is off, if the next schemes exceed the plan's budget, or
            if the target does not support the model.
    """
    chosen, given = options or Options(), open_source(Path(source))
    goal = target_named(target)
    if goal.needs_weights:
        given.artifact  # noqa: B018
    place = Path(output) if output is not None else given.path.with_name(_stem(given) + goal.ending)
    goal.check_place(place)
    _refuse_symmetric(given, goal, chosen)
    for file in goal.places(place):
        refuse_inputs(file, _inputs(given, chosen))
    goal.check(given, chosen)
    schemes = expressed(given, goal, target=target, nearest=nearest)
    replaced = {
        name: (given.schemes[name], scheme)
        for name, scheme in schemes.items()
        if scheme != without_idle_group(given.schemes[name], given.matrices[name])
    }
    wanted = given.with_schemes(schemes) if goal.keeps_activations else replace(given.with_schemes(schemes), activations={})
    wanted = replace(wanted, activations=around_zero(wanted.activations)) if chosen.symmetric else wanted
    _keep_budget(wanted, goal, target=target)
    fingerprint_path(place).unlink(missing_ok=True)  # one of an earlier export would not match
    written = goal.write(wanted, place, chosen)
    size, layer_bytes = written.bytes, (given.layer_bytes, wanted.layer_bytes)
    is_proven = target in PROGRAMS and chosen.fingerprint
    fingerprint = _fingerprinted(wanted, target, written.path, chosen) if is_proven else None
    notes = (*_unpacked(given, goal), *_repeated(given, goal), *_rest_notes(given, goal), *_activation_notes(given, wanted))
    notes = (*notes, *_channel_notes(given), *written.notes)
    notes = notes if fingerprint is None else (*notes, _prove(fingerprint, written.path, target))
    beside = 0 if fingerprint is None else fingerprint.stat().st_size
    return Exported(written.path, size, given.bytes, layer_bytes, goal.needs_weights, replaced, notes, beside)


def _refuse_symmetric(given: Source, goal: Target, options: Options) -> None:
    if not options.symmetric:
        return
    if not goal.has_symmetric:
        raise UsageError("--symmetric is for the integer activations of --to onnx: leave it out")
    if not given.activations:
        raise UsageError(f"--symmetric is for integer activations, and {given.path} has none: analyze with --activations 8")
    dynamic = [name for name, group in given.activations.items() if group.scheme == DYNAMIC]
    if dynamic:
        raise UsageError(
            f"--symmetric is for fixed ranges, and {listed(dynamic, _SHOWN)} {_HAS[len(dynamic) > 1]} a8d: use --activations 8"
        )


def _channel_notes(given: Source) -> list[str]:
    """What to tell of equalized channels, which an artifact has in its weights and another quantizer does not know of."""
    if given.plan is None or not given.plan.equalization:
        return []
    return ["the plan has equalized channels, and the other program quantizes the model without them: its errors will be larger"]


def _activation_notes(given: Source, wanted: Source) -> list[str]:
    """What to tell of tensors between layers that are integers."""
    if wanted.activations:
        return [f"activations: {summary(wanted.activations)}"]
    if given.activations:
        return [f"activations stay in floating point, since this target writes weights alone: the plan has {summary(given.activations)}"]
    return []


def _rest_notes(source: Source, goal: Target) -> list[str]:
    """Notes if unquantized tensors are not stored as in the plan or the artifact."""
    dtype = source.header.rest_dtype if source.header is not None else source.plan.rest.dtype if source.plan is not None else None
    if dtype is None or goal.keeps_rest:
        return []
    if not goal.needs_weights:
        return [f"the plan stores unquantized tensors in {dtype}, which this format cannot record"]
    return [f"unquantized tensors have the values that the artifact stores in {dtype}, but are written in the model's own dtypes"]


def _fingerprinted(source: Source, target: str, export: Path, options: Options) -> Path:
    """Write the fingerprint of an export; returns its file."""
    from mpq.export.fingerprint import fingerprint_of

    return write_fingerprint(export, fingerprint_of(source, target, export, options))


def _prove(fingerprint: Path, export: Path, target: str) -> str:
    size, command = fingerprint.stat().st_size, f"mpq verify {shlex.quote(str(export))} --with {PROGRAMS[target]}"
    return f"its fingerprint is {fingerprint.name}, {size:,} bytes; check what loads with: {command}"


def _unpacked(source: Source, goal: Target) -> list[str]:
    """A note on coded layers: other programs get them as int8."""
    if not source.coded or goal.keeps_artifact:
        return []
    before = sum(source.stored[name].stored_bits(source.held(name)) // 8 for name in source.coded)
    after = sum(source.schemes[name].stored_bits(source.matrices[name]) // 8 for name in source.coded)
    values = " with the same values" if goal.needs_weights else ""
    layers = counted(len(source.coded), "coded layer")
    return [f"{layers} as int8{values}: {before:,} bytes become {after:,}, because only mpq unpacks the codes"]


def _repeated(source: Source, goal: Target) -> list[str]:
    """A note on tables whose common row is stored once: other programs get each row."""
    if goal.keeps_artifact or not goal.needs_weights:
        return []
    return [
        f"{alike_rows(matrix):,} rows of {name} are one common row, which only mpq stores once: each of them is written"
        for name, matrix in source.shared.items()
    ]


def _inputs(source: Source, options: Options) -> list[Path | None]:
    """The inputs of an export: the source, all its files, the original model, and data."""
    model = source.model.get("path")
    named = [source.path.parent / str(model), Path(str(model))] if model is not None else []
    data = None if options.data is None else Path(options.data.partition("?")[0])
    parts = [] if source.header is None else artifact_files(source.path)
    return [source.path, *parts, *named, options.model, data]


def expressed(source: Source, goal: Target, *, target: str, nearest: bool) -> dict[str, Scheme]:
    """A scheme of the target for each layer.

    Raises:
        ExportError: listing the layers whose scheme the target does not support.
    """
    found = {
        name: goal.closest(name, scheme, source.matrices[name]) if goal.takes(name) else without_idle_group(scheme, source.matrices[name])
        for name, scheme in source.schemes.items()
    }
    hopeless = [name for name, scheme in found.items() if scheme is None]
    if hopeless:
        raise ExportError(f"{target} cannot represent {_with_schemes(hopeless, source)}: choose other schemes for these layers")
    missing = [name for name, scheme in found.items() if scheme != without_idle_group(source.schemes[name], source.matrices[name])]
    if missing and not nearest:
        raise ExportError(f"{target} cannot represent {_with_schemes(missing, source)}: --nearest uses the next larger scheme for each")
    return {name: scheme for name, scheme in found.items() if scheme is not None}


def _keep_budget(source: Source, goal: Target, *, target: str) -> None:
    """Refuse schemes of the target that exceed the plan's budget. Coded layers count as in the plan; `_unpacked` tells what they take.

    Raises:
        ExportError: with the excess bytes, and candidates that the target supports.
    """
    if source.plan is None or source.plan.budget is None:
        return
    as_int8 = {name: source.stored[name] for name in source.coded if source.schemes[name] == Scheme("int8")}
    schemes = source.schemes | as_int8
    taken, limit, _ = source.plan.with_layers(schemes).counted(source.plan.budget)
    if taken > limit:
        bits = ",".join(str(number) for number in goal.abilities.bits)
        raise ExportError(
            f"the next larger schemes that {target} supports are {taken - limit:,} bytes over the plan's budget of {source.plan.budget}: "
            f"search again with --candidates '*={bits},16'"
        )


def _with_schemes(names: list[str], source: Source) -> str:
    return listed([f"{name} ({source.schemes[name]})" for name in names], _SHOWN)


def _stem(source: Source) -> str:
    name = source.path.name.removesuffix(".index.json").removesuffix(".safetensors").removesuffix(".mpq")
    return name if source.header is not None else str(Path(str(source.model.get("path") or source.path)).stem)
