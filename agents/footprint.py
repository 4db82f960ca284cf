"""How many bytes an agent remembers with, by part: comparisons of methods hold their sum equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from memory import ArrayPool

if TYPE_CHECKING:
    from agents.agent import Agent

PARTS = ("replay", "memory", "consolidation", "clone")


def footprint(agent: Agent) -> dict[str, int]:
    """Bytes of replay, of episodic memory with its index, of consolidation, and of the copy of the
    network that is cloned; as allocated, so from the first step on. Network, target and
    optimiser are every agent's and are left out, and so are the graphs of memory.index=hnsw, which
    faiss holds."""
    keeps = agent.continual
    clone = 0
    if keeps.config.replay.clones:
        clone = held_bytes([p.detach() for p in agent.learner.target.state_dict().values()])
    sizes = (
        held_bytes(agent.replay),
        held_bytes(getattr(agent, "memory", None)),
        keeps.consolidation.nbytes() if keeps.consolidation is not None else 0,
        clone,
    )
    return dict(zip(PARTS, sizes))


def held_bytes(thing: Any) -> int:
    """Bytes of all arrays and tensors that can be reached from `thing`; each memory counts once."""
    seen: set[int] = set()
    total, rest = 0, [thing]
    while rest:
        x = rest.pop()
        if isinstance(x, np.ndarray) and isinstance(x.base, np.ndarray):
            x = x.base  # a view owns nothing
        # A pool's arrays are lent for a batch: they remember nothing.
        skipped = str | bytes | int | float | type | ArrayPool
        if x is None or isinstance(x, skipped) or id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            total += x.nbytes
        elif isinstance(x, torch.Tensor):
            total += x.numel() * x.element_size()
        elif isinstance(x, dict):
            rest += x.values()
        elif isinstance(x, list | tuple | set):
            rest += x
        elif hasattr(x, "__dict__"):
            rest += vars(x).values()
    return total
