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
from mpq.errors import BudgetError, ConfigError
from mpq.files import check_version

VERSION = 1
DEFAULT = Path("mpq-budgets.yaml")
Schemes = Mapping[str, tuple[str, ...]]
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_FORMAT = re.compile(r"int[2-8](-asym)?(-g\d+)?|fp16|bf16|fp32")


@dataclass(frozen=True)
class Rule:
    """What some files are held to. None means: not limited.

    Args:
        files: paths and globs, relative to the file of budgets.
        name: what the rule is called.
        max_bits: bits per weight over the layers.
        max_bytes: size of the file.
        max_share: percent of the original size.
        max_error: held-out error.
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
    max_share: float | None = None
    max_error: float | None = None
    max_growth: float | None = None
    max_error_growth: float | None = None
    baseline: str | None = None
    forbid: Schemes = field(default_factory=dict)
    require: Schemes = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = [each.name for each in fields(self) if each.name not in ("files", "name", "baseline")]
        if not any(getattr(self, name) not in (None, {}) for name in limits):
            raise ConfigError(f"the rule for {', '.join(self.files)} limits nothing: give one of {', '.join(limits)}")
        grows = next((name for name in ("max_growth", "max_error_growth") if getattr(self, name) is not None), None)
        if grows and self.baseline is None:
            raise ConfigError(f"{grows} needs a baseline: a git revision such as origin/main, or a file")


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
    wrong = next((text for texts in found.values() for text in texts if not _FORMAT.fullmatch(text)), None)
    if wrong is not None:
        raise ConfigError(f"{name}: '{wrong}' is no scheme: write a format such as int4 or fp16, or a scheme such as int4-g32")
    return found


_READ: dict[str, Callable[[str, Any], Any]] = {
    "files": _texts,
    "name": _text,
    "baseline": _text,
    "max_bits": _number,
    "max_error": _number,
    "max_bytes": _bytes,
    "max_share": _percent,
    "max_growth": _percent,
    "max_error_growth": _percent,
    "forbid": _schemes,
    "require": _schemes,
}
