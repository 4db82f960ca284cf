"""Human-normalised scores: (score - random) / (human - random), with fixed constants per ROM."""

import csv
import functools
import math
from pathlib import Path
from typing import NamedTuple

from envs.roms import CATCH
from errors import UserError

_TABLE = Path(__file__).parent / "data" / "atari57_random_human.csv"


class Reference(NamedTuple):
    """Raw returns that stand for 0 and 1."""

    random: float
    human: float


CATCH_REFERENCE = Reference(random=-0.5, human=1.0)
"""The toy world's own scale. Uniform play catches with probability 1/4 wherever the paddle is (it
covers 3 of 12 columns and the ball comes down in any of them), so its expected return is -1/2;
perfect play earns 1."""


@functools.cache
def references() -> dict[str, Reference]:
    """Constants of 57 ROMs (random and human returns as tabled by Wang et al. 2016 and used since
    by Rainbow, R2D2, Agent57) and of the toy world."""
    with _TABLE.open(newline="") as file:
        table = {
            row["rom"]: Reference(float(row["random"]), float(row["human"]))
            for row in csv.DictReader(file)
        }
    return {**table, CATCH: CATCH_REFERENCE}


def rom_of(game: str) -> str:
    """ROM of a task's name: "space_invaders-m3" -> "space_invaders"."""
    return game.split("-", 1)[0]


def hns(game: str, score: float) -> float:
    """Human-normalised score of a raw return in `game` (a ROM or a task's name).

    Game modes and difficulties have no published constants: those of the ROM's default mode are
    used, as one fixed scale for all modes of a game, so 1 does not mean human play there. A ROM
    outside the 57 gives nan.
    """
    reference = references().get(rom_of(game))
    if reference is None:
        return math.nan
    return (score - reference.random) / (reference.human - reference.random)


def reference(game: str) -> Reference:
    """Constants of `game`; raises UserError where none are known (ROMs outside the 57)."""
    try:
        return references()[rom_of(game)]
    except KeyError:
        raise UserError(
            f"sequence.games: {rom_of(game)} has no published random and human scores, so no "
            "normalised score exists; judge it by raw returns"
        ) from None
