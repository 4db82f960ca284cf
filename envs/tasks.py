"""Tasks and sequences of tasks: what an agent experiences, in which order and how long."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from envs.roms import CATCH, check_rom, rom_facts
from errors import UserError, require

_NAME = re.compile(r"^(?P<rom>.+?)(?:-m(?P<mode>\d+))?(?:-d(?P<difficulty>\d+))?$")


@dataclass(frozen=True)
class Task:
    """One stretch of experience: a game, perhaps in a certain mode, for a number of agent steps.

    Attributes:
        rom: ROM name in ale-py's spelling ("ms_pacman"), or "catch", the toy world.
        steps: budget in agent steps (4 frames each).
        mode: game mode, None for the game's default.
        difficulty: difficulty switch, None for the game's default.

    Raises:
        UserError: unknown ROM (with the closest names), or a mode the ROM does not have.
    """

    rom: str
    steps: int
    mode: int | None = None
    difficulty: int | None = None

    def __post_init__(self) -> None:
        check_rom(self.rom)
        require(self.steps >= 1, f"sequence.steps_per_task={self.steps}: at least 1 is needed")
        if self.mode is None and self.difficulty is None:
            return
        if self.rom == CATCH:
            raise UserError("sequence.games: catch has neither modes nor difficulties; drop them")
        facts = rom_facts(self.rom)
        for what, value, available in (
            ("mode", self.mode, facts.modes),
            ("difficulty", self.difficulty, facts.difficulties),
        ):
            require(
                value is None or value in available,
                f"sequence.games: {self.rom} has no {what} {value}; choose from "
                f"{', '.join(map(str, available))}",
            )

    @property
    def name(self) -> str:
        """The game's name in logs: "pong", "space_invaders-m3", "freeway-m2-d1"."""
        mode = "" if self.mode is None else f"-m{self.mode}"
        difficulty = "" if self.difficulty is None else f"-d{self.difficulty}"
        return f"{self.rom}{mode}{difficulty}"


def parse_task(name: str, steps: int) -> Task:
    """The task called `name` (as `Task.name` spells it), with a budget in agent steps."""
    require(isinstance(name, str), f"sequence.games: {name} is no name of a ROM such as pong")
    match = _NAME.match(name)
    if match is None:
        raise UserError("sequence.games: an empty name; give ROM names such as pong")
    mode, difficulty = match["mode"], match["difficulty"]
    return Task(
        rom=match["rom"],
        steps=steps,
        mode=None if mode is None else int(mode),
        difficulty=None if difficulty is None else int(difficulty),
    )


@dataclass(frozen=True)
class TaskSequence:
    """Tasks in order, the whole list repeated `cycles` times.

    `len(sequence)` counts visits (tasks x cycles); `sequence[i]` is the task of visit i.
    """

    tasks: tuple[Task, ...]
    cycles: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        require(len(self.tasks) > 0, "sequence.games: at least one game is needed")
        require(self.cycles >= 1, f"sequence.cycles={self.cycles}: at least 1 is needed")

    def __len__(self) -> int:
        return len(self.tasks) * self.cycles

    def __getitem__(self, index: int) -> Task:
        if not -len(self) <= index < len(self):
            raise IndexError(f"visit {index} of a sequence of {len(self)}")
        return self.tasks[index % len(self.tasks)]

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))

    @property
    def games(self) -> tuple[str, ...]:
        """Names of the distinct games, in the order of their first visit."""
        return tuple(dict.fromkeys(task.name for task in self.tasks))

    @property
    def total_steps(self) -> int:
        """Agent steps of the whole sequence."""
        return self.cycles * sum(task.steps for task in self.tasks)

    def game_task(self, game: str) -> Task:
        """The first task that plays `game` (a name out of `games`)."""
        for task in self.tasks:
            if task.name == game:
                return task
        raise KeyError(game)

    def cycle_of(self, index: int) -> int:
        """Number of the cycle, from 0, that visit `index` belongs to."""
        return index // len(self.tasks)
