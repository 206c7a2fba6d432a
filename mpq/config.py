"""Settings: command line over YAML over default. Each default is written once, here. No torch.

A configuration file has one section per command, with the names of the command's long options:

    analyze: {candidates: ["4", "8", "16"], num_samples: 64}
    search: {budget: 4.5bits, trials: 48}
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mpq.errors import ConfigError, SchemeError, UsageError
from mpq.formats.activations import ALL, OFF
from mpq.formats.activations import CHOICES as ACTIVATIONS
from mpq.formats.floats import REST_DTYPES
from mpq.formats.scheme import Scheme, parse_scheme
from mpq.shown import shown

if TYPE_CHECKING:
    from mpq.reading.documents import Document

LARGE_MEMORY = 2_000_000_000  # bytes; from here on, an analysis prints the memory that it expects and that it took
TUNE_MINUTES = 15.0  # emergency stop for each long recovery step
OWN_TEXT_TOKENS = 32_768  # calibration text of this length is enough; of less, a language model writes what is missing
OWN_TEXT_TIMES = 8  # at most this many times as many windows as given
TUNE_WORK = 10.0  # teraflops (10^12 floating-point operations) allowed for each of these steps
Level = Literal["scales", "codes", "weights"]
"""What moves in a training: scales, biases and norms; the codes of integers, too; all codes."""
LEVELS: tuple[Level, ...] = get_args(Level)
EPOCHS = 3  # for `mpq recover`


@dataclass(frozen=True)
class DataSettings:
    """How data is read.

    Args:
        seq_len: tokens per window, for text; None uses the model's own, at most 512.
        num_samples: use only so many, spread evenly over the source; None uses all.
        batch_size: samples per batch; None chooses one.
        mask: the input that says which positions are data; None looks for one (`data/masks.py`).
        batch_axis: axis of the inputs that counts samples; "none" makes each batch one sample; None finds it.
        text_field: the field that holds the text; None looks for one.
        seed_each_forward: whether every call of the model starts with the same random seed.
        split: "position" or "random"; None uses position for windows of token ids, else random.
        spread: whether `num_samples` are spread evenly over the source; False uses the first ones, as in files of earlier versions.
    """

    seq_len: int | None = None
    num_samples: int | None = None
    batch_size: int | None = None
    mask: str | None = None
    seed_each_forward: bool = False
    batch_axis: str | None = None
    text_field: str | None = None
    split: str | None = None
    spread: bool = True


@dataclass(frozen=True)
class AnalysisSettings:
    """How sensitivities are found.

    Args:
        candidates: bits ("4"), ranges of bits ("2..8"), or schemes ("int4-g32", "fp16"); "fine" for the smallest error per byte.
        targets: patterns of layers to search; empty means all.
        ignore: patterns of layers to leave unquantized.
        metric: a metric's name, or "auto": KL divergence if the output is logits, else relative MSE.
        outputs: names or globs of the model's outputs to compare, each optionally with a weight ("boxes=2"); empty compares all.
        quantizer: a quantizer's name, or "auto": the better of two, measured on this model.
        method: "measure", "fisher", "weight", or "auto": measure if that is affordable, else fisher.
        held_out: share of the samples that the analysis does not see; the search decides with them.
        seed: seed of the split.
        activations: "8" also measures tensors between layers as 8-bit integers with fixed ranges, "8d" as ones with a scale per token, for
            matrix products; empty measures none.
        equalize: with activations, scale channels before anything is measured, if held-out samples agree (`analyze/equalize.py`).
    """

    candidates: tuple[str, ...] = ("4", "8", "16")
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    metric: str = "auto"
    outputs: tuple[str, ...] = ()
    quantizer: str = "auto"
    method: str = "auto"
    held_out: float = 0.25
    seed: int = 0
    activations: tuple[str, ...] = ()
    equalize: bool = True

    def __post_init__(self) -> None:
        wrong = next((each for each in self.activations if each not in ACTIVATIONS), None)
        if wrong is not None:
            raise ConfigError(f"activations is {shown(wrong)}: use {' or '.join(ACTIVATIONS)}")


@dataclass(frozen=True)
class SearchSettings:
    """How a plan is searched.

    Args:
        pins: scheme by pattern of layer names, for example {"conv1": "int8"}; a name wins over a pattern.
        ties: groups of layer names that share one scheme; "auto" as a group stands for the layers that runtimes fuse (q/k/v, gate/up,
            experts).
        min_bits: minimum bits by pattern of layer names.
        candidates: schemes that layers may use, by pattern of layer names, for example {"lm_head": ("8", "16")}.
        costs: limit for the total of a cost, by the CSV file with the cost per layer and scheme (`search/costs.py`).
        memory: limit for the memory of the loaded model with packed weights, for example "20MB"; None for no limit.
        start: schemes by layer name of a plan to start from; it competes if it is within the budget.
        trials: plans to measure in addition to the exact and uniform ones; 0 stops after the exact solution.
        timeout: seconds after which no new trial starts; None for no limit. With a timeout the plan may depend on the machine.
        seed: seed of everything random.
        storage: URL of the Optuna study, or an Optuna storage; None keeps it in memory.
        rest: "bf16", "fp16" or "fp32": dtype for unquantized floating-point tensors where it is smaller than their own; None keeps their
            own.
        activations: which of the measured groups of tensors between layers become integers: "all", "off", or a number, the largest error
            that they may add by the analysis.
        sketches: make room for sketches of the calibration data, which `apply` then puts into the artifact, for `mpq monitor`.
    """

    pins: Mapping[str, Scheme] = field(default_factory=dict)
    ties: tuple[tuple[str, ...] | str, ...] = ()
    min_bits: Mapping[str, int] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    memory: str | None = None
    start: Mapping[str, Scheme] | None = None
    trials: int = 64
    timeout: float | None = None
    seed: int = 0
    storage: Any = None
    rest: str | None = None
    activations: str = ALL
    sketches: bool = False

    def __post_init__(self) -> None:
        if self.activations not in (ALL, OFF) and not _is_limit(self.activations):
            raise ConfigError(
                f"activations is {shown(self.activations)}: use all, off, or the largest error that they may add, such as 0.001"
            )
        if self.rest not in (None, *REST_DTYPES):
            raise ConfigError(f"rest is {shown(self.rest)}: use {', '.join(REST_DTYPES)}")
        for name in ("trials", "timeout"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}: give 0 or more")


def _is_limit(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def data_settings(facts: Mapping[str, Any]) -> DataSettings:
    """How the data of an analysis was read, from its facts in a plan or a sensitivity file."""
    known = {each.name: facts[each.name] for each in fields(DataSettings) if facts.get(each.name) is not None}
    return DataSettings(**{"spread": False, **known})


_Number = TypeVar("_Number", int, float)
_Settings = TypeVar("_Settings", DataSettings, AnalysisSettings, SearchSettings)


def settings_from(kind: type[_Settings], choices: Mapping[str, Any]) -> _Settings:
    """Settings of one kind from keywords; None stands for the default. Pins may be strings.

    Raises:
        ConfigError: if a name is unknown or a value has the wrong type.
    """
    known = {each.name for each in fields(kind)}
    given = {name: value for name, value in choices.items() if value is not None}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"{shown(unknown[0])} is not a setting: use {', '.join(sorted(known))}")
    hints = get_type_hints(kind)
    return kind(**{name: _converted(name, value, hints[name]) for name, value in given.items()})


def chosen_settings(kind: type[_Settings], settings: _Settings | None, choices: Mapping[str, Any]) -> _Settings:
    """Settings given as one object or one by one.

    Raises:
        ConfigError: if both are given, a name is unknown or a value has the wrong type.
    """
    if settings is not None and choices:
        raise ConfigError(f"settings and {min(choices)} are both given: put {min(choices)} into the settings, or leave the settings out")
    return settings or settings_from(kind, choices)


def read_config(path: Path, section: str) -> dict[str, Any]:
    """One section of a configuration file; empty if the file does not have it.

    Raises:
        ConfigError: if the file is missing, not YAML, has no sections, or has an unknown setting or a wrong value in any of them.
        SchemeError: if a pin is not a scheme.
    """
    from mpq.config_file import ConfigFile  # late import: `mpq --help` does not need it
    from mpq.reading.documents import read_yaml
    from mpq.reading.validate import validated

    document = read_yaml(path, error=ConfigError, absent="name a YAML file with --config", remedy="`mpq schema config` lists all settings")
    data = document.value
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a configuration: write sections such as 'analyze:' with settings below them")
    plain = {name: _underscored(part, document) if isinstance(part, dict) else part for name, part in data.items()}
    validated(replace(document, value=plain), ConfigFile)
    found: dict[str, Any] = plain.get(section) or {}
    for name in ("pins", "start"):
        if isinstance(found.get(name), dict):
            found[name] = {layer: _scheme(text, document, section, name, layer) for layer, text in found[name].items()}
    return found


def _underscored(part: Mapping[str, Any], document: Document) -> dict[str, Any]:
    found = {name.replace("-", "_"): value for name, value in part.items()}
    if len(found) < len(part):
        raise ConfigError(f"{document.name} gives a setting twice, with '-' and with '_': remove one of them")
    return found


def _scheme(text: str, document: Document, *at: str) -> Scheme:
    try:
        return parse_scheme(text)
    except SchemeError as error:
        raise SchemeError(f"{document.place(*at)}: {error}") from error


def _converted(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if name == "pins":
        return {str(layer): each if isinstance(each, Scheme) else parse_scheme(str(each)) for layer, each in _mapping(name, value).items()}
    if name == "start":
        return value
    if name == "activations" and hint is str:
        return str(value)
    if name == "min_bits":
        return {str(pattern): _number(f"{name} of {pattern}", bits, int) for pattern, bits in _mapping(name, value).items()}
    if name == "costs":
        return {str(path): _number(f"{name} of {path}", most, float) for path, most in _mapping(name, value).items()}
    if name == "candidates" and get_origin(hint) is not tuple:
        return {
            str(pattern): tuple(map(str, [texts] if isinstance(texts, (str, int)) else texts))
            for pattern, texts in _mapping(name, value).items()
        }
    if get_origin(hint) is tuple:
        items = [value] if isinstance(value, (str, int)) else list(value)
        return tuple(tuple(item) if isinstance(item, list) else item if isinstance(item, tuple) else str(item) for item in items)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str) and (not isinstance(value, hint) or isinstance(value, bool)):
        raise ConfigError(f"{name} is {shown(value)}: give {'a number' if hint is not str else 'text'}")
    return value


def _number(name: str, value: Any, kind: type[_Number]) -> _Number:
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is {shown(value)}: give a number") from error


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {shown(value)}: give a mapping such as conv1: 8")
    return value


def check_windows(windows: int) -> None:
    """Refuse a number of windows below zero.

    Raises:
        UsageError: naming it.
    """
    if windows < 0:
        raise UsageError(f"{windows} is not a number of windows: give 0 (none) or more")
