"""Episodic control: MFEC, NEC, and learned values mixed with remembered ones."""

from __future__ import annotations

from agents.agent import Agent
from agents.episodic.config import MemoryConfig
from agents.episodic.mfec import MfecAgent
from agents.episodic.mixed import MixedAgent
from agents.episodic.nec import NecAgent
from agents.episodic.remember import RememberingAgent

__all__ = ["MemoryConfig", "MfecAgent", "MixedAgent", "NecAgent", "RememberingAgent", "make_agent"]

CONTROLLERS = {"mix": MixedAgent, "nec": NecAgent, "mfec": MfecAgent}


def make_agent(memory: MemoryConfig, *args, **kwargs) -> Agent:
    """The agent whose memory is controlled as the configuration says; plain `Agent` for none."""
    if memory.controller == "none":
        return Agent(*args, **kwargs)
    return CONTROLLERS[memory.controller](*args, memory=memory, **kwargs)
