"""Notices, step by step, that the game has changed, and whether it is a game known already.

Every vector step gives N signals (one an environment) of D numbers: block means of the newest
frame, and the spikes of the latent layer. What is usual in a context is a running mean m_i and
variance v_i of them; how unusual one signal s is, its standardised distance

    d = mean_i min(CAP, (s_i - m_i)^2 / (v_i + floor))

A new level is met by one environment at a time, another game by all of them at once: a step counts
with its *most usual* environment, x = log(min over environments of d); with both signals, it counts
with the one that finds it more usual. Unusual steps add up (CUSUM, Page 1954):

    S <- max(0, S + min(x, CLIP) - slack)        alarm: S > threshold

The clip asks for several odd steps in a row. While S grows, m and v stand still, so that a change
is not learned before it is noticed; a slow drift (an encoder that learns, a policy that gets
further) is learned before it is taken for a change.

A game does not change within an episode. A stretch of odd steps can only be another game if every
environment has begun an episode since shortly before it (`fresh`); otherwise it is a scene of the
same game that all environments have come to together, as they do in Krull after 230 vector steps,
and is learned as such.

What it cannot do. When the encoder had just begun to learn, the variance of its spikes covered
other games, and changes were missed; hence the screen is the default. A context of many different
scenes (Private Eye) has so large a variance that a game which resembles their mean (Asterix) passes
for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from errors import require

BLOCK = 7  # pixels; 84 x 84 pixels become 12 x 12 block means
CAP = 100.0  # squared standard deviations that one number may contribute
CLIP = 3.0  # log distance that one step may contribute
# Least variance: of a block mean 10 grey levels squared, since a static block that flickers a
# little means nothing; of the spikes, which have no such scale, a tenth of the mean variance.
FLOOR = {"screen": 100.0, "spikes": None}
SIGNALS = ("screen", "spikes", "both")


@dataclass(frozen=True)
class ChangeConfig:
    """How changes of game are noticed and contexts are numbered, without labels.

    Chosen on recorded signals of pong, boxing and up_n_down (trained, seed 100) and of random play
    of 16 games: at a change x stays above 1.7 with either signal, within a game below 0.6.
    """

    # screen: 12 x 12 means of the newest frame; spikes: the latent layer; both: the lesser of them
    signal: str = "screen"
    memory: int = 1_000  # vector steps over which mean and variance forget
    warm_up: int = 50  # vector steps of a new context before its first alarm
    slack: float = 1.0  # log distance up to which a step is usual
    # vector steps after its beginning within which an episode can turn out to be of another game;
    # changes were noticed within 8 [benchmarks/results/change_detection.json]
    fresh: int = 50
    threshold: float = 4.0  # sum of the log distances beyond the slack that is an alarm
    recognise: bool = True  # a game whose screen is that of a known context is that context again
    contexts: int = 16  # task_labels=none: contexts at most, or as many as games if those are more

    def __post_init__(self) -> None:
        require(
            self.signal in SIGNALS,
            f"change.signal={self.signal} is not one of {', '.join(SIGNALS)}",
        )
        for key in ("memory", "warm_up", "fresh", "contexts"):
            require(getattr(self, key) >= 1, f"change.{key} must be at least 1")
        require(self.contexts <= 1_000, f"change.contexts={self.contexts} must be at most 1,000")
        require(self.slack < CLIP, f"change.slack={self.slack} must be below {CLIP:g}")
        require(self.threshold > 0, "change.threshold must be above 0")


def screen(obs: np.ndarray) -> np.ndarray:
    """Block means [N, 144], in grey levels, of the newest frames of obs uint8 [N, 4, 84, 84]."""
    n, side = len(obs), obs.shape[-1] // BLOCK
    blocks = obs[:, -1].reshape(n, side, BLOCK, side, BLOCK)
    sums = blocks.sum(4, dtype=np.uint16).sum(2, dtype=np.uint16)
    return sums.reshape(n, -1).astype(np.float64) / BLOCK**2


class Usual:
    """Running mean and variance of one context's signals.

    Args:
        signal: its kind, a key of FLOOR.
        memory: vector steps.
    """

    def __init__(self, signal: str, memory: int) -> None:
        self.floor, self.memory = FLOOR[signal], memory
        self.count = 0  # vector steps seen
        self.mean = self.var = np.zeros(0)  # [D]

    def log_distances(self, signals: np.ndarray) -> np.ndarray:
        """log d [N] of signals [N, D]."""
        floor = 0.1 * self.var.mean() + 1e-6 if self.floor is None else self.floor
        odd = (signals - self.mean) ** 2 / (self.var + floor)
        return np.log(np.minimum(odd, CAP).mean(1) + 1e-3)

    def learn(self, signals: np.ndarray) -> None:
        """Take a vector step [N, D] for usual."""
        if not self.count:
            self.mean, self.var = signals.mean(0), signals.var(0)
        self.count += 1
        rate = max(1 / self.memory, 1 / self.count)
        miss = signals - self.mean
        self.mean = self.mean + rate * miss.mean(0)
        self.var = self.var + rate * ((miss**2).mean(0) - self.var)

    def state_dict(self) -> dict:
        return {"count": self.count, "mean": self.mean.copy(), "var": self.var.copy()}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.mean, self.var = state["count"], state["mean"].copy(), state["var"].copy()


class ChangeDetector:
    """`see(signals)` says whether the game has just changed; `begin` says what is usual next."""

    def __init__(self, config: ChangeConfig) -> None:
        self.config = config
        self.usual: dict[str, Usual] = {}  # by kind of signal
        self.sum = 0.0  # S
        self.unusual = 0  # vector steps since S left zero
        self.age: np.ndarray | None = None  # [N] vector steps since each episode began
        self.distance = 0.0  # d of the last step
        self.highest = 0.0  # largest S since it was last asked for

    def begin(self, screens: Usual) -> None:
        """A context begins or goes on; `screens` is what it knows. Spikes of a context that comes
        back are new, since the encoder has learned in the meantime."""
        self.usual = {"screen": screens}
        if self.config.signal != "screen":
            self.usual["spikes"] = Usual("spikes", self.config.memory)
        self.sum, self.unusual = 0.0, 0

    def see(self, signals: dict[str, np.ndarray], first: np.ndarray) -> bool:
        """Signals [N, D] of a vector step by kind, of every kind in `usual`; first bool [N]: they
        are the first of an episode."""
        c = self.config
        age = np.zeros(len(first), np.int64) if self.age is None else self.age + 1
        self.age = np.where(first, 0, age)
        if min(usual.count for usual in self.usual.values()) >= c.warm_up:
            judges = self.usual if c.signal == "both" else (c.signal,)
            x = min(float(self.usual[k].log_distances(signals[k]).min()) for k in judges)
            self.distance = float(np.exp(x))
            within = (self.age - self.unusual).max() > c.fresh
            self.sum = 0.0 if within else max(0.0, self.sum + min(x, CLIP) - c.slack)
            self.highest = max(self.highest, self.sum)
        self.unusual = self.unusual + 1 if self.sum > 0 else 0
        if self.sum == 0:
            for kind, usual in self.usual.items():
                usual.learn(signals[kind])
        return self.sum > c.threshold

    def scalars(self) -> dict[str, float]:
        """Numbers for the log: S, its largest value since the last line, and d."""
        out = {
            "change/score": self.sum,
            "change/highest": self.highest,
            "change/distance": self.distance,
        }
        self.highest = self.sum
        return out

    def state_dict(self) -> dict:
        """Without the screens, which the contexts keep."""
        spikes = self.usual.get("spikes")
        return {
            "spikes": None if spikes is None else spikes.state_dict(),
            "sum": self.sum,
            "unusual": self.unusual,
            "age": None if self.age is None else self.age.copy(),
            "distance": self.distance,
            "highest": self.highest,
        }

    def load_state_dict(self, state: dict, screens: Usual) -> None:
        self.begin(screens)
        if state["spikes"] is not None:
            self.usual["spikes"].load_state_dict(state["spikes"])
        self.sum, self.distance = state["sum"], state["distance"]
        self.unusual = state.get("unusual", 0)  # runs of earlier versions have none of these
        self.age = state.get("age")
        self.highest = state["highest"]
