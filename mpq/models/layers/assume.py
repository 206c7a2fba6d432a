"""The layers of a model that is not run: every parameter of two or more dimensions, with the layout of its module class.

Without a forward pass it is unknown which weights the model uses, and how. So all of them count as used, except norms and biases. A
transposed convolution has its outputs along the second dimension, within each group; everything else along the first.
"""

from __future__ import annotations

from torch import nn

from mpq.models.layers.discover import Discovery, discovery_of
from mpq.models.layers.dispatch_watch import Use

_OPERATORS = {"Embedding": "embedding", "Conv": "conv", "Linear": "linear", "RNN": "recurrent", "LSTM": "recurrent", "GRU": "recurrent"}


def assume(module: nn.Module) -> Discovery:
    """The layers of `module`, by the classes of its modules.

    Raises:
        ModelError: like `discover`.
    """
    return discovery_of(module, assumed_use)


def assumed_use(owner: nn.Module) -> Use:
    """How a module of this class uses its weight."""
    name: str = getattr(owner, "original_name", type(owner).__name__)  # the first one in TorchScript
    operator = next((operator for part, operator in _OPERATORS.items() if part in name), "other")
    if "ConvTranspose" not in name:
        return Use(operator, (0,), on_data=True)
    groups = int(getattr(owner, "groups", 1))
    depthwise = groups == getattr(owner, "in_channels", None)
    return Use(operator, (0, 1), on_data=True) if depthwise else Use(operator, (1,), on_data=True, groups=groups)
