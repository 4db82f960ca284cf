"""Action sets: the 18 joystick actions shared by all games, and the few that one game reads.

A network inside a sequence of games has one output for each of the 18 actions; a game's
*minimal* set then serves as a mask over them. A network for one game has only that game's
minimal actions as outputs. Emulators are always sent indices into the 18.
"""

from dataclasses import dataclass

import numpy as np
from ale_py import Action

from envs.protocols import ProtocolConfig
from envs.roms import rom_facts

NUM_FULL_ACTIONS = 18
"""Size of the full action set; an action's index is its `ale_py.Action` value."""


@dataclass(frozen=True)
class ActionSet:
    """The outputs of a policy and what they mean to the emulator.

    Attributes:
        to_full: int64 [A], the full-set index that each output sends.
        mask: bool [A], the outputs that may be chosen.
    """

    to_full: np.ndarray
    mask: np.ndarray

    @property
    def num_actions(self) -> int:
        return len(self.to_full)

    @property
    def names(self) -> list[str]:
        """[A] what the outputs are called: NOOP, FIRE, UP, ..."""
        return [Action(int(a)).name for a in self.to_full]

    def translate(self, actions: np.ndarray) -> np.ndarray:
        """Outputs [N] -> full-set indices int64 [N]; raises ValueError for a forbidden output."""
        actions = np.asarray(actions)
        if actions.ndim != 1 or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"actions must be integers [N], got {actions.dtype} {actions.shape}")
        if actions.size and (actions.min() < 0 or actions.max() >= self.num_actions):
            raise ValueError(f"action out of range 0..{self.num_actions - 1}: {actions.tolist()}")
        if not self.mask[actions].all():
            raise ValueError(f"masked action sent: {actions.tolist()}")
        return self.to_full[actions]


def make_action_set(rom: str, protocol: ProtocolConfig, full_actions: bool | None) -> ActionSet:
    """The action set of `rom` under `protocol`.

    `full_actions` asks for 18 outputs (True: a game in a sequence), for the game's own outputs
    (False: a game alone), or leaves it to the protocol (None).
    """
    if full_actions is None:
        full_actions = protocol.actions == "full"
    if protocol.actions == "full" and not full_actions:
        raise ValueError("protocol.actions=full and full_actions=False do not go together")
    minimal = np.array(rom_facts(rom).minimal_actions, dtype=np.int64)
    if not full_actions:
        return ActionSet(to_full=minimal, mask=np.ones(len(minimal), dtype=bool))
    mask = np.ones(NUM_FULL_ACTIONS, dtype=bool)
    if protocol.actions == "minimal":
        mask[:] = False
        mask[minimal] = True
    return ActionSet(to_full=np.arange(NUM_FULL_ACTIONS), mask=mask)
