"""Memory: replay of transitions, episodic memory, synaptic consolidation."""

from memory.blocks import BlockArray
from memory.replay import Batch, ReplayBuffer

__all__ = ["Batch", "BlockArray", "ReplayBuffer"]
