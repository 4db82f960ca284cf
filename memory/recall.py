"""From neighbours to values: the kernel of NEC and the mean of MFEC.

    k_i = 1 / (d_i^2 + delta)      w_i = k_i / sum_j k_j      Q = sum_i w_i v_i

NEC, arXiv 1703.01988, eq. 1, 2 and 5; MFEC, arXiv 1606.04460, eq. 2 (w_i = 1/k).
The numpy side serves decisions; `episodic_value` is the same in torch, for gradients to the
encoder (through the query), the keys and the values.

Legend: B queries, A actions, p neighbours, D key dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

INVERSE, MEAN = 0, 1
KERNELS = {"inverse": INVERSE, "mean": MEAN}


class EpisodicRead(NamedTuple):
    """What the memory says about keys; a place without a neighbour has index -1 and weight 0."""

    q: np.ndarray  # [B,A] float32; 0 where the action has no entry
    confidence: np.ndarray  # [B] float32 in [0,1]; mean over the actions that hold entries at all
    indices: np.ndarray  # [B,A,p] int64 slots, nearest first
    weights: np.ndarray  # [B,A,p] float32, sum 1 over p where there is any neighbour
    distances: np.ndarray  # [B,A,p] float32 squared distances, inf where there is none
    action_confidence: np.ndarray  # [B,A] float32 in [0,1]
    hits: np.ndarray  # [B,A] bool: this very state and action is stored (needs hashes)


@njit(cache=True)
def weigh(
    distances, slots, values, known, per_action, exact, kernel, delta, reach,
    q, confidence, trust, weights,
):  # fmt: skip
    """Fill q [B,A], confidence [B], trust [B,A] and weights [B,A,p] from neighbours [B,A,p].

    `known` [B,A]: slot of this very state and action or -1; where `exact` is set its value is the
    answer (MFEC, eq. 2, first case) and it takes the first place among the neighbours.
    """
    batch, actions, p = slots.shape
    present = 0  # actions that hold entries at all
    for a in range(actions):
        present += per_action[a] > 0
    for b in range(batch):
        confidence[b] = 0
        for a in range(actions):
            if exact and known[b, a] >= 0:
                for i in range(p):
                    slots[b, a, i], distances[b, a, i], weights[b, a, i] = -1, np.inf, 0
                slots[b, a, 0], distances[b, a, 0], weights[b, a, 0] = known[b, a], 0, 1
                q[b, a], trust[b, a] = values[known[b, a]], 1
                confidence[b] += np.float32(1) / present
                continue
            total, mass = 0.0, 0.0
            for i in range(p):
                if slots[b, a, i] < 0:
                    weights[b, a, i] = 0
                    continue
                w = 1.0 if kernel == MEAN else 1.0 / (distances[b, a, i] + delta)
                weights[b, a, i] = w
                mass += w
                total += w * values[slots[b, a, i]]
            q[b, a] = trust[b, a] = 0
            if mass > 0:
                q[b, a] = total / mass
                trust[b, a] = reach / (reach + distances[b, a, 0])
                confidence[b] += trust[b, a] / present
                for i in range(p):
                    weights[b, a, i] /= mass


@njit(cache=True)
def split_by_action(found, square, actions, slots, distances):
    """Sort shared neighbours [B,1,p] into their actions' rows [B,A,p], nearest first."""
    batch, num_actions, p = slots.shape
    for b in range(batch):
        count = np.zeros(num_actions, np.int64)
        for a in range(num_actions):
            for i in range(p):
                slots[b, a, i], distances[b, a, i] = -1, np.inf
        for i in range(p):
            slot = found[b, 0, i]
            if slot >= 0:
                a = actions[slot]
                slots[b, a, count[a]], distances[b, a, count[a]] = slot, square[b, 0, i]
                count[a] += 1


@njit(cache=True)
def descend(keys, values, slots, key_grad, value_grad, key_rate, value_rate, unit):
    """One step of gradient descent on the rows `slots` [M]; repeated rows add up, in order."""
    dim = keys.shape[1]
    for i in range(slots.shape[0]):
        slot = slots[i]
        if slot >= 0:
            values[slot] -= np.float32(value_rate) * value_grad[i]
            for d in range(dim):
                keys[slot, d] -= np.float32(key_rate) * key_grad[i, d]
    for i in range(slots.shape[0] if unit else 0):
        slot = slots[i]
        if slot >= 0:
            square = np.float32(0)
            for d in range(dim):
                square += keys[slot, d] * keys[slot, d]
            for d in range(dim):
                keys[slot, d] /= max(np.sqrt(square), np.float32(1e-12))


def episodic_value(
    query: Tensor, keys: Tensor, values: Tensor, valid: Tensor, delta: float = 1e-3
) -> Tensor:
    """Q [...] of the inverse kernel, differentiable in all of query, keys and values.

    Args:
        query: [..., D], from the encoder.
        keys: [..., p, D] and values: [..., p], from `EpisodicMemory.gather`.
        valid: [..., p] bool; without any valid neighbour the value is 0.
        delta: squared distance at which the kernel has halved.

    For all actions of a batch at once: query [B, 1, D] with keys [B, A, p, D].
    """
    square = (query.unsqueeze(-2) - keys).square().sum(-1)  # [..., p]
    kernel = torch.where(valid, 1 / (square + delta), 0)
    mass = kernel.sum(-1)
    return (kernel * values).sum(-1) / torch.where(mass > 0, mass, 1)
