"""What an emulator backend has to do; everything above it is shared (see `envs/vector.py`).

Shapes: N environments, observations uint8 [N, 4, 84, 84], oldest frame first.
"""

from typing import NamedTuple, Protocol

import numpy as np

OBS_SHAPE = (4, 84, 84)
"""Stacked frames, height, width."""

KEEP_RANDOM = -1
"""In place of a seed: the environment's own generator goes on where it is."""


class CoreStep(NamedTuple):
    """Results of one agent step. The arrays are the receiver's own: they are not overwritten."""

    obs: np.ndarray  # uint8 [N, 4, 84, 84]
    reward: np.ndarray  # float32 [N], raw
    terminated: np.ndarray  # bool [N], game over
    truncated: np.ndarray  # bool [N], frame cap reached and not over
    lives: np.ndarray  # int [N]


class EmulatorCore(Protocol):
    """N emulators of one game. They do not restart by themselves.

    After a step that ended an episode the caller resets that environment before it trusts any
    later result of it; stepping it before that is harmless.
    """

    num_envs: int

    def reset(self, mask: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start new episodes where mask [N]; one seed, or KEEP_RANDOM, per True entry.

        Returns (obs [N, 4, 84, 84], lives [N]) of all environments.
        """

    def send(self, actions: np.ndarray) -> None:
        """Begin one agent step with actions int64 [N], indices into the full action set."""

    def recv(self) -> CoreStep:
        """Wait for the step that `send` began."""

    def close(self) -> None:
        """Free the emulators."""
