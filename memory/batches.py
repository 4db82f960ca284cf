"""What replay gives out. B items, n rewards of a window, K steps of a sequence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memory.pool import ArrayPool


class Batch(NamedTuple):
    """B transitions with the rewards of up to n steps."""

    obs_tm1: np.ndarray  # uint8 [B, 4, 84, 84], oldest frame first
    action_tm1: np.ndarray  # int64 [B]
    rewards: np.ndarray  # float32 [B, n], raw; zero from `steps` on
    steps: np.ndarray  # int64 [B]: k <= n, the number of rewards that count
    terminated: np.ndarray  # bool [B]: the k-th step terminated; nothing bootstraps from obs_t
    obs_t: np.ndarray  # uint8 [B, 4, 84, 84], k steps later; the last one of a game that is over
    task: np.ndarray  # int64 [B]
    indices: np.ndarray  # int64 [B]: names of the transitions, never used twice
    weights: np.ndarray  # float32 [B]: importance weights, ones without priorities


class SequenceBatch(NamedTuple):
    """B stretches of K steps within one stream; what lies beyond `steps` is filled up.

    The observations overlap: frames[b, k : k + 4] is the one before step k, see `obs`.
    """

    frames: np.ndarray  # uint8 [B, K + 4, 84, 84]; the last known frame is repeated at the end
    action: np.ndarray  # int64 [B, K]; zero from `steps` on
    rewards: np.ndarray  # float32 [B, K], raw; zero from `steps` on
    terminated: np.ndarray  # bool [B, K]; only the step before `steps` can be True
    steps: np.ndarray  # int64 [B]: the number of steps that count, 1 to K
    task: np.ndarray  # int64 [B]
    indices: np.ndarray  # int64 [B]: names of the first transitions

    def obs(self) -> np.ndarray:
        """uint8 [B, K + 1, 4, 84, 84], a read-only view: observation k is that before step k,
        and observation `steps` that after the last step, unless a game was over there."""
        view = np.lib.stride_tricks.sliding_window_view(self.frames, 4, axis=1)
        return np.moveaxis(view, -1, 2)

    def window(self, n_step: int, pool: ArrayPool) -> Batch:
        """The first transition of each sequence with the rewards of up to n <= K steps."""
        count = len(self.steps)
        steps = np.minimum(self.steps, n_step)
        return Batch(
            self.stacks(np.zeros(count, np.int64), pool),
            self.action[:, 0],
            self.rewards[:, :n_step],
            steps,
            self.terminated[:, :n_step].any(1),
            self.stacks(steps, pool),
            self.task,
            self.indices,
            np.ones(count, np.float32),
        )

    def stacks(self, at: np.ndarray, pool: ArrayPool) -> np.ndarray:
        """uint8 [B, 4, 84, 84]: observation at[b] <= K of sequence b, in an array of the pool."""
        out = pool.take((len(at), 4, *self.frames.shape[2:]))
        for row, (frames, k) in zip(out, zip(self.frames, at)):
            row[:] = frames[k : k + 4]
        return out
