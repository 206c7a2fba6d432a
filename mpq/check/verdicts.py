"""Rules held against files: one check per limit and file, with the layers that broke it. No torch."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from mpq.check.budgets import Rule, Schemes
from mpq.check.measure_size import Weighed, weigh, weigh_baseline
from mpq.check.measured_error import Measure, measured_error
from mpq.check.run import Check, against_error, relation
from mpq.errors import ConfigError, PatternError
from mpq.files import exists
from mpq.formats.scheme import Scheme
from mpq.reading.expressions import Expression
from mpq.records.loaded_size import Form
from mpq.records.unsearched import unsearched_share
from mpq.shown import shown

_SHOWN = 8


@dataclass(frozen=True)
class Verdict:
    """All checks of one file under one rule."""

    file: str
    rule: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def judge(rules: Sequence[Rule], root: Path, *, measure: Measure, only: Container[Path] | None = None) -> list[Verdict]:
    """Hold files to rules; globs and paths start at `root`, and `measure` evaluates artifacts on the data of a rule.

    Args:
        rules: of a file of budgets, in order.
        root: the folder of that file.
        measure: evaluates artifacts on the data of a rule.
        only: judge these files alone, given as resolved paths; a rule for others is passed over. None: all files of all rules.

    Raises:
        ConfigError: if a rule matches no file, or limits what a file does not have.
        PatternError: if a layer pattern matches no layer of any of the rule's files.
        MpqError: if a file cannot be read.
    """
    found: list[Verdict] = []
    for number, rule in enumerate(rules, start=1):
        paths = files_of(rule, root) if only is None else [path for path in _matched(rule, root) if path.resolve() in only]
        weighed = [weigh(path) for path in paths]
        if only is None:
            _check_patterns(rule, weighed)
        name = rule.name or f"rule {number}"
        found += [Verdict(each.path, name, tuple(_checks(rule, each, root, measure))) for each in weighed]
    return found


def files_of(rule: Rule, root: Path) -> list[Path]:
    """The files that a rule is for.

    Raises:
        ConfigError: if one of its patterns matches no file.
    """
    for pattern in rule.files:
        if not _matched(replace(rule, files=(pattern,)), root):
            raise ConfigError(f"{shown(pattern)} matches no file in {root.resolve()}: correct the rule, or create the file first")
    return _matched(rule, root)


def _matched(rule: Rule, root: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in rule.files:
        path, globs = root / pattern, any(sign in pattern for sign in "*?[")
        try:
            matched = sorted(root.glob(pattern)) if globs else [path]
            path.exists()  # an error where the text cannot be a path
        except (OSError, ValueError, NotImplementedError, RecursionError) as error:  # whatever glob does not take
            raise ConfigError(f"{shown(pattern)} is neither a path nor a glob ({error}): correct the rule") from error
        found += [path for path in matched if path not in found]
    return found


def _checks(rule: Rule, file: Weighed, root: Path, measure: Measure) -> Iterator[Check]:
    if rule.max_bits is not None:
        yield _bits(_with_layers(file, "max_bits"), rule.max_bits)
    if rule.max_bytes is not None:
        over = file.bytes - rule.max_bytes
        yield Check("size of the file", over <= 0, _against(file.bytes, rule.max_bytes, "the limit"), _largest(file) if over > 0 else ())
    if rule.max_loaded is not None:
        yield _loaded(_with_layers(file, "max_loaded"), "dense", rule.max_loaded)
    if rule.max_loaded_packed is not None:
        yield _loaded(_with_layers(file, "max_loaded_packed"), "packed", rule.max_loaded_packed)
    if rule.max_share is not None:
        yield _share(file, rule.max_share)
    if rule.max_error is not None:
        yield _error(file, rule.max_error) if rule.data is None else measured_error(file, rule, rule.max_error, measure)
    if rule.baseline is not None and (rule.max_growth is not None or rule.max_error_growth is not None):
        beside = root / rule.baseline
        baseline = str(beside) if exists(beside) else rule.baseline
        yield from growth(file, baseline, size=rule.max_growth, error=rule.max_error_growth)
    if rule.forbid:
        yield _forbidden(_with_layers(file, "forbid"), rule.forbid)
    if rule.require:
        yield _required(_with_layers(file, "require"), rule.require)


def growth(file: Weighed, baseline: str, *, size: float | None = None, error: float | None = None) -> Iterator[Check]:
    """Checks of growth in percent against a baseline, naming the layers that grew."""
    before = weigh_baseline(Path(file.path), baseline)
    if before is None:
        yield Check("growth", True, f"it is new: {baseline} does not have it")
        return
    if size is not None:
        limit = int(before.bytes * (1 + size / 100))
        share = f" ({file.bytes / before.bytes - 1:+.2%})" if before.bytes else ""
        grew = f"{file.bytes - before.bytes:+,} bytes{share} since {baseline}"
        passed = file.bytes <= limit
        yield Check("growth", passed, f"{grew}, allowed is {size:g}%", () if passed else grown(before, file))
    if error is not None:
        yield _error_growth(file, before, baseline, error)


def grown(before: Weighed, after: Weighed) -> tuple[str, ...]:
    """The layers that take more bytes than before, the most grown first."""
    more = {name: size - before.taken.get(name, 0) for name, size in after.taken.items()}
    names = sorted((name for name, size in more.items() if size > 0), key=lambda name: -more[name])
    lines = [f"{name}: {more[name]:+,} bytes ({before.layers.get(name, 'new')} -> {after.layers[name]})" for name in names[:_SHOWN]]
    return (*lines, *([f"and {len(names) - _SHOWN} more layers"] if len(names) > _SHOWN else []))


def _with_layers(file: Weighed, limit: str) -> Weighed:
    if file.kind == "other":
        raise ConfigError(f"{limit} needs a plan or an artifact, and {file.path} is neither: limit its size with max_bytes")
    return file


def _bits(file: Weighed, limit: float) -> Check:
    bits = file.effective_bits
    passed = bits <= limit
    message = f"{bits:.4f} over the layers, {'within' if passed else f'{bits - limit:.4f} over'} the limit of {limit:g}"
    message += f"; not searched: {unsearched_share(file.bytes, sum(file.taken.values()))}"
    return Check("bits per weight", passed, message, () if passed else _largest(file))


def _loaded(file: Weighed, form: Form, limit: int) -> Check:
    taken = file.loaded[form]
    return Check(
        "loaded memory" if form == "dense" else "loaded memory, packed",
        taken <= limit,
        _against(taken, limit, "the limit"),
        _largest(file) if taken > limit else (),
    )


def _against(taken: int, limit: int, what: str) -> str:
    return f"{taken:,} bytes, {relation(taken, limit)} {what} of {limit:,}"


def _largest(file: Weighed) -> tuple[str, ...]:
    """The layers that take most, which is where to save."""
    names = sorted(file.taken, key=lambda name: -file.taken[name])[:3]
    return tuple(f"{name}: {file.taken[name]:,} bytes at {file.layers[name]}" for name in names)


def _share(file: Weighed, limit: float) -> Check:
    if file.plan is None:
        raise ConfigError(f"max_share needs a plan, which records the original size, but {file.path} is not a plan: use max_bytes")
    original = file.plan.original_bytes + file.plan.rest.original_bytes
    share = 100 * file.bytes / original
    message = f"{share:.2f}% of {original:,} bytes, {'within' if share <= limit else 'over'} the limit of {limit:g}%"
    return Check("share of the original", share <= limit, message, () if share <= limit else _largest(file))


def _error(file: Weighed, limit: float) -> Check:
    if file.plan is None:
        raise ConfigError(
            f"max_error needs a plan, which records its measured error, but {file.path} is not a plan: name its plan, or give data"
        )
    name = f"held-out error ({file.plan.evidence.get('metric', 'unknown metric')})"
    if file.held_out is None:
        return Check(name, False, _unmeasured(file))
    return Check(name, file.held_out <= limit, against_error(file.plan, file.held_out, limit))


def _unmeasured(file: Weighed) -> str:
    if file.plan is not None and file.plan.evidence and not file.plan.evidence_is_current:
        return "not known: the layers were edited after they were measured; run `mpq search` again"
    return "not known: the plan has no held-out measurement; run `mpq search` with the model, without --trials 0"


def _error_growth(file: Weighed, before: Weighed, baseline: str, limit: float) -> Check:
    if file.held_out is None:
        return Check("growth of the error", False, _unmeasured(file))
    if before.held_out is None:
        return Check("growth of the error", True, f"{baseline} has no measured error to compare with")
    passed = file.held_out <= before.held_out * (1 + limit / 100)
    message = f"{before.held_out:.4g} -> {file.held_out:.4g} since {baseline}, allowed is {limit:g}%"
    return Check("growth of the error", passed, message)


def _forbidden(file: Weighed, wanted: Schemes) -> Check:
    broken = {
        name: f"{name}: {scheme} is forbidden by '{pattern}'"
        for pattern, texts in wanted.items()
        for name, scheme in file.layers.items()
        if matches(pattern, name) and any(_is(scheme, text) for text in texts)
    }
    return _schemes("forbidden schemes", broken, file)


def _required(file: Weighed, wanted: Schemes) -> Check:
    broken = {
        name: f"{name}: {scheme}, but '{pattern}' requires {' or '.join(texts)}"
        for pattern, texts in wanted.items()
        for name, scheme in file.layers.items()
        if matches(pattern, name) and not any(_is(scheme, text) for text in texts)
    }
    return _schemes("required schemes", broken, file)


def _schemes(name: str, broken: dict[str, str], file: Weighed) -> Check:
    message = f"{len(broken)} of {len(file.layers)} layers break the rule" if broken else f"kept by all {len(file.layers)} layers"
    details = list(broken.values())
    rest = [f"and {len(details) - _SHOWN} more layers"] if len(details) > _SHOWN else []
    return Check(name, not broken, message, (*details[:_SHOWN], *rest), next(iter(broken), None))


def _is(scheme: Scheme, text: str) -> bool:
    """Whether `text` names the scheme: a format alone means any group size of it."""
    return text in (str(scheme), scheme.format)


def matches(pattern: str, name: str) -> bool:
    """Whether a layer pattern means this layer: an exact name, a glob, or a regular expression after "re:"."""
    if pattern.startswith("re:"):
        return _expression(pattern.removeprefix("re:")).fullmatch(name)
    return name == pattern or fnmatchcase(name, pattern)


@lru_cache(maxsize=1024)
def _expression(text: str) -> Expression:
    return Expression(text, error=PatternError)


def _check_patterns(rule: Rule, files: Sequence[Weighed]) -> None:
    for pattern in (*rule.forbid, *rule.require):
        if not any(matches(pattern, name) for file in files for name in file.layers):
            raise PatternError(f"{shown(pattern)} matches no layer of {', '.join(rule.files)}: `mpq show` on the plan lists them")
