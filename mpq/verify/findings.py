"""What a verification found, in words and as a record. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = {
    "layer missing": "the program has no weight for the layer",
    "unquantized": "the layer runs with floating-point weights instead of its codes",
    "group size": "a scale covers a different number of weights",
    "bits": "the codes have a different number of bits, or unexpected zero points",
    "shape": "the weight has a different shape",
    "nibbles swapped": "the two codes of each byte are swapped",
    "sign": "signed codes are read as unsigned, or the reverse",
    "codes of another layer": "the codes are those of another layer",
    "codes": "the codes differ",
    "scales swapped": "the scales are those of another layer, or of other rows",
    "group order": "each row has its own scales in another order",
    "scales": "the scales differ",
    "zero points": "the zero points differ",
    "weights": "codes and scales are right, but the program computes different weights from them",
    "tie lost": "a weight shared by several operators is used by fewer or different ones",
    "tensor missing": "an unquantized tensor is missing",
    "tensor": "an unquantized tensor has different values",
    "layer output": "the weights are right, but the layer's output differs",
    "outputs": "an output of the model differs by more than the program's arithmetic explains",
    "load": "the program cannot load or run the file",
}
"""Kinds of findings, and what each means."""


@dataclass(frozen=True)
class Finding:
    """One difference.

    Args:
        kind: one of `KINDS`.
        name: the layer, tensor or output.
        message: the actual and the expected value.
    """

    kind: str
    name: str
    message: str


@dataclass(frozen=True)
class OutputDifference:
    """The difference of an output from the artifact's: `difference` as a share of its largest value, None if it cannot be compared."""

    name: str
    difference: float | None
    tolerance: float


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Args:
        file: the export.
        program: the program that loaded it, with its version.
        findings: differences, those of the first layer first; empty if there are none.
        outputs: of the model on the fixed inputs.
        layers: number of layers whose weights were compared.
        tensors: number of unquantized tensors that were compared.
        notes: what could not be compared, and why.
    """

    file: str
    program: str
    findings: tuple[Finding, ...]
    outputs: tuple[OutputDifference, ...] = ()
    layers: int = 0
    tensors: int = 0
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.findings

    @property
    def line(self) -> str:
        """The result in one line."""
        if self.passed:
            known = [output.difference for output in self.outputs if output.difference is not None]
            said = [f"{self.layers} layers and {self.tensors} other tensors are right"] if self.layers else []
            said += [f"outputs differ by at most {max(known):.2g} of their largest value"] if known else []
            return f"{self.file}: {self.program} loads it correctly: {'; '.join(said)}"
        first = self.findings[0]
        more = f" ({len(self.findings) - 1} more findings)" if len(self.findings) > 1 else ""
        return f"{self.file}: {self.program}: {first.kind} in '{first.name}': {first.message}{more}"

    def to_dict(self) -> dict[str, Any]:
        """The record that `--json` prints."""
        return {"passed": self.passed, **asdict(self)}


def verification_in(record: dict[str, Any]) -> Verification:
    """The inverse of `to_dict`."""
    facts = {key: value for key, value in record.items() if key != "passed"}
    return Verification(
        **facts
        | {
            "findings": tuple(Finding(**each) for each in record["findings"]),
            "outputs": tuple(OutputDifference(**each) for each in record["outputs"]),
            "notes": tuple(record["notes"]),
        }
    )
