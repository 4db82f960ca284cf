"""Running episodes, and the returns of their moments once these are known.

A moment is emitted when `horizon` rewards have followed it, with the bootstrap value of the state
reached there (NEC, 1703.01988, eq. 3), or when its episode ends; horizon 0 waits for the end
(MFEC, 1606.04460, eq. 1). What an end emits comes last moment first, as MFEC writes it.

Shapes: N environments, M emitted moments, D key dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One moment of one environment, or arrays of them."""

    key: np.ndarray  # [M,D] float32
    hash: np.ndarray  # [M] int64, of the state
    action: np.ndarray  # [M] int64
    reward: np.ndarray  # [M] float32, as the controller transforms it
    ref: np.ndarray  # [M] int64, name of the transition in replay, -1 none
    fast: np.ndarray  # [M] float32, remembered value of the action when it was taken
    slow: np.ndarray  # [M] float32, learned value of it
    trust: np.ndarray  # [M] float32, confidence of the remembered value


DTYPES = Step(*map(np.dtype, ["f4", "i8", "i8", "f4", "i8", "f4", "f4", "f4"]))


class Returns(NamedTuple):
    """Moments [M] with their returns [M]."""

    steps: Step
    returns: np.ndarray  # [M] float32


def n_step_return(rewards: np.ndarray, gamma: float, bootstrap: float) -> float:
    """sum_i gamma^i r_i + gamma^n bootstrap over rewards [n]."""
    powers = gamma ** np.arange(len(rewards) + 1)
    return float(rewards @ powers[:-1] + powers[-1] * bootstrap)


class Trails:
    """The moments of N running episodes that still wait for their returns."""

    def __init__(self, num_envs: int, horizon: int) -> None:
        self.horizon = horizon
        self.steps: list[list[tuple]] = [[] for _ in range(num_envs)]

    def add(
        self, steps: Step, values: np.ndarray, terminated: np.ndarray, gamma: float
    ) -> list[Returns]:
        """One vector step: `steps` [N], `values` [N] of the states they were taken in."""
        out = []
        for e, trail in enumerate(self.steps):
            if self.horizon and len(trail) == self.horizon:
                rewards = np.array([step[3] for step in trail])
                value = n_step_return(rewards, gamma, float(values[e]))
                out.append(Returns(_stack([trail.pop(0)]), np.array([value], np.float32)))
            trail.append(tuple(field[e] for field in steps))
            if terminated[e]:
                out.append(self.end(e, 0.0, gamma))
        return out

    def end(self, e: int, bootstrap: float, gamma: float) -> Returns:
        """Episode of environment `e` stops; `bootstrap` is the value of where it stopped, 0 after
        a termination. Emits all its moments, the last one first."""
        trail, self.steps[e] = self.steps[e], []
        returns, value = np.empty(len(trail), np.float32), float(bootstrap)
        for i, step in enumerate(reversed(trail)):
            value = float(step[3]) + gamma * value
            returns[i] = value
        return Returns(_stack(trail[::-1]), returns)

    def state_dict(self) -> list[dict]:
        return [{} if not trail else dict(zip(Step._fields, _stack(trail))) for trail in self.steps]

    def load_state_dict(self, state: list[dict]) -> None:
        self.steps = [list(zip(*(trail[name] for name in Step._fields))) if trail else []
                      for trail in state]  # fmt: skip


def _stack(trail: list[tuple]) -> Step:
    columns = zip(*trail) if trail else ([] for _ in Step._fields)
    return Step(*(np.array(c, dtype) for c, dtype in zip(columns, DTYPES)))
