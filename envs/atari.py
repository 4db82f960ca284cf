"""Emulators in C++ threads: ale-py's own AtariVectorEnv, one ROM in its default mode."""

import ale_py.vector_env
import numpy as np
from gymnasium.vector import AutoresetMode

from envs.core import CoreStep
from envs.protocols import ProtocolConfig
from envs.roms import rom_facts, rom_path


class NativeCore:
    """N emulators of one ROM with 84 x 84 grey frames, max-pooled over two, stacked by four.

    Options that matter:
    - rewards stay raw (the class would clip them by default and lose them);
    - `life_loss_info` is off: with it, a life lost on the very step of the frame cap hides the
      truncation. Lives are reported with every step, so the caller sees the loss itself;
    - NEXT_STEP autoreset, which never comes into play: whoever uses this core resets an ended
      episode at once, so that it can say with which seed.
    """

    def __init__(self, rom: str, protocol: ProtocolConfig, num_envs: int, num_threads: int):
        rom_path(rom)
        self.num_envs = num_envs
        self._env = ale_py.vector_env.AtariVectorEnv(
            rom,
            num_envs,
            num_threads=num_threads,  # 0 would count the host's cores
            max_num_frames_per_episode=protocol.max_frames,
            repeat_action_probability=protocol.sticky,
            full_action_space=True,
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=84,
            img_width=84,
            grayscale=True,
            stack_num=protocol.stack,
            frameskip=protocol.frame_skip,
            maxpool=True,
            noop_max=protocol.noop_max + 1,  # the class draws from 0..noop_max-1
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            # judged by the full action set FIRE would be pressed in games that do not have it
            use_fire_reset=protocol.fire_reset and rom_facts(rom).has_fire,
        )
        self._strength = np.ones(num_envs, dtype=np.float32)
        self._in_flight = False

    def reset(self, mask: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = np.flatnonzero(mask)
        obs, info = self._env.ale.reset(indices, np.asarray(seeds, dtype=np.int64))
        return obs, info["lives"]

    def send(self, actions: np.ndarray) -> None:
        self._env.ale.send(actions, self._strength)
        self._in_flight = True

    def recv(self) -> CoreStep:
        self._in_flight = False  # before: who is interrupted in it must not wait a second time
        obs, reward, terminated, truncated, info = self._env.ale.recv()
        return CoreStep(obs, reward.astype(np.float32), terminated, truncated, info["lives"])

    def close(self) -> None:
        if self._in_flight:  # the destructor waits for the threads; leave nothing half done
            self.recv()
        self._env.close()
        del self._env
