"""The file of budgets: `mpq-budgets.yaml`, a list of rules, each for some files. No torch.

mpq_budgets: 1
budgets:
  - files: models/*/plan.yaml
    max_bits: 4.5
    max_error: 0.02
    baseline: origin/main
    max_growth: 1%
    forbid: {"*embed*": [int2, int3]}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from msgspec import structs

from mpq.budget import size_bytes
from mpq.check.budgets_file import BudgetsFile, RuleFile
from mpq.errors import BudgetError, ConfigError, SchemeError
from mpq.files import check_version
from mpq.formats.scheme import parse_scheme
from mpq.models.running.metric_registry import FIGURES
from mpq.reading.documents import Document, read_yaml
from mpq.reading.validate import validated
from mpq.shown import shown

VERSION = 1
DEFAULT = Path("mpq-budgets.yaml")
Schemes = Mapping[str, tuple[str, ...]]
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_MEASURING = ("metric", "reference", "seq_len", "num_samples")


@dataclass(frozen=True)
class Rule:
    """The limits for some files. None means no limit.

    Args:
        files: paths and globs, relative to the file of budgets.
        name: what the rule is called.
        max_bits: bits per weight over the layers.
        max_bytes: size of the file.
        max_loaded: bytes of the model in memory, as `mpq.load` holds it.
        max_loaded_packed: the same with `packed=True`.
        max_share: percent of the original size.
        max_error: held-out error; with `data`, how much worse than its reference an artifact is on that.
        data: samples to measure artifacts on, as `mpq eval --data` takes them.
        metric: of the evaluation; None uses KL divergence if the evaluation has it, else relative MSE.
        reference: the unquantized model; None uses the one that the artifact names.
        seq_len: tokens of a window, for text.
        num_samples: use only this many, spread evenly over the source.
        max_growth: percent that the size may be above the baseline's.
        max_error_growth: percent that the held-out error may be above the baseline's.
        baseline: a git revision, or a file.
        forbid: schemes or formats that layers must not use, by pattern.
        require: schemes or formats of which layers must use one, by pattern.
    """

    files: tuple[str, ...]
    name: str = ""
    max_bits: float | None = None
    max_bytes: int | None = None
    max_loaded: int | None = None
    max_loaded_packed: int | None = None
    max_share: float | None = None
    max_error: float | None = None
    data: str | None = None
    metric: str | None = None
    reference: str | None = None
    seq_len: int | None = None
    num_samples: int | None = None
    max_growth: float | None = None
    max_error_growth: float | None = None
    baseline: str | None = None
    forbid: Schemes = field(default_factory=dict)
    require: Schemes = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data is not None and self.max_error is None:
            raise ConfigError(f"`data` {shown(self.data)} has no effect without `max_error`")
        limits = [each.name for each in fields(self) if each.name.startswith("max_") or each.name in ("forbid", "require")]
        if not any(getattr(self, name) not in (None, {}) for name in limits):
            raise ConfigError(f"the rule for {shown(', '.join(self.files))} limits nothing: give one of {', '.join(limits)}")
        grows = next((name for name in ("max_growth", "max_error_growth") if getattr(self, name) is not None), None)
        if grows and self.baseline is None:
            raise ConfigError(f"{grows} needs a baseline: a git revision such as origin/main, or a file")
        alone = next((name for name in _MEASURING if getattr(self, name) is not None and self.data is None), None)
        if alone:
            raise ConfigError(f"{alone} has no effect without data: give data too, for example data: test.pt")
        if self.metric not in (None, *FIGURES):
            raise ConfigError(f"metric {shown(self.metric)} is unknown: use {', '.join(FIGURES)}")


def read_budgets(path: Path) -> list[Rule]:
    """The rules of a file.

    Raises:
        ConfigError: if it is missing, not YAML, or has an unknown key or a wrong value.
        FormatError: if it is from a newer version.
    """
    document = read_yaml(path, error=ConfigError, absent="`mpq check --init` writes one", remedy="`mpq schema budgets` lists all keys")
    data = document.value
    if not isinstance(data, dict) or not isinstance(data.get("budgets"), list) or not data["budgets"]:
        raise ConfigError(f"{path} is not a file of budgets: write 'mpq_budgets: {VERSION}' and a list 'budgets:'")
    check_version(data.get("mpq_budgets"), supported=VERSION, path=path, kind="a file of budgets")
    file = validated(document, BudgetsFile)
    return [_rule(entry, document, "budgets", number) for number, entry in enumerate(file.budgets)]


def rule_from(entry: object) -> Rule:
    """One rule from its mapping.

    Raises:
        ConfigError: if a key is unknown or a value is wrong.
    """
    document = Document(entry, "", ConfigError, "`mpq schema budgets` lists all keys")
    return _rule(validated(document, RuleFile), document)


def _rule(file: RuleFile, document: Document, *at: str | int) -> Rule:
    given = {name: value for name, value in structs.asdict(file).items() if value is not None}
    read: dict[str, Any] = {}
    for name, value in given.items():
        try:
            read[name] = _READ[name](name, value) if name in _READ else value
        except (ConfigError, SchemeError) as error:
            raise document.refuse(str(error), *at, name) from error
    try:
        return Rule(**read)
    except ConfigError as error:
        raise document.refuse(str(error), *at) from error


def _texts(name: str, value: Any) -> tuple[str, ...]:
    del name
    return tuple(map(str, value if isinstance(value, list) else [value]))


def _bytes(name: str, value: str | int) -> int:
    if isinstance(value, int):
        return value
    try:
        return size_bytes(value)
    except BudgetError as error:
        raise ConfigError(
            f"{name} is {shown(value)}: give bytes, for example 12MB; use max_bits or max_share to limit bits or a share"
        ) from error


def _percent(name: str, value: str) -> float:
    match = _PERCENT.fullmatch(value.strip())
    if match is None:
        raise ConfigError(f"{name} is {shown(value)}: give a percentage, for example 1%")
    return float(match[1])


def _schemes(name: str, value: Mapping[str, Any]) -> Schemes:
    found = {pattern: _texts(name, schemes) for pattern, schemes in value.items()}
    for text in (text for texts in found.values() for text in texts):
        try:
            parse_scheme(text)
        except SchemeError as error:
            raise ConfigError(f"{name}: {error}") from error
    return found


def _text(name: str, value: str | float) -> str:
    del name
    return str(value)


_READ: dict[str, Callable[[str, Any], Any]] = {
    "files": _texts,
    "name": _text,
    "baseline": _text,
    "max_bytes": _bytes,
    "max_loaded": _bytes,
    "max_loaded_packed": _bytes,
    "max_share": _percent,
    "max_growth": _percent,
    "max_error_growth": _percent,
    "forbid": _schemes,
    "require": _schemes,
}
