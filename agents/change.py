"""Notices, step by step, that the game has changed.

Every vector step gives N signals (one an environment) of D numbers: block means of the newest
frame, or the spikes of the latent layer. What is usual is a running mean m_i and variance v_i;
how unusual one signal s is, its standardised distance

    d = mean_i min(CAP, (s_i - m_i)^2 / (v_i + floor_i))

A new level is met by one environment at a time, another game by all of them at once: the step's
distance is that of the *most usual* environment, x = log(min over environments of d). It is
standardised by its own running mean and spread, and summed (CUSUM, Page 1954):

    z = (x - level) / spread      S <- max(0, S + min(z, CLIP) - slack)      alarm: S > threshold

The clip asks for several odd steps in a row; while S grows, the running figures stand still, so
that a change is not learned before it is noticed, and a slow drift (an encoder that learns, a
policy that gets further) is learned before it is taken for a change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errors import require

BLOCK = 7  # pixels; 84 x 84 pixels become 12 x 12 block means
CAP = 100.0  # squared standard deviations that one number may contribute
CLIP = 5.0  # standard deviations that one step may contribute
SPREAD = 0.25  # least spread of the log distance


@dataclass(frozen=True)
class ChangeConfig:
    """How a change of game is noticed and how contexts are numbered without labels."""

    signal: str = "screen"  # screen: 12 x 12 means of the newest frame; spikes: the latent layer
    memory: int = 500  # vector steps over which the running figures forget
    warm_up: int = 50  # vector steps after a change in which only figures are gathered
    slack: float = 2.0  # standard deviations that are taken for usual
    threshold: float = 15.0  # sum of the standard deviations beyond the slack that is an alarm
    contexts: int = 16  # task_labels=none: contexts at most

    def __post_init__(self) -> None:
        require(
            self.signal in ("screen", "spikes"),
            f"change.signal={self.signal} is not one of screen, spikes",
        )
        for key in ("memory", "warm_up", "contexts"):
            require(getattr(self, key) >= 1, f"change.{key} must be at least 1")
        for key in ("slack", "threshold"):
            require(getattr(self, key) > 0, f"change.{key} must be above 0")


def screen(obs: np.ndarray) -> np.ndarray:
    """Block means [N, 144], in grey levels, of the newest frames of obs uint8 [N, 4, 84, 84]."""
    n, side = len(obs), obs.shape[-1] // BLOCK
    blocks = obs[:, -1].reshape(n, side, BLOCK, side, BLOCK)
    sums = blocks.sum(4, dtype=np.uint16).sum(2, dtype=np.uint16)
    return sums.reshape(n, -1).astype(np.float64) / BLOCK**2


class Usual:
    """Running mean and variance of signals, and of the log distance from them.

    floor: variance below which differences do not count; None: a tenth of the mean variance.
    """

    def __init__(self, memory: int, floor: float | None) -> None:
        self.memory, self.floor = memory, floor
        self.count = 0  # vector steps seen
        self.mean = self.var = np.zeros(0)
        self.level, self.spread2 = 0.0, 1.0  # of the log distance

    def distances(self, signals: np.ndarray) -> np.ndarray:
        """d [N] of signals [N, D]."""
        floor = 0.1 * self.var.mean() + 1e-6 if self.floor is None else self.floor
        odd = (signals - self.mean) ** 2 / (self.var + floor)
        return np.minimum(odd, CAP).mean(1)

    def log_distance(self, signals: np.ndarray) -> float:
        """x of a vector step."""
        return float(np.log(self.distances(signals).min() + 1e-3))

    def deviation(self, x: float) -> float:
        """z of a log distance."""
        return (x - self.level) / max(self.spread2**0.5, SPREAD)

    def learn(self, signals: np.ndarray) -> None:
        """Take a vector step [N, D] for usual."""
        if not self.count:
            self.mean, self.var = signals.mean(0), signals.var(0)
        x = self.log_distance(signals)
        self.count += 1
        rate = max(1 / self.memory, 1 / self.count)
        miss = signals - self.mean
        self.mean = self.mean + rate * miss.mean(0)
        self.var = self.var + rate * ((miss**2).mean(0) - self.var)
        gap = x - self.level
        self.level += rate * gap
        self.spread2 += rate * (gap**2 - self.spread2)

    def state_dict(self) -> dict:
        return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


class ChangeDetector:
    """`see(signals)` says whether the game has just changed; it then begins anew."""

    def __init__(self, config: ChangeConfig) -> None:
        self.config = config
        self.begin()
        self.highest = 0.0  # largest S since it was last asked for

    def begin(self) -> None:
        """What comes now is usual."""
        # Grey levels have a natural floor: flicker of a few levels in a static block means nothing.
        floor = 16.0 if self.config.signal == "screen" else None
        self.usual = Usual(self.config.memory, floor)
        self.sum, self.distance = 0.0, 0.0

    def see(self, signals: np.ndarray) -> bool:
        """Signals [N, D] of a vector step."""
        c, usual = self.config, self.usual
        if usual.count < c.warm_up:
            usual.learn(signals)
            return False
        x = usual.log_distance(signals)
        z = min(usual.deviation(x), CLIP)
        self.distance = float(np.exp(x))
        self.sum = max(0.0, self.sum + z - c.slack)
        self.highest = max(self.highest, self.sum)
        if self.sum > c.threshold:
            self.begin()
            usual = self.usual
            usual.learn(signals)
            return True
        if self.sum == 0:
            usual.learn(signals)
        return False

    def scalars(self) -> dict[str, float]:
        """Numbers for the log: the score S, its largest value since the last line, and d."""
        out = {
            "change/score": self.sum,
            "change/highest": self.highest,
            "change/distance": self.distance,
        }
        self.highest = self.sum
        return out

    def state_dict(self) -> dict:
        return {
            "usual": self.usual.state_dict(),
            "sum": self.sum,
            "distance": self.distance,
            "highest": self.highest,
        }

    def load_state_dict(self, state: dict) -> None:
        self.usual.load_state_dict(state["usual"])
        self.sum, self.distance = state["sum"], state["distance"]
        self.highest = state["highest"]
