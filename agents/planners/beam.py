"""Batched beam search with VPN's mixed backup.

    Q^d(s, a) = r + gamma c V^d(s')
    V^1(s) = V(s),   V^d(s) = V(s) / d + (d - 1) / d max_a Q^(d-1)(s, a)       (Oh 2017, 1707.03497)

with V(s) = max_a q(s, a) of the agent. Averaging each level's own value with what the search found
exploits errors of the model less than a hard maximum does. All actions are tried in the root; below
it the `width` best moments of each level, by the return on the way there and their value, are
thought on from, each with its `branch` best actions. A moment that is not keeps V(s).

With width >= A and branch = 1 it is a rollout: every action is tried once, and the agent's own
greedy policy follows (Tesauro & Galperin 1996, "On-line policy improvement using Monte-Carlo
search").

Shapes: B moments, A actions, M nodes of a level, L latent width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agents.planners.base import Model, PlanResult, Tree, ValueFn
from agents.planners.config import PlannerConfig


class _Level(NamedTuple):
    """Nodes of one depth."""

    parent: Tensor  # [B, M] node of the level above; the root's children have 0
    action: Tensor  # [B, M]
    there: Tensor  # [B, M] bool: such an action exists
    reward: Tensor  # [B, M]
    discount: Tensor  # [B, M] gamma times the probability of going on
    latent: Tensor  # [B, M, L]
    q: Tensor  # [B, M, A]
    value: Tensor  # [B, M]
    path: Tensor  # [B, M] discounted reward up to and including the step that led here
    path_discount: Tensor  # [B, M]


def _expand(
    model: Model,
    value_fn: ValueFn,
    gamma: float,
    latent: Tensor,  # [B, K, L] moments to think on from
    path: Tensor,  # [B, K]
    path_discount: Tensor,  # [B, K]
    actions: Tensor,  # [B, K, C]
    there: Tensor,  # [B, K, C]
    parent: Tensor,  # [B, K] their places in their level
) -> _Level:
    batch, kept, children = actions.shape
    spread = latent[:, :, None].expand(-1, -1, children, -1)
    step = model.step(spread.reshape(-1, latent.shape[-1]), actions.reshape(-1))
    q = value_fn(step.latent)
    shape = (batch, kept * children)
    reward, discount = step.reward.view(shape), gamma * step.discount.view(shape)
    before = path[:, :, None].expand(-1, -1, children).reshape(shape)
    weight = path_discount[:, :, None].expand(-1, -1, children).reshape(shape)
    return _Level(
        parent[:, :, None].expand(-1, -1, children).reshape(shape),
        actions.reshape(shape),
        there.reshape(shape),
        reward,
        discount,
        step.latent.view(*shape, -1),
        q.view(*shape, -1),
        q.amax(1).view(shape),
        before + weight * reward,
        weight * discount,
    )


@torch.no_grad()
def plan(
    config: PlannerConfig,
    root: Tensor,
    root_q: Tensor,
    mask: Tensor,
    model: Model,
    value_fn: ValueFn,
    gamma: float,
) -> PlanResult:
    """Search `config.depth` steps ahead.

    root [B, L], root_q [B, A] of the agent, mask [B, A] bool: actions that exist.
    """
    root_q = root_q.masked_fill(~mask, -torch.inf)
    if config.depth == 0:
        return PlanResult(root_q, root_q.argmax(1), None)
    batch, num_actions = root_q.shape
    zero = torch.zeros((batch, 1), device=root.device)
    every = torch.arange(num_actions, device=root.device).expand(batch, 1, -1)
    levels = [
        _expand(
            model, value_fn, gamma, root[:, None], zero, zero + 1, every, mask[:, None], zero.long()
        )
    ]
    for _ in range(config.depth - 1):
        last = levels[-1]
        promise = (last.path + last.path_discount * last.value).masked_fill(~last.there, -torch.inf)
        kept = promise.topk(min(config.width, promise.shape[1]), 1).indices  # [B, K]
        q = _rows(last.q, kept)  # [B, K, A]
        best = q.topk(min(config.branch, num_actions), 2)
        exists = _rows(last.there, kept)[:, :, None] & torch.isfinite(best.values)
        levels.append(
            _expand(
                model,
                value_fn,
                gamma,
                _rows(last.latent, kept),
                _rows(last.path, kept),
                _rows(last.path_discount, kept),
                best.indices,
                exists,
                kept,
            )
        )
    ways = _backup(levels)
    q = ways[0].masked_fill(~mask, -torch.inf)  # the root's children are in the actions' order
    return PlanResult(q, q.argmax(1), _tree(levels, ways))


def _backup(levels: list[_Level]) -> list[Tensor]:
    """Values [B, M] of the way into each node, per level."""
    value, ways = levels[-1].value, []
    for remaining, (level, above) in enumerate(zip(levels[::-1], [*levels[-2::-1], None]), 1):
        way = (level.reward + level.discount * value).masked_fill(~level.there, -torch.inf)
        ways.append(way)
        if above is None:
            break
        best = torch.full_like(above.value, -torch.inf)
        best = best.scatter_reduce(1, level.parent, way, "amax")
        d = remaining + 1
        mixed = above.value / d + best * ((d - 1) / d)
        value = torch.where(torch.isfinite(best), mixed, above.value)
    return ways[::-1]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x [B, M, ...] at index [B, K]."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def _tree(levels: list[_Level], ways: list[Tensor]) -> Tree:
    parents, above, end = [], 0, 0  # first node of the level above, and of this one
    for depth, level in enumerate(levels):
        at = level.parent + above if depth else torch.full_like(level.parent, -1)
        parents.append(at.masked_fill(~level.there, -2))
        above, end = end, end + level.parent.shape[1]
    return Tree(
        torch.cat(parents, 1),
        torch.cat([level.action for level in levels], 1),
        torch.cat([level.reward for level in levels], 1),
        torch.cat([level.value for level in levels], 1),
        torch.cat(ways, 1),
        torch.cat([level.latent for level in levels], 1),
    )
