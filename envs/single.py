"""Emulators run one by one from Python: game modes, difficulties, and saved states for planning.

ale-py's vector class has none of the three. Frames, rewards, seeds and no-op starts are those of
the vector class (a test holds them against each other), at about two thirds of its speed on one
core and without its threads.
"""

from typing import NamedTuple

import ale_py
import numpy as np

from envs.core import KEEP_RANDOM, OBS_SHAPE, CoreStep
from envs.preprocess import pool_and_resize
from envs.protocols import ProtocolConfig
from envs.roms import rom_facts, rom_path
from envs.tasks import Task


class EmulatorState(NamedTuple):
    """A moment of play, to come back to any number of times in the process that saved it."""

    ale: ale_py.ALEState  # includes the generator of sticky actions
    raw: np.ndarray  # uint8 [2, 210, 160]
    stack: np.ndarray  # uint8 [4, 84, 84]
    frames: int
    lives: int
    over: bool


class SingleEmulator:
    """One emulator with the preprocessing of the native vector class.

    Attributes:
        stack: present observation uint8 [4, 84, 84], oldest frame first.
        lives: lives left.
        over: the game is over.
        truncated: the frame cap is reached and the game is not over.
    """

    def __init__(self, task: Task, protocol: ProtocolConfig):
        self._task = task
        self._protocol = protocol
        self._path = rom_path(task.rom)
        self._fire = protocol.fire_reset and rom_facts(task.rom).has_fire
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", protocol.sticky)
        self._noops = np.random.MT19937(0)
        self._raw = np.zeros((2, 0, 0), dtype=np.uint8)  # the last two frames; a game has its size
        self._frames = 0
        self._loaded = False
        self.stack = np.zeros(OBS_SHAPE, dtype=np.uint8)
        self.lives = 0
        self.over = False

    @property
    def truncated(self) -> bool:
        return not self.over and self._frames >= self._protocol.max_frames

    def reset(self, seed: int = KEEP_RANDOM) -> None:
        """Start an episode, from `seed` or with the emulator's own generator going on."""
        if seed != KEEP_RANDOM:
            self._load(seed)
        elif not self._loaded:
            raise RuntimeError("the first reset needs a seed")
        ale = self._ale
        ale.reset_game()
        if self._fire:
            ale.act(ale_py.Action.FIRE)
        for _ in range(self._draw_noops() - int(self._fire)):
            ale.act(ale_py.Action.NOOP)
            if ale.game_over():
                ale.reset_game()
        ale.getScreenGrayscale(self._raw[0])
        self._raw[1] = 0
        self.stack[:] = 0
        pool_and_resize(self._raw[0], self._raw[1], self.stack[-1])
        self._frames = 0
        self.lives = ale.lives()
        self.over = False

    def step(self, action: int) -> float:
        """Play one agent step with a full-set action index; returns the raw reward."""
        ale, action = self._ale, self._legal[action]
        reward = 0
        for left in range(self._protocol.frame_skip, 0, -1):
            reward += ale.act(action)
            self._frames += 1
            self.over = ale.game_over()
            if self.over or self._frames >= self._protocol.max_frames:
                break  # before the frame is taken, as the native class does
            if left <= 2:
                ale.getScreenGrayscale(self._raw[left - 1])
        self.stack[:-1] = self.stack[1:]
        pool_and_resize(self._raw[0], self._raw[1], self.stack[-1])
        self.lives = ale.lives()
        return float(reward)

    def screen(self) -> np.ndarray:
        """uint8 [H, 160, 3], H mostly 210: what a player would see now."""
        return self._ale.getScreenRGB()

    def clone_state(self) -> EmulatorState:
        """The present moment, stickiness included: replays from it take the same course."""
        return EmulatorState(
            ale=self._ale.cloneState(include_rng=True),
            raw=self._raw.copy(),
            stack=self.stack.copy(),
            frames=self._frames,
            lives=self.lives,
            over=self.over,
        )

    def restore_state(self, state: EmulatorState) -> None:
        """Go back to a saved moment of this game, from this emulator or another of its kind.

        The generator of no-op starts is not part of it: restore inside an episode.
        """
        if not self._loaded:
            self._load(1)
        self._ale.restoreState(state.ale)
        self._raw[:] = state.raw
        self.stack[:] = state.stack
        self._frames, self.lives, self.over = state.frames, state.lives, state.over

    def _load(self, seed: int) -> None:
        self._ale.setInt("random_seed", int(seed))
        self._ale.loadROM(self._path)  # the only way to seed an emulator, about 80 ms
        if self._task.mode is not None:
            self._ale.setMode(self._task.mode)
        if self._task.difficulty is not None:
            self._ale.setDifficulty(self._task.difficulty)
        self._noops._legacy_seeding(int(seed))  # std::mt19937's seeding
        self._legal = self._ale.getLegalActionSet()
        if not self._loaded:
            self._raw = np.zeros((2, *self._ale.getScreenDims()), dtype=np.uint8)
        self._loaded = True

    def _draw_noops(self) -> int:
        """A number in 0..noop_max as libstdc++ draws it from mt19937 (Lemire 2019)."""
        span = self._protocol.noop_max + 1
        while True:
            product = int(self._noops.random_raw()) * span
            if product % 2**32 >= (2**32 - span) % span:
                return product >> 32


class SingleCore:
    """N `SingleEmulator`s behind the interface of `envs.core.EmulatorCore`.

    The emulators hold Python's lock, so nothing overlaps: `send` only takes note, `recv` works.
    """

    def __init__(self, task: Task, protocol: ProtocolConfig, num_envs: int):
        self.num_envs = num_envs
        self.emulators = [SingleEmulator(task, protocol) for _ in range(num_envs)]
        self._sent: np.ndarray | None = None

    def reset(self, mask: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for i, seed in zip(np.flatnonzero(mask), seeds):
            self.emulators[i].reset(int(seed))
        return self._observe(), self._lives()

    def send(self, actions: np.ndarray) -> None:
        self._sent = np.asarray(actions)

    def recv(self) -> CoreStep:
        actions, self._sent = self._sent, None
        rewards = [e.step(int(a)) for e, a in zip(self.emulators, actions)]
        return CoreStep(
            obs=self._observe(),
            reward=np.array(rewards, dtype=np.float32),
            terminated=np.array([e.over for e in self.emulators]),
            truncated=np.array([e.truncated for e in self.emulators]),
            lives=self._lives(),
        )

    def close(self) -> None:
        self.emulators.clear()

    def _observe(self) -> np.ndarray:
        return np.stack([e.stack for e in self.emulators])

    def _lives(self) -> np.ndarray:
        return np.array([e.lives for e in self.emulators], dtype=np.int64)
