"""Episodic control: MFEC, NEC, and learned values mixed with remembered ones.

What searches the memory is compiled and slow to import, so it is imported when it is asked for.
"""

from __future__ import annotations

from typing import Any

from agents.agent import Agent
from agents.episodic.config import MemoryConfig

__all__ = ["MemoryConfig", "make_agent"]


def make_agent(memory: MemoryConfig, *args: Any, **kwargs: Any) -> Agent:
    """The agent whose memory is controlled as the configuration says; plain `Agent` for none."""
    if memory.controller == "none":
        return Agent(*args, **kwargs)
    from agents.episodic.mfec import MfecAgent
    from agents.episodic.mixed import MixedAgent
    from agents.episodic.nec import NecAgent

    made = {"mix": MixedAgent, "nec": NecAgent, "mfec": MfecAgent}[memory.controller]
    return made(*args, memory=memory, **kwargs)
