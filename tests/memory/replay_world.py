"""A fake vector environment with small random frames, random ends and lost lives."""

from __future__ import annotations

import numpy as np


class FakeWorld:
    """Follows the border of `envs`; each frame is random, so that no two stacks are alike."""

    def __init__(self, num_envs: int, seed: int, shape=(2, 3), blank_start: bool = True) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_envs, self.shape, self.blank_start = num_envs, shape, blank_start
        self.time = 0
        self.reset()

    def _frame(self) -> np.ndarray:
        return self.rng.integers(1, 256, size=self.shape, dtype=np.uint8)

    def _initial(self) -> np.ndarray:
        stack = np.zeros((4, *self.shape), np.uint8)
        start = 3 if self.blank_start else int(self.rng.integers(4))
        for f in range(start, 4):
            stack[f] = self._frame()
        return stack

    def reset(self) -> None:
        self.obs = np.stack([self._initial() for _ in range(self.num_envs)])
        self.first = np.ones(self.num_envs, bool)

    def step(self, game_over=0.0, truncation=0.0, life_loss=0.0, reset=0.0, task=0) -> dict:
        """The arguments of one `ReplayBuffer.add`."""
        n, rng = self.num_envs, self.rng
        self.time += 1
        over, cut = rng.random(n) < game_over, rng.random(n) < truncation
        lost = rng.random(n) < life_loss
        silent = rng.random(n) < reset  # reset from outside, without an end
        final = np.concatenate(
            [self.obs[:, 1:], np.stack([self._frame() for _ in range(n)])[:, None]], 1
        )
        step = {
            "obs_tm1": self.obs,
            "action": rng.integers(18, size=n),
            "reward": rng.normal(size=n).astype(np.float32),
            "terminated": over | lost,
            "truncated": cut,
            "first": self.first,
            "task": task,
            "final_obs": final if cut.any() else None,
        }
        self.first = over | cut | silent
        self.obs = final.copy()
        for e in np.flatnonzero(self.first):
            self.obs[e] = self._initial()
        return step
