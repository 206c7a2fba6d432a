"""Budgets ("4.5bits", "12MB", "12MiB", "30%") and what each of them limits. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal, get_args

from mpq.errors import BudgetError
from mpq.shown import shown

Scope = Literal["layers", "file"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_PATTERN = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>bits?|bpw|%|[kmg]?i?b)", re.IGNORECASE)
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_RANGE = re.compile(rf"(?P<first>{_NUMBER}):(?P<last>{_NUMBER})(?::(?P<step>{_NUMBER}))?(?P<unit>bits?|bpw|%|[kmg]?i?b)", re.IGNORECASE)
_MOST_BUDGETS = 64
_MOST_BITS = 32
_LONGEST = 64  # characters
_SIZE_HELP = "write bytes, such as 64MB or 1GiB"
_HELP = "write bits per weight (4.5bits), bytes (12MB, 12MiB, 900kB) or a share of the original (30%)"


@dataclass(frozen=True)
class Budget:
    """A size limit.

    Args:
        limit: the text as the user wrote it, for example "4.5bits".
        scope: "layers" counts the searched layers with their scales and zero points; "file" counts the whole artifact,
            header and unquantized parameters included.

    Raises:
        BudgetError: if `limit` cannot be read or is not positive.
    """

    limit: str
    scope: Scope = "layers"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise BudgetError(f"{shown(self.scope)} is not a scope: use {' or '.join(SCOPES)}")
        self._parse()

    def __str__(self) -> str:
        return f"{self.limit} ({self.scope})"

    def bytes(self, *, weights: int, original_bytes: int) -> int:
        """The limit in whole bytes.

        Args:
            weights: number of weights of the searched layers ("layers"), or of all parameters ("file").
            original_bytes: bytes of the same tensors before quantization.
        """
        number, unit = self._parse()
        if unit in ("bit", "bits", "bpw"):
            return int(number * weights / 8)
        if unit == "%":
            return int(number * original_bytes / 100)
        return int(number * _UNITS[unit])

    def check_possible(self) -> None:
        """Refuse a limit that limits nothing.

        Raises:
            BudgetError: if it is larger than the original, or more bits than any format uses.
        """
        number, unit = self._parse()
        if unit == "%" and number > 100:
            raise BudgetError(f"budget {shown(self.limit)} is more than the original, which is 100%: write for example 30%")
        if unit.startswith("b") and unit != "b" and self.scope == "layers" and number > _MOST_BITS:
            raise BudgetError(
                f"budget {shown(self.limit)} is more than the {_MOST_BITS} bits of a weight in fp32: write for example 4.5bits"
            )

    @property
    def unit_is_relative(self) -> bool:
        """Whether the limit in bytes depends on the model: bits per weight, or a share."""
        return not self._parse()[1].endswith("b")

    def _parse(self) -> tuple[Fraction, str]:
        match = _PATTERN.fullmatch(self.limit.strip()) if len(self.limit) <= _LONGEST else None
        if match is None:
            raise BudgetError(f"{shown(self.limit)} is not a budget: {_HELP}")
        number = Fraction(match["number"])
        if number <= 0:
            raise BudgetError(f"budget {shown(self.limit)} is not positive: {_HELP}")
        return number, match["unit"].lower()


def size_bytes(text: str) -> int:
    """The bytes of a size such as "64MB" or "1GiB".

    Raises:
        BudgetError: if it cannot be read, or is relative to a model.
    """
    try:
        size = Budget(text)
    except BudgetError as error:
        raise BudgetError(f"{shown(text)} is not a size: {_SIZE_HELP}") from error
    found = 0 if size.unit_is_relative else size.bytes(weights=0, original_bytes=0)
    if not found:
        raise BudgetError(f"{shown(text)} is not a size: {_SIZE_HELP}")
    return found


def budget_range(text: str, scope: Scope = "layers") -> list[Budget]:
    """The budgets of "3:6bits" (steps of 0.5) or "3:6:0.25bits", smallest first, including both ends; any other text gives one budget.

    Raises:
        BudgetError: if the range cannot be read, or has no or too many steps.
    """
    match = _RANGE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        return [Budget(text, scope)]
    first, last, step = Decimal(match["first"]), Decimal(match["last"]), Decimal(match["step"] or "0.5")
    whole = int((last - first) // step) if step > 0 and last >= first else -1
    values = [first + number * step for number in range(min(whole, _MOST_BUDGETS) + 1)]
    values += [last] if values and values[-1] < last else []
    if not 1 <= len(values) <= _MOST_BUDGETS:
        raise BudgetError(f"{shown(text)} is not a range of 1 to {_MOST_BUDGETS} budgets: write for example 3:6bits or 3:6:0.25bits")
    return [Budget(f"{value.normalize():f}{match['unit']}", scope) for value in values]
