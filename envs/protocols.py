"""How a game is played: the evaluation protocols of the literature as frozen values."""

from dataclasses import dataclass

from errors import require

FRAMES_PER_STEP = 4
"""Emulator frames in one agent step; every budget of this suite counts frames = 4 x steps."""


@dataclass(frozen=True)
class ProtocolConfig:
    """Rules of play. The defaults are those of Machado et al. (2018)."""

    sticky: float = 0.25  # probability that an emulator frame repeats the action before
    actions: str = "full"  # full: all 18 joystick actions in every game; minimal: those it reads
    # In training a lost life ends the episode for the learner; the game goes on, and the reported
    # return is always the whole game's.
    life_loss_terminal: bool = False
    # No-op *frames* before the agent's first step, at most: the number is drawn from 0 to it.
    noop_max: int = 0
    fire_reset: bool = False  # press FIRE once after a reset, in games that have the button
    max_frames: int = 18_000  # emulator frames after which a game is cut off (truncated)
    frame_skip: int = FRAMES_PER_STEP  # frames per agent step
    stack: int = 4  # observed frames

    def __post_init__(self) -> None:
        require(
            0.0 <= self.sticky < 1.0,
            f"protocol.sticky={self.sticky}: a probability, from 0 to below 1, is needed",
        )
        require(
            self.actions in ("full", "minimal"),
            f"protocol.actions={self.actions!r}: choose full or minimal",
        )
        require(
            0 <= self.noop_max <= 1000,
            f"protocol.noop_max={self.noop_max}: a number of frames from 0 to 1000 is needed",
        )
        require(
            self.frame_skip == FRAMES_PER_STEP,
            f"protocol.frame_skip={self.frame_skip}: only {FRAMES_PER_STEP} is supported, since "
            "every budget counts that many frames a step",
        )
        require(
            self.stack == 4,
            f"protocol.stack={self.stack}: only 4 is supported, the encoders' four time steps",
        )
        require(
            self.frame_skip <= self.max_frames <= 10**7 and not self.max_frames % self.frame_skip,
            f"protocol.max_frames={self.max_frames}: a positive multiple of "
            f"{self.frame_skip} frames is needed, at most 10,000,000",
        )

    @property
    def max_steps(self) -> int:
        """Agent steps after which a game is cut off."""
        return self.max_frames // self.frame_skip


def machado2018() -> ProtocolConfig:
    """Machado et al. 2018, "Revisiting the ALE", section 5 and table 1."""
    return ProtocolConfig(
        sticky=0.25,  # probability per frame
        actions="full",  # 18 actions in every game
        life_loss_terminal=False,  # game over alone ends an episode
        noop_max=0,  # frames; stickiness takes the place of random starts
        fire_reset=False,  # the agent has to learn to press FIRE
        max_frames=18_000,  # frames: 5 minutes of play at 60 Hz
    )


def atari100k() -> ProtocolConfig:
    """Kaiser et al. 2020 (SimPLe) as DER, DrQ and SPR play it: the rules of Mnih et al. 2015."""
    return ProtocolConfig(
        sticky=0.0,  # deterministic emulator
        actions="minimal",  # inside a sequence the minimal set masks 18 shared outputs
        life_loss_terminal=True,  # in training only
        # frames; departure: 0..30 are drawn, where OpenAI Baselines' NoopResetEnv draws 1..30
        noop_max=30,
        fire_reset=False,  # ecosystem table: off; Dopamine's and SPR's practice
        max_frames=108_000,  # frames: 30 minutes of play at 60 Hz
    )


PROTOCOLS = {"machado2018": machado2018, "atari100k": atari100k}
"""Constructors of the presets by name."""
