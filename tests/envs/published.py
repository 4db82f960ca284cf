"""Published task sequences as data. Budgets are agent steps (4 frames each) per visit of a game."""

from dataclasses import dataclass

from envs.tasks import TaskSequence, parse_task
from errors import UserError


@dataclass(frozen=True)
class SequenceSpec:
    """A sequence before it is built.

    Attributes:
        games: task names in order.
        steps_per_task: agent steps per visit.
        cycles: visits of each game.
        source: where the list and the budget come from, and any departure.
    """

    games: tuple[str, ...]
    steps_per_task: int
    cycles: int
    source: str

    def build(self, steps_per_task: int | None = None, cycles: int | None = None) -> TaskSequence:
        """The sequence, with the published budget or another one."""
        steps = self.steps_per_task if steps_per_task is None else steps_per_task
        return make_sequence(self.games, steps, self.cycles if cycles is None else cycles)


_SIX_GAMES = ("space_invaders", "krull", "beam_rider", "hero", "star_gunner", "ms_pacman")

SEQUENCES = {
    "cora": SequenceSpec(
        games=_SIX_GAMES,
        steps_per_task=50_000_000,  # agent steps = 2e8 frames: CORA counts after frame skip
        cycles=5,  # 2 in its published plots
        source="Powers et al. 2022, CORA, Atari sequence; evaluated with 10 episodes every 250k "
        "steps, without sticky actions",
    ),
    "progress_and_compress": SequenceSpec(
        games=_SIX_GAMES,
        steps_per_task=12_500_000,  # agent steps = 50M frames
        cycles=5,
        source="Schwarz et al. 2018, Progress & Compress, section 5 (Atari)",
    ),
    "ewc10": SequenceSpec(
        # Ten games where DQN is above the human tester: Mnih et al. 2015, extended data table 2
        games=(
            "breakout",
            "pong",
            "boxing",
            "freeway",
            "krull",
            "road_runner",
            "crazy_climber",
            "gopher",
            "star_gunner",
            "demon_attack",
        ),
        steps_per_task=5_000_000,  # agent steps = 20M frames, after which the penalty sets in
        cycles=2,  # departure: the paper returns to games in random order
        source="after Kirkpatrick et al. 2017, EWC: ten games out of those on which DQN reaches "
        "human level; the choice of ten, their order and the budget are ours",
    ),
    "modes_space_invaders": SequenceSpec(
        games=tuple(f"space_invaders-m{mode}" for mode in range(10)),
        steps_per_task=1_000_000,  # agent steps
        cycles=1,
        source="Malagon et al. 2024, CompoNet: modes 0 to 9 of one game",
    ),
    "modes_freeway": SequenceSpec(
        games=tuple(f"freeway-m{mode}" for mode in range(8)),
        steps_per_task=1_000_000,  # agent steps
        cycles=1,
        source="Malagon et al. 2024, CompoNet: modes 0 to 7 of one game",
    ),
}
"""The published sequences by name."""


def make_sequence(games: tuple[str, ...] | list[str], steps: int, cycles: int = 1) -> TaskSequence:
    """A sequence of task names, each with the same budget in agent steps."""
    if isinstance(games, str):
        raise UserError(f"sequence.games={games}: give a list, such as [{games}]")
    return TaskSequence(tuple(parse_task(game, steps) for game in games), cycles)
