"""Gumbel search: policy improvement with few simulations (Danihelka 2022, "Policy improvement by
planning with Gumbel"), as in mctx.

The root's `considered` best actions by g + logits are searched by sequential halving: in each of
ceil(log2 m) phases they get the same number of simulations, then the better half by
g + logits + sigma(q) goes on. g is drawn anew for each decision made to learn from: the m actions
are then a sample of the prior without replacement, and what is played explores. An evaluation has
g = 0. Below, argmax softmax(logits + sigma(q)) - N / (1 + sum N) is
followed, and a simulation ends with the first moment that was not imagined before, valued by
V(s) = max_a q(s, a). Actions that were not tried have the value v_mix.

A Q-learner has no policy: the prior's logits are Q, standardised over the actions that exist, over
a temperature. Departure: the actions of one round of a phase are searched at once, since their
subtrees share nothing; mctx's order would change sigma's scale between them by one visit.

Shapes: B moments, A actions, m considered actions, T = B m subtrees, S nodes of each, L latent.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np
import torch
from torch import Tensor

from agents.planners.base import Model, PlanResult, Tree, ValueFn
from agents.planners.config import PlannerConfig


def rounds(considered: int, simulations: int) -> list[int]:
    """How many of the considered actions, best first, are visited in each round.

    The numbers add up to `simulations`; after each phase of equal numbers half of them is left.
    """
    out: list[int] = []
    left, phases, count = simulations, max(1, ceil(log2(considered))), considered
    while left > 0:
        for _ in range(max(1, simulations // (phases * count))):
            if left > 0:
                out.append(min(count, left))
                left -= out[-1]
        count = max(2, count // 2) if considered > 1 else 1
    return out


def prior_logits(q: np.ndarray, temperature: float) -> np.ndarray:
    """Q [..., A], standardised over finite entries, over the temperature; -inf stays."""
    there = np.isfinite(q)
    count = there.sum(-1, keepdims=True)
    mean = np.where(there, q, 0).sum(-1, keepdims=True) / count
    apart = np.where(there, q - mean, 0)
    spread = np.sqrt((apart**2).sum(-1, keepdims=True) / count)
    return np.where(there, apart / (spread + 1e-8) / temperature, -np.inf)


def completed_q(
    q: np.ndarray, visits: np.ndarray, logits: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """q [..., A] where visited, else v_mix (Danihelka 2022, appendix D, eq. 33).

    v_mix = (v + sum N * sum(pi q) / sum(pi)) / (1 + sum N), sums over visited actions; value [...].
    """
    visited = visits > 0
    prior = _softmax(logits)
    weight = np.where(visited, prior, 0).sum(-1)
    mean = np.where(visited, prior * q, 0).sum(-1) / np.maximum(weight, 1e-12)
    total = visits.sum(-1)
    mix = (value + total * mean) / (1 + total)
    return np.where(visited, q, mix[..., None])


def sigma(completed: np.ndarray, visits: np.ndarray, there: np.ndarray, config: PlannerConfig):
    """sigma(q) = (offset + max N) scale q, with q rescaled to [0, 1] (Danihelka 2022, eq. 8)."""
    low = np.where(there, completed, np.inf).min(-1, keepdims=True)
    high = np.where(there, completed, -np.inf).max(-1, keepdims=True)
    rescaled = (completed - low) / np.maximum(high - low, 1e-8)
    most = visits.max(-1, keepdims=True)
    return (config.visit_offset + most) * config.value_scale * rescaled


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


class _Subtrees:
    """T trees of up to S nodes, each below one action of a root; node 0 is what it leads to."""

    def __init__(self, trees: int, size: int, num_actions: int, latent: Tensor) -> None:
        self.size = np.zeros(trees, np.int64)
        self.parent = np.full((trees, size), -2, np.int64)
        self.action = np.zeros((trees, size), np.int64)
        self.reward = np.zeros((trees, size))
        self.discount = np.zeros((trees, size))  # gamma times the probability of going on
        self.value = np.zeros((trees, size))
        self.logits = np.zeros((trees, size, num_actions))
        self.child = np.full((trees, size, num_actions), -1, np.int64)
        self.visits = np.zeros((trees, size, num_actions))
        self.returns = np.zeros((trees, size, num_actions))  # sums over the visits
        self.latent = latent.new_zeros((trees, size, latent.shape[-1]))

    def select(self, rows: np.ndarray, config: PlannerConfig) -> tuple[list, np.ndarray]:
        """Follow the interior rule in the trees `rows` [R] to an untried action.

        Returns the path, a list of (node [R], action [R], on [R] bool), and the node [R] that the
        last action is tried in.
        """
        node = np.zeros(len(rows), np.int64)
        on = np.ones(len(rows), bool)
        path = []
        while on.any():
            logits, visits = self.logits[rows, node], self.visits[rows, node]
            q = self.returns[rows, node] / np.maximum(visits, 1)
            completed = completed_q(q, visits, logits, self.value[rows, node])
            policy = _softmax(logits + sigma(completed, visits, np.isfinite(logits), config))
            score = policy - visits / (1 + visits.sum(-1, keepdims=True))
            action = np.where(np.isfinite(logits), score, -np.inf).argmax(-1)
            path.append((node, action, on))
            below = self.child[rows, node, action]
            on = on & (below >= 0)
            node = np.where(on, below, node)
        return path, node


@torch.no_grad()
def plan(
    config: PlannerConfig,
    root: Tensor,
    root_q: Tensor,
    mask: Tensor,
    model: Model,
    value_fn: ValueFn,
    gamma: float,
    gumbel: np.ndarray | None = None,
) -> PlanResult:
    """Search with `config.simulations` imagined moments.

    root [B, L], root_q [B, A] of the agent, mask [B, A] bool: actions that exist; gumbel [B, A]:
    standard Gumbel noise of the root, None for none (evaluation).
    """
    root_q = root_q.masked_fill(~mask, -torch.inf)
    if config.simulations == 0:
        return PlanResult(root_q, root_q.argmax(1), None)
    there = mask.cpu().numpy()
    batch, num_actions = there.shape
    start = root_q.cpu().numpy().astype(np.float64)
    logits = prior_logits(start, config.prior_temperature)
    first = logits + (0.0 if gumbel is None else gumbel)
    m = min(config.considered, int(there.sum(1).min()))
    schedule = rounds(m, config.simulations)
    considered = np.argsort(-first, 1, kind="stable")[:, :m]  # [B, m]
    trees = _Subtrees(batch * m, len(schedule), num_actions, root)
    visits, returns = np.zeros((batch, num_actions)), np.zeros((batch, num_actions))
    value = start.max(1)
    env = np.arange(batch)[:, None]

    def scores() -> tuple[np.ndarray, np.ndarray]:
        q = completed_q(returns / np.maximum(visits, 1), visits, logits, value)
        return first + sigma(q, visits, there, config), q

    for count in schedule:
        # The best by score among those that were visited most go on.
        score = scores()[0][env, considered] + 1e9 * visits[env, considered]
        order = np.argsort(-score, 1, kind="stable")[:, :count]  # [B, count]
        rows = (env * m + order).ravel()
        chosen = considered[env, order]  # [B, count]
        gained = _simulate(trees, rows, chosen.ravel(), root, model, value_fn, gamma, config, m)
        returns[env, chosen] += gained.reshape(batch, count)
        visits[env, chosen] += 1
    score, q = scores()
    final = np.where(visits == visits.max(1, keepdims=True), score, -np.inf)
    action = torch.from_numpy(final.argmax(1)).to(root.device)
    out = torch.from_numpy(np.where(there, q, -np.inf)).to(root_q)
    return PlanResult(out, action, _tree(trees, considered, visits, returns))


def _simulate(
    trees: _Subtrees,
    rows: np.ndarray,  # [R] trees
    root_action: np.ndarray,  # [R]
    root: Tensor,
    model: Model,
    value_fn: ValueFn,
    gamma: float,
    config: PlannerConfig,
    considered: int,
) -> np.ndarray:
    """One more simulation in each of these trees; its return [R] as seen from the root."""
    new = trees.size[rows]
    fresh = bool((new == 0).all())  # all trees of a round are equally old
    if fresh:
        path, at, action = [], np.full(len(rows), -1), root_action
        before = root[torch.from_numpy(rows // considered).to(root.device)]
    else:
        path, at = trees.select(rows, config)
        action = np.zeros(len(rows), np.int64)
        for _, taken, on in path:
            action = np.where(on, taken, action)
        before = trees.latent[rows, at]
    step = model.step(before, torch.from_numpy(action).to(root.device))
    q = value_fn(step.latent).cpu().numpy().astype(np.float64)
    trees.parent[rows, new], trees.action[rows, new] = at, action
    trees.reward[rows, new] = step.reward.cpu().numpy()
    trees.discount[rows, new] = gamma * step.discount.cpu().numpy()
    trees.value[rows, new] = gained = q.max(1)
    trees.logits[rows, new] = prior_logits(q, config.prior_temperature)
    trees.latent[rows, new] = step.latent
    trees.size[rows] += 1
    if not fresh:
        trees.child[rows, at, action] = new
    node = new
    for parent, taken, on in reversed(path):
        below = np.where(on, trees.child[rows, parent, taken], node)
        through = trees.reward[rows, below] + trees.discount[rows, below] * gained
        gained = np.where(on, through, gained)
        trees.returns[rows, parent, taken] += np.where(on, gained, 0.0)
        trees.visits[rows, parent, taken] += on
        node = np.where(on, parent, node)
    top = np.zeros_like(new)
    return trees.reward[rows, top] + trees.discount[rows, top] * gained


def _tree(
    trees: _Subtrees, considered: np.ndarray, visits: np.ndarray, returns: np.ndarray
) -> Tree:
    """The subtrees of each root side by side."""
    batch, m = considered.shape
    size = trees.parent.shape[1]
    offset = np.tile(np.arange(m) * size, batch)[:, None]  # [T, 1]
    parent = np.where(trees.parent >= 0, trees.parent + offset, trees.parent)
    rows = np.arange(batch * m)[:, None]
    up = np.maximum(trees.parent, 0)
    q = trees.returns[rows, up, trees.action] / np.maximum(trees.visits[rows, up, trees.action], 1)
    env = np.arange(batch)[:, None]
    q[:, 0] = (returns / np.maximum(visits, 1))[env, considered].ravel()

    def put(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x.reshape(batch, m * size))

    return Tree(
        put(parent),
        put(trees.action),
        put(trees.reward),
        put(trees.value),
        put(q),
        trees.latent.view(batch, m * size, -1),
    )
