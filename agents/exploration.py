"""Which actions are random: epsilon-greedy, annealed once for every game, more of it in some
emulators than in others.

Shapes: N environments.
"""

from __future__ import annotations

import numpy as np

from agents import schedules
from agents.config import AgentConfig


class Exploration:
    """Draws random actions as the `epsilon_*` values of `config` say, from a generator of its
    own."""

    def __init__(self, config: AgentConfig, seed: int | np.random.SeedSequence) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)

    def epsilon(self, game_steps: int) -> np.ndarray:
        """Probability [N] of a random action after so many agent steps of the game; none where
        noisy weights explore. Spread over the emulators as in Horgan 2018, 1803.00933, section 4,
        but upwards."""
        c = self.config
        if c.noisy:
            return np.zeros(c.num_envs)
        fallen = game_steps - c.epsilon_hold
        annealed = schedules.linear(c.epsilon_start, c.epsilon_end, c.epsilon_decay, fallen)
        last = np.linspace(0, 1, c.num_envs) if c.num_envs > 1 else np.zeros(1)
        return np.maximum(annealed, c.epsilon_end * c.epsilon_spread**last)

    def draw(self, allowed: np.ndarray, game_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the action is to be random, bool [N], and random actions int64 [N] of
        `allowed`."""
        count = self.config.num_envs
        random = self.rng.random(count) < self.epsilon(game_steps)
        return random, allowed[self.rng.integers(len(allowed), size=count)]

    def state_dict(self) -> dict:
        return self.rng.bit_generator.state

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state
