"""Planners: search a world model before acting.

`search(config, ...)` is what an agent calls, `plan` the bare search; agents/planners/base.py says
what goes in and out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agents.planners import beam, gumbel
from agents.planners.base import Model, PlanResult, Tree, ValueFn
from agents.planners.config import PlannerConfig

__all__ = ["Model", "PlanResult", "PlannerConfig", "Tree", "ValueFn", "plan", "search"]

_PLANS = {"beam": beam.plan, "gumbel": gumbel.plan}


def plan(config: PlannerConfig, *args: Any, **kwargs: Any) -> PlanResult:
    """Search as `config.name` says (not none)."""
    return _PLANS[config.name](config, *args, **kwargs)


def search(
    config: PlannerConfig,
    root: Tensor,
    root_q: Tensor,
    mask: Tensor,
    *args: Any,
) -> PlanResult:
    """`plan`, as far as the configuration trusts it: mixed with the agent's own values by `share`,
    and only in moments whose two best actions are closer than `margin`."""
    found = plan(config, root, root_q, mask, *args)
    if config.share == 1.0 and config.margin == 0.0:
        return found
    own = root_q.masked_fill(~mask, -torch.inf)
    q = torch.where(mask, own + config.share * (found.q - own), -torch.inf)
    action = found.action if config.share == 1.0 else q.argmax(1)
    if config.margin > 0:
        best = own.topk(min(2, own.shape[1]), 1).values
        sure = best[:, 0] - best[:, -1] >= config.margin
        q = torch.where(sure[:, None], own, q)
        action = torch.where(sure, own.argmax(1), action)
    return found._replace(q=q, action=action)
