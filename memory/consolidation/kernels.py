"""What consolidation does in every training step, in one pass over the weights where they lie on
the CPU: chains of torch's own operations write and read back whole intermediate arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor


class Path(NamedTuple):
    """What the path integral of the loss needs, lists of tensors like the weights."""

    omega: list[Tensor]  # -sum gradient * step so far
    gradient: list[Tensor]  # of the losses alone, where the weights stood last
    before: list[Tensor]  # the weights as they stood then


class Flat:
    """Tensors as flat arrays of the same memory. Those that stay are asked for by name and made
    once: to make them anew in each step costs as much as the arithmetic."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[list[int], list[np.ndarray]]] = {}

    def of(self, name: str, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        where = [t.data_ptr() for t in tensors]
        if name not in self._made or self._made[name][0] != where:
            self._made[name] = (where, flat(tensors))
        return self._made[name][1]


def flat(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Flat arrays of the same memory, for contiguous tensors on the CPU."""
    return [t.detach().view(-1).numpy() for t in tensors]


def pull(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    stiffness: Sequence[Tensor],
    centre: Sequence[Tensor],
    path: Path | None = None,
    views: Flat | None = None,
) -> None:
    """grad += stiffness (w - centre). With a path the step that led here is credited first,
    omega -= gradient (w - before), and the new gradient is kept without the pull."""
    held = (weights, stiffness, centre, *(path or ()))
    if not all(t.device.type == "cpu" and t.is_contiguous() for t in (*grads, *weights)):
        if path is not None:
            follow_path(path, weights)
            torch._foreach_copy_(path.gradient, grads)
        torch._foreach_addcmul_(grads, stiffness, torch._foreach_sub(weights, centre))
        return
    views = views or Flat()
    names = ("weights", "stiffness", "centre", *Path._fields)
    arrays = [views.of(name, tensors) for name, tensors in zip(names, held)]
    one = _pull if path is None else _follow_and_pull
    for each in zip(flat(grads), *arrays, strict=True):
        one(*each)


def follow_path(path: Path, weights: Sequence[Tensor]) -> None:
    """omega -= gradient (w - before), then before <- w; rounded as `pull` does, so that nobody can
    tell whether a step was counted here or there."""
    if all(t.device.type == "cpu" and t.is_contiguous() for t in weights):
        for each in zip(flat(weights), *map(flat, path), strict=True):
            _follow(*each)
        return
    torch._foreach_addcmul_(
        path.omega, path.gradient, torch._foreach_sub(weights, path.before), -1.0
    )
    torch._foreach_copy_(path.before, weights)


@njit(cache=True)
def _pull(grad, w, stiffness, centre):
    for i in range(grad.size):
        grad[i] += stiffness[i] * (w[i] - centre[i])


@njit(cache=True)
def _follow(w, omega, gradient, before):
    for i in range(w.size):
        omega[i] -= gradient[i] * (w[i] - before[i])
        before[i] = w[i]


@njit(cache=True)
def _follow_and_pull(grad, w, stiffness, centre, omega, gradient, before):
    for i in range(grad.size):
        now, alone = w[i], grad[i]
        omega[i] -= gradient[i] * (now - before[i])
        before[i] = now
        gradient[i] = alone
        grad[i] = alone + stiffness[i] * (now - centre[i])
