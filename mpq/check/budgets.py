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

import yaml

from mpq.budget import Budget
from mpq.errors import BudgetError, ConfigError, SchemeError
from mpq.files import check_version
from mpq.formats.scheme import parse_scheme
from mpq.models.metric_registry import FIGURES

VERSION = 1
DEFAULT = Path("mpq-budgets.yaml")
Schemes = Mapping[str, tuple[str, ...]]
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_MEASURING = ("metric", "reference", "seq_len", "num_samples")


@dataclass(frozen=True)
class Rule:
    """What some files are held to. None means: not limited.

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
        metric: which figure of the evaluation; None takes KL divergence where there is one, else relative MSE.
        reference: the unquantized model; None takes the one that the artifact names.
        seq_len: tokens of a window, for text.
        num_samples: only the first samples.
        max_growth: percent that the size may be above the baseline's.
        max_error_growth: percent that the held-out error may be above the baseline's.
        baseline: a git revision, or a file.
        forbid: schemes or formats that layers must not take, by pattern.
        require: schemes or formats of which layers must take one, by pattern.
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
            raise ConfigError(f"data {self.data} is measured for nothing: give max_error too")
        limits = [each.name for each in fields(self) if each.name.startswith("max_") or each.name in ("forbid", "require")]
        if not any(getattr(self, name) not in (None, {}) for name in limits):
            raise ConfigError(f"the rule for {', '.join(self.files)} limits nothing: give one of {', '.join(limits)}")
        grows = next((name for name in ("max_growth", "max_error_growth") if getattr(self, name) is not None), None)
        if grows and self.baseline is None:
            raise ConfigError(f"{grows} needs a baseline: a git revision such as origin/main, or a file")
        alone = next((name for name in _MEASURING if getattr(self, name) is not None and self.data is None), None)
        if alone:
            raise ConfigError(f"{alone} belongs to data: give data too, for example data: test.pt")
        if self.metric not in (None, *FIGURES):
            raise ConfigError(f"metric '{self.metric}' is unknown: use {', '.join(FIGURES)}")


def read_budgets(path: Path) -> list[Rule]:
    """The rules of a file.

    Raises:
        ConfigError: if it is missing, not YAML, or has an unknown key or a wrong value.
        FormatError: if it is from a newer version.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; `mpq check --init` writes one") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not isinstance(data.get("budgets"), list) or not data["budgets"]:
        raise ConfigError(f"{path} is not a file of budgets: write 'mpq_budgets: {VERSION}' and a list 'budgets:'")
    check_version(data.get("mpq_budgets"), supported=VERSION, path=path, kind="a file of budgets")
    stranger = next((name for name in data if name not in ("mpq_budgets", "budgets")), None)
    if stranger is not None:
        raise ConfigError(f"{path} has the unknown key '{stranger}': use mpq_budgets and budgets")
    rules = []
    for number, entry in enumerate(data["budgets"], start=1):
        try:
            rules.append(rule_from(entry))
        except ConfigError as error:
            raise ConfigError(f"{path}, rule {number}: {error}") from error
    return rules


def rule_from(entry: object) -> Rule:
    """One rule from its mapping.

    Raises:
        ConfigError: if a key is unknown or a value is wrong.
    """
    if not isinstance(entry, dict):
        raise ConfigError(f"{entry!r} is not a rule: write a mapping with files and limits")
    known = [each.name for each in fields(Rule)]
    stranger = next((name for name in entry if name not in known), None)
    if stranger is not None:
        raise ConfigError(f"'{stranger}' is not a limit: use {', '.join(known)}")
    if not entry.get("files"):
        raise ConfigError("no files: name the plans, artifacts or model files that it holds for")
    read: dict[str, Any] = {name: _READ[name](name, value) for name, value in entry.items() if value is not None}
    return Rule(**read)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise ConfigError(f"{name} is {value!r}: give a text")
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(name, each) for each in (value if isinstance(value, list) else [value]))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ConfigError(f"{name} is {value!r}: give a number of 0 or more")
    return float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}: give a whole number of 1 or more")
    return value


def _bytes(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    try:
        budget = Budget(str(value))
    except BudgetError as error:
        raise ConfigError(f"{name}: {error}") from error
    if budget.unit_is_relative:
        raise ConfigError(f"{name} is {value}: give bytes, for example 12MB; max_bits and max_share limit the rest")
    return budget.bytes(weights=0, original_bytes=0)


def _percent(name: str, value: Any) -> float:
    match = _PERCENT.fullmatch(str(value).strip())
    if match is None:
        raise ConfigError(f"{name} is {value!r}: give a percentage, for example 1%")
    return float(match[1])


def _schemes(name: str, value: Any) -> Schemes:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{name} is {value!r}: give schemes by layer pattern, for example {{'*embed*': [int8, fp16]}}")
    found = {str(pattern): _texts(name, schemes) for pattern, schemes in value.items()}
    for text in (text for texts in found.values() for text in texts):
        try:
            parse_scheme(text)
        except SchemeError as error:
            raise ConfigError(f"{name}: {error}") from error
    return found


_READ: dict[str, Callable[[str, Any], Any]] = {
    "files": _texts,
    "name": _text,
    "baseline": _text,
    "max_bits": _number,
    "max_error": _number,
    "data": _text,
    "metric": _text,
    "reference": _text,
    "seq_len": _count,
    "num_samples": _count,
    "max_bytes": _bytes,
    "max_loaded": _bytes,
    "max_loaded_packed": _bytes,
    "max_share": _percent,
    "max_growth": _percent,
    "max_error_growth": _percent,
    "forbid": _schemes,
    "require": _schemes,
}
