"""Configuration of the episodic controllers: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from errors import require

MOST_NEIGHBOURS = 10_000  # more than any paper reads
CONTROLLERS = ("none", "mix", "nec", "mfec")


@dataclass(frozen=True)
class MemoryConfig:
    """What is remembered and who acts on it. The presets are `configs/memory/*.yaml`.

    none: no episodic memory. mix: learned and remembered values, weighted by how well each has
    predicted returns. nec: Neural Episodic Control (1703.01988). mfec: Model-Free Episodic
    Control (1606.04460). Squared distances are between keys of unit length, so from 0 to 4.
    """

    controller: str = "none"  # none | mix | nec | mfec

    # -- what is stored -----------------------------------------------------------------------
    capacity: int = 100_000  # entries (state, action), all games together
    key_dim: int = 64  # numbers in a key
    horizon: int = 100  # agent steps of the stored N-step return; 0 = to the end of the episode
    gamma: float = 0.99  # 1 / agent step, of that return; mix uses the learner's present discount
    partition: str = "task"  # who is guaranteed a share: each task, or each task_action
    update: str = "nec"  # value of a known entry: nec v += alpha (R - v), mfec max(v, R)
    alpha: float = 0.1  # step of update=nec

    # -- how it is read -----------------------------------------------------------------------
    # flat | ivf | hnsw | auto: exact where the capacity is at most 2,048 an action, else ivf
    index: str = "auto"
    scope: str = "action"  # neighbours of each action, or of all actions together (shared)
    neighbours: int = 16  # entries that answer for an action
    kernel: str = "inverse"  # weight 1 / (d^2 + delta), or mean: all alike
    delta: float = 1e-3  # squared distance (NEC)
    reach: float = 1e-2  # squared distance of the nearest entry at which confidence is one half

    # -- a moving encoder ---------------------------------------------------------------------
    version_every: int = 500  # optimiser updates after which stored keys count as outdated
    reembed: int = 0  # outdated entries encoded anew in a vector step; 0 = never
    # mix: of every so many updates one gives the entries of its batch new keys, from the latents it
    # computes anyway; 0 = never. Every update costs 9 % of a step. [measured]
    refresh: int = 2
    audit_every: int = 100  # vector steps between two comparisons of the index with exact search

    # -- mix ----------------------------------------------------------------------------------
    max_weight: float = 0.5  # most that remembered values count beside learned ones
    error_rate: float = 1e-3  # 1 / return; forgetting of the errors that set the weights
    warm_up: int = 2_000  # returns of a game before its memory has a say

    # -- nec ----------------------------------------------------------------------------------
    value_rate: float = 0.1  # gradient step on stored values, in units of the error
    key_rate: float = 1e-2  # gradient step on stored keys
    key_step: float = 1e-2  # longest step of a key for one item of a batch

    def __post_init__(self) -> None:
        choices = {
            "controller": CONTROLLERS,
            "partition": ("task", "task_action"),
            "update": ("nec", "mfec"),
            "index": ("flat", "ivf", "hnsw", "auto"),
            "scope": ("action", "shared"),
            "kernel": ("inverse", "mean"),
        }
        for key, known in choices.items():
            value = getattr(self, key)
            require(value in known, f"memory.{key}={value}: use one of {', '.join(known)}")
        for key in ["capacity", "key_dim", "neighbours", "version_every", "audit_every", "warm_up"]:
            value = getattr(self, key)
            require(value >= 1, f"memory.{key}={value} must be at least 1")
        require(
            self.neighbours <= MOST_NEIGHBOURS,
            f"memory.neighbours={self.neighbours} must be at most {MOST_NEIGHBOURS}",
        )
        for key in ["horizon", "reembed", "refresh", "value_rate", "key_rate"]:
            value = getattr(self, key)
            require(value >= 0, f"memory.{key}={value} must not be negative")
        for key in ["delta", "reach", "key_step"]:
            value = getattr(self, key)
            require(value > 0, f"memory.{key}={value} must be above 0")
        for key in ["alpha", "error_rate"]:
            value = getattr(self, key)
            require(0 < value <= 1, f"memory.{key}={value} must lie in (0, 1]")
        for key in ["gamma", "max_weight"]:
            value = getattr(self, key)
            require(0 <= value <= 1, f"memory.{key}={value} must lie between 0 and 1")
        require(
            self.controller != "mfec" or self.horizon == 0,
            f"memory.horizon={self.horizon}: memory.controller=mfec stores whole returns, set "
            "memory.horizon=0",
        )
        require(
            self.controller != "nec" or self.kernel == "inverse",
            "memory.controller=nec learns through the kernel: set memory.kernel=inverse",
        )
