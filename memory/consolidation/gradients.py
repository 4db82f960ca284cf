"""Means over samples of squared or absolute gradients of one sample each.

Squaring the gradient of a batch's mean instead is the best known mistake in public EWC code: it
measures something that vanishes as the batch grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

CHUNK = 32  # samples whose gradients are held at once where they are vectorised

# (outputs of the module for one sample [1, ...], what belongs to that sample...) -> scalar
Score = Callable[..., Tensor]


def mean_gradients(
    module: nn.Module,
    names: Sequence[str],
    score: Score,
    inputs: Tensor,
    extras: Sequence[Tensor] = (),
    *,
    power: int = 2,
    vectorised: bool = True,
) -> list[Tensor]:
    """(1 / M) sum_m |d score(module(inputs[m : m + 1]), extras[m]...) / d w|^power of each weight.

    Args:
        module: its outputs go to `score`.
        names: parameters asked for, in that order.
        inputs: [M, ...]; extras: [M, ...] each.
        vectorised: by torch.func, which cannot see into compiled kernels (the fused spiking
            encoder is one): False takes one backward pass a sample, the same numbers.
    """
    parameters = dict(module.named_parameters())
    chosen = {n: parameters[n] for n in names}
    sums = [torch.zeros_like(p) for p in chosen.values()]
    if not vectorised:
        for m in range(len(inputs)):
            value = score(module(inputs[m : m + 1]), *(e[m] for e in extras))
            gradients = torch.autograd.grad(value, list(chosen.values()), allow_unused=True)
            for total, g in zip(sums, gradients):
                if g is not None:
                    total += g.abs() ** power
    else:
        fixed = {n: p.detach() for n, p in chosen.items()}

        def value_of(weights: dict[str, Tensor], one: Tensor, *own: Tensor) -> Tensor:
            return score(functional_call(module, weights, (one[None],)), *own)

        each = vmap(grad(value_of), in_dims=(None, 0, *(0 for _ in extras)))
        for start in range(0, len(inputs), CHUNK):
            part = slice(start, start + CHUNK)
            gradients = each(fixed, inputs[part], *(e[part] for e in extras))
            for total, name in zip(sums, names):
                total += (gradients[name].abs() ** power).sum(0)
    return [total / len(inputs) for total in sums]
