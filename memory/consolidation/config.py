"""Values of synaptic consolidation; which methods run is the list `consolidation` of the run."""

from __future__ import annotations

from dataclasses import dataclass

from errors import require

METHODS = ("ewc", "online_ewc", "si", "mas", "l2")


@dataclass(frozen=True)
class ConsolidationConfig:
    # Normalised (the default): what a game adds to the importances F is scaled so that
    # sum F w*^2 = sum w*^2, and the penalty is strength * (running TD loss at the last game's end)
    # * sum F (w - w*)^2 / (scale^2 sum w*^2): after one game, at strength 1, a shift of all weights
    # by `scale` of their size costs as much as the TD loss, whatever the game. ewc, si and mas add
    # up the importances of all visits, as published, so that the pull grows; so do several methods.
    # Not yet tuned.
    strength: float = 10.0
    # false: importances as they come, for published lambdas: strength / 2 * sum F (w - w*)^2 for
    # EWC (400 in Kirkpatrick 2017, 1e4 in CORA's Atari runs), strength * sum F (w - w*)^2 for SI
    # and MAS.
    normalise: bool = True
    scale: float = 0.1  # share of the weights' size; see strength
    decay: float = 0.95  # gamma of online EWC (Schwarz 2018: .95 to .99)
    xi: float = 0.1  # damping of SI (Zenke 2017), squared weight units
    samples: int = 256  # observations of a finished game that importances are measured on
    temperature: float = 0.1  # return units; policy = softmax(Q / temperature) in the Fisher
    parts: str = "all"  # weights that stiffen: all (no head belongs to one game) or encoder

    def __post_init__(self) -> None:
        for key in ("strength", "scale", "xi", "temperature"):
            value = getattr(self, key)
            require(value > 0, f"stiffness.{key}={value} must be above 0")
        require(0 < self.decay <= 1, f"stiffness.decay={self.decay} must lie in (0, 1]")
        require(self.samples >= 1, f"stiffness.samples={self.samples} must be at least 1")
        require(
            self.parts in ("all", "encoder"), f"stiffness.parts={self.parts}: use all or encoder"
        )
