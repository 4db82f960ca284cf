"""Half of each batch from the newest transitions, half from a uniform sample of all (CLEAR, Rolnick
2019, section 3: 50 % new, 50 % old), within the bytes of one buffer."""

from __future__ import annotations

from typing import Any

import numpy as np

from memory.batches import Batch, SequenceBatch
from memory.replay import ReplayBuffer
from memory.reservoir import ReservoirReplay


class MixedReplay:
    """A `ReplayBuffer` and a `ReservoirReplay` that are fed and drawn from together.

    What needs names of transitions asks the first of the two.
    """

    def __init__(self, fifo: ReplayBuffer, reservoir: ReservoirReplay) -> None:
        self.fifo, self.reservoir = fifo, reservoir

    def __len__(self) -> int:
        return len(self.fifo) + len(self.reservoir)

    def add(self, *args: Any, **kwargs: Any) -> None:
        self.fifo.add(*args, **kwargs)
        self.reservoir.add(*args, **kwargs)

    def cut(self, obs: np.ndarray) -> None:
        self.fifo.cut(obs)
        self.reservoir.cut(obs)

    def relabel(self, steps: int, task: int) -> None:
        self.fifo.relabel(steps, task)
        self.reservoir.relabel(steps, task)

    def sample(
        self, batch_size: int, n_step: int, rng: np.random.Generator, **kwargs: Any
    ) -> Batch:
        """Half from each; all from one as long as the other is empty."""
        old = batch_size // 2 if len(self.reservoir) else 0
        if len(self.fifo) == 0:
            old = batch_size
        if old in (0, batch_size):
            source = self.reservoir if old else self.fifo
            return source.sample(batch_size, n_step, rng, **kwargs)
        new = self.fifo.sample(batch_size - old, n_step, rng, **kwargs)
        kept = self.reservoir.sample(old, n_step, rng, **kwargs)
        return Batch(*(np.concatenate(pair) for pair in zip(new, kept)))

    def sample_sequences(
        self, batch_size: int, length: int, rng: np.random.Generator, **kwargs: Any
    ) -> SequenceBatch:
        """As `sample`."""
        old = batch_size // 2 if len(self.reservoir) else 0
        if len(self.fifo) == 0:
            old = batch_size
        if old in (0, batch_size):
            source = self.reservoir if old else self.fifo
            return source.sample_sequences(batch_size, length, rng, **kwargs)
        new = self.fifo.sample_sequences(batch_size - old, length, rng, **kwargs)
        kept = self.reservoir.sample_sequences(old, length, rng, **kwargs)
        return SequenceBatch(*(np.concatenate(pair) for pair in zip(new, kept)))

    def newest(self) -> np.ndarray:
        return self.fifo.newest()

    @property
    def slots(self) -> int:
        return self.fifo.slots

    def names_after(self, names: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """As `ReplayBuffer.names_after`; -1 for transitions of the reservoir, which have none."""
        out = np.full(len(names), -1, np.int64)
        own = names >= 0
        if own.any():
            out[own] = self.fifo.names_after(names[own], steps[own])
        return out

    def observations(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.fifo.observations(names)

    def state_dict(self) -> dict[str, Any]:
        return {"fifo": self.fifo.state_dict(), "reservoir": self.reservoir.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fifo.load_state_dict(state["fifo"])
        self.reservoir.load_state_dict(state["reservoir"])
