"""Methods of analysis by name. No torch: a method's file is imported when the method is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpq.registry import Registry

if TYPE_CHECKING:
    from mpq.analyze.methods.base import Method

METHODS: Registry[Method] = Registry(
    "method",
    {
        "measure": ("mpq.analyze.methods.measure:Measure", "run the model"),
        "fisher": ("mpq.analyze.methods.fisher:Fisher", "gradients"),
        "weight": ("mpq.analyze.methods.weight:WeightOnly", "weights alone"),
    },
    also=("auto",),
)


def method_named(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: if there is none; the message lists them.
    """
    return METHODS.kind(name)()
