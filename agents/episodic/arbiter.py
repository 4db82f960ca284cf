"""Who is believed: the learned values or the remembered ones.

    q(s, a) = q_slow + c (q_fast - bias - q_slow)        c = w * confidence(s, a)

The confidence says whether the memory knows something like this moment. The weight w says whether
it is worth listening to, and is earned: of each return that becomes known, both values that were
given for it beforehand are judged, and two unbiased estimates with independent errors are best
mixed in inverse proportion to their mean squared errors, w = e_slow / (e_slow + e_fast). A memory
that predicts worse than the network therefore fades out by itself. The bias is the mean
difference of the two: returns are those of the playing policy, learned values those of the best
action, and that gap would drive the agent away from whatever it has tried.

One set of figures per game. Shapes: M returns, B batch, A actions.
"""

from __future__ import annotations

import numpy as np


class Arbiter:
    def __init__(self, games: int, max_weight: float, rate: float, warm_up: int) -> None:
        self.max_weight, self.rate, self.warm_up = max_weight, rate, warm_up
        self.count = np.zeros(games, np.int64)  # returns judged
        self.fast_error = np.zeros(games)  # mean square
        self.slow_error = np.zeros(games)
        self.bias = np.zeros(games)  # of q_fast - q_slow

    def judge(
        self, game: int, returns: np.ndarray, fast: np.ndarray, slow: np.ndarray, trust: np.ndarray
    ) -> None:
        """Returns [M], the values given for them when they were played, and the confidence."""
        known = trust > 0
        if not known.any():
            return
        returns, fast, slow, trust = (x[known].astype(np.float64) for x in
                                      (returns, fast, slow, trust))  # fmt: skip
        n = len(returns)
        self.count[game] += n
        step = max(1 - (1 - self.rate) ** n, n / self.count[game])  # a plain mean at first
        gap = np.average(fast - slow, weights=trust)
        self.bias[game] += step * (gap - self.bias[game])
        for error, miss in (
            (self.fast_error, returns - fast),
            (self.slow_error, returns - slow - self.bias[game]),
        ):
            error[game] += step * (np.average(miss**2, weights=trust) - error[game])

    def weight(self, game: int) -> float:
        """w of a game, at most `max_weight`; 0 before `warm_up` returns were judged."""
        total = self.slow_error[game] + self.fast_error[game]
        if self.count[game] < self.warm_up or total == 0:
            return 0.0
        return min(self.max_weight, float(self.slow_error[game] / total))

    def mix(self, game: int, slow: np.ndarray, fast: np.ndarray, trust: np.ndarray) -> np.ndarray:
        """Mixed values [B,A]; an action that the memory does not know keeps its learned one."""
        share = self.weight(game) * trust
        return slow + share * (fast - np.float32(self.bias[game]) - slow)

    def state_dict(self) -> dict:
        return {k: getattr(self, k).copy() for k in ("count", "fast_error", "slow_error", "bias")}

    def load_state_dict(self, state: dict) -> None:
        for name, array in state.items():
            getattr(self, name)[:] = array
