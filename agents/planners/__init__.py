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
    **kwargs: Any,
) -> PlanResult:
    """`plan`, as far as the configuration trusts it: mixed with the agent's own values by `share`,
    and acted on only where it gains at least `gain` over the reactive choice.

    Both go by values. With share below 1, noise of the Gumbel search therefore only has a say in
    which actions are searched, and none in the last choice among them.
    """
    found = plan(config, root, root_q, mask, *args, **kwargs)
    q, action = found.q, found.action
    own = root_q.masked_fill(~mask, -torch.inf)
    if config.share < 1.0:
        q = torch.where(mask, own + config.share * (q - own), -torch.inf)
        action = q.argmax(1)
    if config.gain > 0:
        reactive = own.argmax(1)
        promised = q.gather(1, action[:, None]) - q.gather(1, reactive[:, None])
        action = torch.where(promised[:, 0] >= config.gain, action, reactive)
    return found._replace(q=q, action=action)
