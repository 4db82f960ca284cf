"""Values of a planner: group `planner`."""

from __future__ import annotations

from dataclasses import dataclass

from errors import require

PLANNERS = ("none", "beam", "gumbel")


@dataclass(frozen=True)
class PlannerConfig:
    """`depth`, `width` and `branch` concern the beam: with width >= A and branch = 1 it is a
    rollout of every action (agents/planners/beam.py). `simulations` to `prior_temperature` concern
    the Gumbel search, which explores by Gumbel noise of its root where the agent acts to learn, and
    has none at an evaluation."""

    name: str = "none"  # none | beam | gumbel
    depth: int = 2  # imagined agent steps; 0 is the reactive choice
    width: int = 4  # moments of a level that are thought on from
    branch: int = 4  # actions tried in each of them, the best by the agent's values
    simulations: int = 16  # moments imagined, each from one more action; 0 is the reactive choice
    considered: int = 4  # root actions that the simulations are shared among
    # prior = softmax(standardised Q / temperature). Ours: a Q-learner has no policy.
    prior_temperature: float = 1.0
    value_scale: float = 0.1  # of sigma(q) (mctx's default)
    visit_offset: float = 50.0  # of sigma(q) (mctx's default)
    # How much the search's value counts beside the agent's own: q + share (q_plan - q).
    share: float = 1.0
    # Return; the search overrides the reactive choice only where it promises at least so much more:
    # the values of neighbouring moments differ by noise, and the best of many is the luckiest.
    gain: float = 0.0
    # Share of a batch, of its rows of the present game, whose bootstrap action the search chooses
    # instead of the online network (reanalysed targets; EfficientZero reanalyses 99 %).
    reanalyse: float = 0.0
    memory: bool = True  # imagined moments are valued with the episodic memory, where there is one

    def __post_init__(self) -> None:
        require(
            self.name in PLANNERS, f"planner.name={self.name}: use one of {', '.join(PLANNERS)}"
        )
        for key in ("width", "branch", "considered"):
            require(getattr(self, key) >= 1, f"planner.{key} must be at least 1")
        for key in ("depth", "simulations", "gain", "visit_offset"):
            require(getattr(self, key) >= 0, f"planner.{key} must not be negative")
        for key in ("prior_temperature", "value_scale"):
            require(getattr(self, key) > 0, f"planner.{key} must be above 0")
        for key in ("share", "reanalyse"):
            require(0 <= getattr(self, key) <= 1, f"planner.{key} must lie between 0 and 1")
        require(self.depth <= 8, "planner.depth must be at most 8: the model is trained 5 deep")
