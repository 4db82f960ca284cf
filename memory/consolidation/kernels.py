"""What consolidation does in every training step, in one pass over the weights where they lie on
the CPU: chains of torch's own operations write and read back whole intermediate arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numba import njit
from torch import Tensor


def pull(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    stiffness: Sequence[Tensor],
    centre: Sequence[Tensor],
    kept: Sequence[Tensor] = (),
) -> None:
    """kept <- grad where it is given, then grad += stiffness (w - centre)."""
    groups = (grads, weights, stiffness, centre, *([kept] if kept else []))
    arrays = _flat(*groups)
    if arrays is None:
        if kept:
            torch._foreach_copy_(kept, grads)
        torch._foreach_addcmul_(grads, stiffness, torch._foreach_sub(weights, centre))
        return
    for one in arrays:
        (_pull_and_keep if kept else _pull)(*one)


def follow_path(
    omega: Sequence[Tensor],
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    before: Sequence[Tensor],
) -> None:
    """omega -= grad (w - before), then before <- w."""
    arrays = _flat(omega, grads, weights, before)
    if arrays is None:
        torch._foreach_addcmul_(omega, grads, torch._foreach_sub(weights, before), -1.0)
        torch._foreach_copy_(before, weights)
        return
    for one in arrays:
        _follow_path(*one)


def _flat(*groups: Sequence[Tensor]) -> list[tuple] | None:
    """The same memory as flat arrays, one tuple a weight; None where it cannot be had."""
    out = []
    for tensors in zip(*groups, strict=True):
        if not all(t.device.type == "cpu" and t.is_contiguous() for t in tensors):
            return None
        out.append(tuple(t.detach().view(-1).numpy() for t in tensors))
    return out


@njit(cache=True)
def _pull(grad, w, stiffness, centre):
    for i in range(grad.size):
        grad[i] += stiffness[i] * (w[i] - centre[i])


@njit(cache=True)
def _pull_and_keep(grad, w, stiffness, centre, kept):
    for i in range(grad.size):
        alone = grad[i]
        kept[i] = alone
        grad[i] = alone + stiffness[i] * (w[i] - centre[i])


@njit(cache=True)
def _follow_path(omega, grad, w, before):
    for i in range(omega.size):
        now = w[i]
        omega[i] -= grad[i] * (now - before[i])
        before[i] = now
