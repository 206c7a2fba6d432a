"""Projections: per-sample inner products of the output's gradient with changes of the weights, by one backward pass for all layers.

For a small change D of the weights the KL divergence of logits f is, to second order, 1/2 (JD)^T F (JD) with F = diag(p) - p p^T at each
position (Amari 1998; Martens 2020). F = A A^T with A = (I - p 1^T) diag(sqrt p), so for z = A n with independent random signs n the
scalar v = z^T J D has E[v^2] = (JD)^T F (JD): one backward pass with z gives v for every layer and every change at once, as the inner
product of the weight's gradient with the change. Of all independent n of unit variance, signs give v^2 the least variance
(Hutchinson 1990); labels drawn from the model, the textbook way, have the same mean but heavy tails where the model is confident.

For outputs that are not logits the relative squared error |JD|^2 / |f|^2 is the mean of (z^T J D)^2 with z = n / |f|.

The error of several changed layers together is the mean of (sum of v)^2: the same figures give the interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.gradients.error_gradients import differentiable
from mpq.gradients.recomputation import recomputed
from mpq.models.running.forward import forward
from mpq.models.running.metrics import Metric
from mpq.models.running.swap import hooked, tensor_of
from mpq.records.layer import Layer

Receive = Callable[[Layer, Tensor], None]
"""Called with each layer and the gradient of its weight, in float32, once per draw; the gradient is freed afterwards."""


def project(
    module: nn.Module,
    layers: Sequence[Layer],
    sample: Batch,
    metric: Metric,
    *,
    draws: int,
    seed: int,
    receive: Callable[[int], Receive],
    blocks: Sequence[nn.Module] = (),
) -> None:
    """Backpropagate `draws` random projections of the outputs of one sample.

    The error that `metric` gives for a change D is the mean over draws of v^2, where v is the sum over layers of the inner product
    of the received gradient with D.

    Args:
        module: the unquantized model.
        layers: whose gradients are wanted.
        sample: one sample, or a batch that cannot be split; then the result is a mean over its samples.
        metric: one that has a projection, such as KL divergence and relative MSE.
        draws: number of backward passes.
        seed: of the random numbers.
        receive: gives the callback for a draw, which is called with each layer's gradient.
        blocks: modules that run again in the backward pass, to save memory.

    It is not called if the outputs have no gradient.

    Raises:
        ModelError: if the metric has no quadratic form here.
        NumericsError: if the outputs are not finite.
        NotRepeatableError: if a block gives another output when it runs again; some gradients may already have been received.
    """
    with gradients_of(module, layers) as collect, torch.enable_grad(), recomputed(blocks):
        outputs = forward(module, sample, gradients=True)
        prepared = metric.prepare(outputs.detached(), sample.mask)
        generator = torch.Generator().manual_seed(seed)
        for draw in range(draws):
            scalar = metric.project(prepared, outputs, generator)
            if not scalar.requires_grad:
                return  # no gradient reaches any layer
            with collect(receive(draw)):
                scalar.backward(retain_graph=draw + 1 < draws)  # type: ignore[no-untyped-call]


@contextmanager
def gradients_of(module: nn.Module, layers: Sequence[Layer]) -> Iterator[Callable[[Receive], AbstractContextManager[None]]]:
    """Inside the `with`, only the layers' weights require gradients; flags and gradients are restored afterwards."""
    weights = {layer.name: tensor_of(module, layer.parameters[0]) for layer in layers}
    with differentiable(module, weights.values()):
        yield lambda receive: _collected(layers, weights, receive)


def _collected(layers: Sequence[Layer], weights: Mapping[str, Tensor], receive: Receive) -> AbstractContextManager[None]:
    """Each gradient is passed on and freed as soon as it is complete: at most one layer's is alive."""

    def hand_over(layer: Layer, weight: Tensor) -> None:
        if weight.grad is not None:
            receive(layer, weight.grad.detach().float())
            weight.grad = None

    return hooked(
        [
            weights[layer.name].register_post_accumulate_grad_hook(lambda weight, layer=layer: hand_over(layer, weight))  # type: ignore[no-untyped-call]
            for layer in layers
        ]
    )
