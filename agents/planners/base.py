"""What a planner is: a pure function from a moment and its values to better values.

    result = plan(config, root, root_q, mask, model, value_fn, gamma)

Shapes: B moments (environments), M tree nodes, A actions, L latent width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from agents.world_model import ModelStep

ValueFn = Callable[[Tensor], Tensor]
"""value_fn(latent [M, L]) -> q [M, A], -inf for actions that the game does not have."""


class Model(Protocol):
    def step(self, latent: Tensor, action: Tensor) -> ModelStep:
        """Imagine action int64 [M] in latent [M, L]."""


class Tree(NamedTuple):
    """What was imagined, for pictures; node i of row b, in the order of imagination."""

    parent: Tensor  # [B, M] int64; -1: the moment itself, -2: no such node
    action: Tensor  # [B, M] int64 that led to it
    reward: Tensor  # [B, M] imagined on the way
    value: Tensor  # [B, M] of the node itself, max over its actions
    q: Tensor  # [B, M] of the way to it, after the search
    latent: Tensor  # [B, M, L]


class PlanResult(NamedTuple):
    q: Tensor  # [B, A] values after the search; -inf for actions that the game does not have
    action: Tensor  # [B] int64
    tree: Tree | None
