"""Memory: replay of transitions, episodic memory, synaptic consolidation."""

from memory.batches import Batch, SequenceBatch
from memory.blocks import BlockArray
from memory.pool import ArrayPool
from memory.replay import ReplayBuffer

__all__ = ["ArrayPool", "Batch", "BlockArray", "ReplayBuffer", "SequenceBatch"]
