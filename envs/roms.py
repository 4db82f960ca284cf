"""What there is to play: ROM names, and per ROM its modes, difficulties and actions."""

import difflib
import functools
from dataclasses import dataclass

import ale_py
from ale_py import roms

from errors import UserError

CATCH = "catch"
"""Name of the toy pixel world that is played through the same interface as the ROMs."""

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for each emulator


# Listed by ale-py, whose one-player interface ends the process when it loads one of them.
FOR_TWO = frozenset({"combat", "joust", "maze_craze", "warlords"})


@dataclass(frozen=True)
class RomFacts:
    """Fixed facts of one game.

    Attributes:
        minimal_actions: full-set indices of the actions that the game reads, in ALE's order.
        modes: game modes that may be chosen.
        difficulties: difficulty switches that may be chosen.
    """

    minimal_actions: tuple[int, ...]
    modes: tuple[int, ...]
    difficulties: tuple[int, ...]

    @property
    def has_fire(self) -> bool:
        return ale_py.Action.FIRE.value in self.minimal_actions


def rom_names() -> tuple[str, ...]:
    """All playable names: ALE's ROMs and the toy world."""
    return (*sorted(set(roms.get_all_rom_ids()) - FOR_TWO), CATCH)


def rom_path(rom: str) -> str:
    """File of a ROM; raises UserError with the closest names when there is no such ROM."""
    check_rom(rom)
    path = roms.get_rom_path(rom)
    if path is None:
        raise UserError(f"ROM {rom!r} is known to ale-py but its file is missing: reinstall ale-py")
    return str(path)


def check_rom(rom: str) -> None:
    """Raise UserError unless `rom` can be played."""
    names = rom_names()
    if rom in names:
        return
    if rom in FOR_TWO:
        raise UserError(f"sequence.games: {rom} is a game for two, which ale-py does not play here")
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in rom).strip("_")
    close = difflib.get_close_matches(snake.replace("-", "_").replace(" ", "_"), names, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {len(names)}, e.g. pong"
    raise UserError(f"sequence.games: unknown ROM {rom!r}; {hint}")


@functools.cache
def rom_facts(rom: str) -> RomFacts:
    """Facts of `rom`, read from the emulator once a process (about 0.1 s each)."""
    if rom == CATCH:  # NOOP, RIGHT, LEFT
        return RomFacts((0, 3, 4), modes=(0,), difficulties=(0,))
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 1)
    ale.loadROM(rom_path(rom))
    return RomFacts(
        minimal_actions=tuple(a.value for a in ale.getMinimalActionSet()),
        modes=tuple(int(m) for m in ale.getAvailableModes()),
        difficulties=tuple(int(d) for d in ale.getAvailableDifficulties()),
    )
