"""Catch: a toy world of pixels that a small network solves in seconds.

A ball falls straight down a grid of 12 x 12 cells, one row an agent step; the paddle, three cells
wide, moves one cell left or right or stays. An episode lasts 11 steps and pays +1 if the ball
lands on the paddle, else -1 (after bsuite's catch, Osband et al. 2020, with Atari's frame size).
Frames are 84 x 84 grey, black ground, 7 x 7 pixels a cell.
"""

import numpy as np

from envs.core import KEEP_RANDOM, OBS_SHAPE, CoreStep
from envs.protocols import ProtocolConfig
from envs.seeding import counter_uniform, episode_seed

GRID = 12
CELL = 7
STEPS = GRID - 1
BALL, PADDLE = 255, 160
_MOVE = np.zeros(18, dtype=np.int64)  # by full action index: whatever the stick says sideways
_MOVE[[3, 6, 8, 11, 14, 16]] = 1  # RIGHT, UPRIGHT, DOWNRIGHT and the same with FIRE
_MOVE[[4, 7, 9, 12, 15, 17]] = -1  # LEFT likewise
_BALL_STREAM, _STICKY_STREAM = 1, 2


class CatchCore:
    """N games of catch, one NumPy expression each for the rules and for the frames.

    Sticky actions count per agent step here. No-op starts and fire reset have no meaning in a
    world without idle time and are left out; there are no lives.
    """

    def __init__(self, protocol: ProtocolConfig, num_envs: int):
        self.num_envs = num_envs
        self._sticky = protocol.sticky
        self._max_steps = protocol.max_steps
        self._seeds = np.zeros(num_envs, dtype=np.int64)
        self._time = np.zeros(num_envs, dtype=np.int64)
        self._ball = np.zeros(num_envs, dtype=np.int64)  # column
        self._paddle = np.zeros(num_envs, dtype=np.int64)  # column of its middle
        self._last = np.zeros(num_envs, dtype=np.int64)  # action before
        self._stack = np.zeros((num_envs, *OBS_SHAPE), dtype=np.uint8)
        self._sent: np.ndarray | None = None

    def reset(self, mask: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for i, seed in zip(np.flatnonzero(mask), seeds):
            keep = seed == KEEP_RANDOM
            self._seeds[i] = episode_seed(int(self._seeds[i]), 0) if keep else seed
        self._time[mask] = 0
        self._last[mask] = 0
        self._paddle[mask] = GRID // 2
        columns = counter_uniform(self._seeds[mask], 0, _BALL_STREAM) * GRID
        self._ball[mask] = columns.astype(np.int64)
        self._stack[mask] = 0  # as ale-py: frames before the first are black
        self._stack[mask, -1] = self._draw()[mask]
        return self._stack.copy(), np.zeros(self.num_envs, dtype=np.int64)

    def send(self, actions: np.ndarray) -> None:
        self._sent = np.asarray(actions)

    def recv(self) -> CoreStep:
        actions, self._sent = self._sent, None
        if self._sticky > 0:
            draws = counter_uniform(self._seeds, self._time, _STICKY_STREAM)
            actions = np.where(draws < self._sticky, self._last, actions)
        self._last = actions
        self._time = np.minimum(self._time + 1, STEPS)
        self._paddle = np.clip(self._paddle + _MOVE[actions], 1, GRID - 2)
        landed = self._time == STEPS
        caught = np.abs(self._ball - self._paddle) <= 1
        reward = np.where(landed, np.where(caught, 1.0, -1.0), 0.0).astype(np.float32)
        self._stack[:, :-1] = self._stack[:, 1:]
        self._stack[:, -1] = self._draw()
        truncated = ~landed & (self._time >= self._max_steps)
        lives = np.zeros(self.num_envs, dtype=np.int64)
        return CoreStep(self._stack.copy(), reward, landed, truncated, lives)

    def close(self) -> None:
        pass

    def _draw(self) -> np.ndarray:
        """Frames uint8 [N, 84, 84] of the present state."""
        cells = np.zeros((self.num_envs, GRID, GRID), dtype=np.uint8)
        rows = np.arange(self.num_envs)
        for offset in (-1, 0, 1):
            cells[rows, GRID - 1, self._paddle + offset] = PADDLE
        cells[rows, self._time, self._ball] = BALL
        return cells.repeat(CELL, axis=1).repeat(CELL, axis=2)
