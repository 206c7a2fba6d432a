"""A Hugging Face folder with the unchanged artifact; Transformers loads it packed once mpq is imported.

model.mpq.safetensors   the artifact; of one in several files these files, and model.mpq.safetensors.index.json
config.json             the model's, with a quantization_config that names the artifact
README.md               the model card
plan.yaml               the plan, without the paths of this machine
report.html             what `mpq report` shows, where its analysis is there
tokenizer…              as in the original folder
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from mpq.export.abilities import Abilities, ExportError
from mpq.export.base import Options, Target, Written
from mpq.export.nearest_scheme import without_idle_group
from mpq.export.output_place import staged
from mpq.export.source import Source
from mpq.export.weights.hf_folder import CONFIG, config_with, copy_tokenizer
from mpq.export.weights.huggingface.card import Card, card_text
from mpq.export.weights.huggingface.original_card import original_facts
from mpq.export.weights.reopen import original_path
from mpq.files import OutputError, write_text
from mpq.formats.scheme import Scheme
from mpq.records.artifact_files import artifact_files
from mpq.records.artifact_plans import plans_beside
from mpq.records.hub_config import INDEX, METHOD, VERSION, WEIGHTS
from mpq.records.hub_name import hub_name
from mpq.records.layer import Layer
from mpq.records.plan import Plan, plan_to_yaml, read_plan


class HuggingFace(Target):
    """Every scheme, because the weights stay those of the artifact."""

    ending = "-huggingface"
    abilities = Abilities(bits=())
    keeps_rest = True
    keeps_artifact = True

    def closest(self, name: str, scheme: Scheme, matrix: tuple[int, int]) -> Scheme | None:
        """The scheme itself."""
        return without_idle_group(scheme, matrix)

    def expresses(self, layer: Layer, scheme: Scheme) -> bool:
        """Every scheme."""
        return True

    def check(self, source: Source, options: Options) -> None:
        """Refuse what Transformers cannot load from a folder without code.

        Raises:
            ExportError: saying which.
        """
        if source.kind != "hf":
            raise ExportError(f"this target only supports Hugging Face models, but {source.path} is of kind {source.kind}: use pt2 or onnx")
        if not source.artifact.config:
            raise ExportError(f"{source.path} needs the model's own code, which this folder does not contain")

    def check_place(self, output: Path) -> None:
        """Refuse a folder with a model of another kind.

        Raises:
            OutputError: naming it.
        """
        super().check_place(output)
        found = output / CONFIG
        if found.exists() and f'"{METHOD}"' not in found.read_text(encoding="utf-8", errors="replace"):
            raise OutputError(f"{output} holds another model: choose another place with --output")

    def write(self, source: Source, output: Path, options: Options) -> Written:
        """Write weights, tokenizer, plan, report and card, then config.json, without which nothing loads the folder."""
        plan, original = _plan(source, options), original_path(source, options)
        base = options.base_model or _repo(source)
        facts = original_facts(original)
        card = Card(_title(source), source, plan, base, facts, options.evaluation, has_report=options.report is not None)
        with staged(output, last=CONFIG) as folder:
            weights = _copy_weights(source, folder)
            notes = copy_tokenizer(original, folder)
            if plan is not None:
                write_text(folder / "plan.yaml", plan_to_yaml(plan))
            if options.report is not None:
                write_text(folder / "report.html", options.report)
            write_text(folder / "README.md", card_text(card))
            config = config_with(source.artifact.config, _quantization(source, plan, weights))
            write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        return Written(output, (*notes, *_notes(card, options), f"use: import mpq, then {card.auto_class}.from_pretrained('{output}')"))


def without_paths(plan: Plan) -> Plan:
    """The plan with the names of its model and data instead of their paths on this machine."""
    model, data = dict(plan.model), dict(plan.data)
    if model.get("path") is not None and hub_name(model["path"]) is None:
        model["path"] = PurePath(str(model["path"])).name
    if "source" in data:
        path, mark, rest = str(data["source"]).partition("?")
        data["source"] = f"{PurePath(path).name}{mark}{rest}"
    return replace(plan, model=model, data=data)


def _plan(source: Source, options: Options) -> Plan | None:
    """The plan of an artifact: the given one, or the first one next to it."""
    if options.plan is not None:
        return without_paths(read_plan(options.plan))
    found = next(plans_beside(source.path, source.artifact), None)
    return None if found is None else without_paths(found[1])


def _copy_weights(source: Source, folder: Path) -> str:
    """Copy the files of the artifact; returns the name of the main one."""
    files = artifact_files(source.path)
    if len(files) == 1 and not _index_of(source.path):
        shutil.copyfile(files[0], folder / WEIGHTS)
        return WEIGHTS
    for file in files:
        shutil.copyfile(file, folder / file.name)
    index = _index_of(source.path)
    assert index is not None
    shutil.copyfile(index, folder / INDEX)
    return INDEX


def _index_of(path: Path) -> Path | None:
    if path.is_dir():
        return next(iter(sorted(path.glob("*.mpq.safetensors.index.json"))), None)
    return path if path.name.endswith(".index.json") else None


def _quantization(source: Source, plan: Plan | None, weights: str) -> dict[str, Any]:
    """The quantization_config for config.json; the header of the artifact is authoritative."""
    schemes = Counter(str(scheme) for scheme in source.stored.values())
    found: dict[str, Any] = {"quant_method": METHOD, "version": VERSION, "weights": weights}
    found["effective_bits"] = round(8 * _layer_bytes(source) / sum(rows * columns for rows, columns in source.matrices.values()), 4)
    return found | {"layers_by_scheme": dict(sorted(schemes.items()))}


def _layer_bytes(source: Source) -> int:
    return sum(scheme.stored_bits(source.held(name)) // 8 for name, scheme in source.stored.items())


def _title(source: Source) -> str:
    path = _repo(source) or source.model.get("path") or source.path.name.partition(".")[0]
    return f"{PurePath(str(path)).name}-mpq"


def _repo(source: Source) -> str | None:
    """`org/name` of a model that came from the hub."""
    name = hub_name(source.model.get("path"))
    return None if name is None else name.repo


def _notes(card: Card, options: Options) -> list[str]:
    """Notes on missing parts that readers of the folder would expect."""
    notes = []
    if card.plan is None:
        notes.append("the artifact's plan is not next to it: the card has no evidence, and the folder no plan.yaml")
    if not card.has_report:
        notes.append("the analysis was not found, so the folder has no report.html")
    if card.base is None:
        notes.append("the card names no base model of the hub: --base-model ORG/NAME adds it")
    if card.evaluation is None:
        notes.append("the card has no values from independent test data: --evaluation FILE adds those of `mpq eval --json`")
    path = card.source.model.get("path")
    if path is not None and hub_name(path) is None and PurePath(str(path)).name != str(path):
        notes.append(f"the artifact contains the path of the original model, {path}, which anyone with the folder can read")
    return notes
