"""The vector environment that agents see: episodes, returns and exact restore over any core.

    obs, info = env.reset()
    while ...:
        env.send(policy(obs))            # emulator threads begin to work
        learn()                          # meanwhile
        obs, reward, terminated, truncated, info = env.recv()

Shapes: N environments, A outputs, observations uint8 [N, 4, 84, 84], oldest frame first.
"""

import zlib
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.actions import ActionSet
from envs.core import KEEP_RANDOM, OBS_SHAPE, CoreStep, EmulatorCore
from envs.protocols import ProtocolConfig
from envs.seeding import episode_seed
from errors import UserError

RESEED_STEPS = 2048
"""Agent steps after which an environment's next episode gets a fresh seed.

Seeding makes ale-py load the ROM anew, about 85 ms where a plain reset takes 4. So an episode
that ends earlier is followed by one that goes on with the emulator's own generator, and restoring
replays all episodes since the last seed: at most this many steps more than one episode.
"""


class EpisodeVector(VectorEnv):
    """N games at once, SAME_STEP autoreset, raw rewards, true returns, exact `state_dict`.

    `recv` and `step` return (obs, reward float32 [N], terminated bool [N], truncated bool [N],
    info). `terminated` is the end that the learner sees: game over and, where the protocol says
    so in training, a lost life; the game itself goes on after a lost life. info holds

        episode_over    bool [N]     the game really ended; obs is the next episode's first
        final_obs       uint8 [N, 4, 84, 84] or None, rows valid where episode_over
        episode_return  float64 [N]  raw return of the whole game where episode_over, else nan
        episode_length  int64 [N]    its agent steps where episode_over, else 0
        life_lost       bool [N]     a life was lost and the game went on
        lives           int64 [N]    lives left (of the new episode where episode_over)
    """

    def __init__(
        self,
        core: EmulatorCore,
        name: str,
        protocol: ProtocolConfig,
        actions: ActionSet,
        seed: int,
        training: bool,
    ):
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        self.name = name
        self.protocol = protocol
        self.num_envs = core.num_envs
        self.num_actions = actions.num_actions
        self.action_mask = actions.mask
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = Box(0, 255, OBS_SHAPE, np.uint8)
        self.single_action_space = Discrete(actions.num_actions)
        self.observation_space = batch_space(self.single_observation_space, core.num_envs)
        self.action_space = batch_space(self.single_action_space, core.num_envs)
        self.core = core
        self._actions = actions
        self._life_loss_ends = protocol.life_loss_terminal and training
        self._seed = seed
        n = core.num_envs
        self._segments = np.zeros(n, dtype=np.int64)  # seeds drawn so far
        self._seeds = np.zeros(n, dtype=np.int64)  # of the running segments
        self._log = np.zeros((n, RESEED_STEPS + protocol.max_steps), dtype=np.uint8)
        self._logged = np.zeros(n, dtype=np.int64)  # actions since the seed
        self._returns = np.zeros(n, dtype=np.float64)
        self._lengths = np.zeros(n, dtype=np.int64)
        self._lives = np.zeros(n, dtype=np.int64)
        self._obs: np.ndarray | None = None
        self._in_flight = False

    @property
    def observations(self) -> np.ndarray:
        """Present observations uint8 [N, 4, 84, 84]; what `reset` or `recv` returned last."""
        if self._obs is None:
            raise RuntimeError("reset() or load_state_dict() comes first")
        return self._obs

    @property
    def episode_starts(self) -> np.ndarray:
        """bool [N]: the present observation is the first of an episode."""
        return self._lengths == 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a freshly seeded episode everywhere; with `seed` from the beginning again.

        Running episodes are dropped without a report.
        """
        if options:
            raise ValueError(f"no reset options are known, got {sorted(options)}")
        if self._in_flight:
            self.core.recv()
            self._in_flight = False
        if seed is not None:
            if seed < 0:
                raise ValueError(f"seed {seed} is negative")
            self._seed = seed
            self._segments[:] = 0
        everywhere = np.ones(self.num_envs, dtype=bool)
        self._draw_seeds(everywhere)
        self._restart(everywhere, self._seeds)
        return self._obs, {"lives": self._lives.copy()}

    def send(self, actions: np.ndarray) -> None:
        """Begin a step with outputs [N]; raises ValueError for a masked or unknown output."""
        if self._in_flight:
            raise RuntimeError("send() twice without recv()")
        if self._obs is None:
            raise RuntimeError("reset() or load_state_dict() comes before send()")
        full = self._actions.translate(actions)
        if len(full) != self.num_envs:
            raise ValueError(f"{len(full)} actions for {self.num_envs} environments")
        self._log[np.arange(self.num_envs), self._logged] = full
        self._logged += 1
        self.core.send(full)
        self._in_flight = True

    def recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Wait for the step that `send` began; see the class for what it returns."""
        if not self._in_flight:
            raise RuntimeError("recv() without send()")
        step = self.core.recv()
        self._in_flight = False
        life_lost = self._account(step)
        over = step.terminated | step.truncated
        terminated = step.terminated | life_lost if self._life_loss_ends else step.terminated
        info = {
            "episode_over": over,
            "final_obs": None,
            "episode_return": np.where(over, self._returns, np.nan),
            "episode_length": np.where(over, self._lengths, 0),
            "life_lost": life_lost,
        }
        self._obs = step.obs
        if over.any():
            info["final_obs"] = step.obs
            fresh = over & (self._logged >= RESEED_STEPS)
            self._draw_seeds(fresh)
            self._restart(over, np.where(fresh, self._seeds, KEEP_RANDOM)[over])
        info["lives"] = self._lives.copy()
        return self._obs, step.reward, terminated, step.truncated, info

    def step(self, actions: np.ndarray):
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def close_extras(self, **kwargs: Any) -> None:
        """Free the emulators (called once by gymnasium's `close`)."""
        self.core.close()

    def state_dict(self) -> dict[str, Any]:
        """Seeds and actions since, from which the emulators can be rebuilt bit for bit."""
        if self._in_flight:
            raise RuntimeError("state_dict() between send() and recv()")
        if self._obs is None:
            raise RuntimeError("state_dict() before reset()")
        return {
            "name": self.name,
            "seed": self._seed,
            "segments": self._segments.copy(),
            "seeds": self._seeds.copy(),
            "actions": [log[:k].copy() for log, k in zip(self._log, self._logged)],
            "returns": self._returns.copy(),
            "obs_crc32": [zlib.crc32(obs) for obs in self._obs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rebuild the emulators by replaying the logged actions from their seeds.

        Environments with a short log join late, so that all arrive together after as many vector
        steps as the longest log has. Raises ValueError for another game or number of
        environments, UserError if the rebuilt emulators differ from the saved ones.
        """
        if state["name"] != self.name or len(state["actions"]) != self.num_envs:
            raise ValueError(
                f"state of {len(state['actions'])} x {state['name']} given to "
                f"{self.num_envs} x {self.name}"
            )
        if self._in_flight:
            self.core.recv()
            self._in_flight = False
        self._seed = int(state["seed"])
        self._segments = np.array(state["segments"], dtype=np.int64)
        self._seeds = np.array(state["seeds"], dtype=np.int64)
        logs = [np.asarray(log, dtype=np.uint8) for log in state["actions"]]
        self._replay(logs)
        self._logged = np.array([len(log) for log in logs])
        for row, log in zip(self._log, logs):
            row[: len(log)] = log
        same_frames = [zlib.crc32(obs) for obs in self._obs] == list(state["obs_crc32"])
        if not same_frames or not np.array_equal(self._returns, state["returns"]):
            raise UserError(
                f"checkpoint: the emulator of {self.name} does not reproduce the saved episodes; "
                "install the ale-py version named in the run's manifest.json and keep the protocol"
            )

    def _replay(self, logs: list[np.ndarray]) -> None:
        total = max(len(log) for log in logs)
        joins = np.array([total - len(log) for log in logs])
        playing = np.zeros(self.num_envs, dtype=bool)
        # An environment is seeded anew when it joins; the core wants all of them started first.
        self._restart(~playing, self._seeds)
        for t in range(total + 1):
            joining = joins == t
            if t > 0 and joining.any():
                self._restart(joining, self._seeds[joining])
            playing |= joining
            if t == total:
                return
            actions = [log[t - j] if t >= j else 0 for log, j in zip(logs, joins)]
            self.core.send(np.array(actions, dtype=np.int64))
            step = self.core.recv()
            self._account(step)
            self._obs = step.obs
            over = (step.terminated | step.truncated) & playing
            if over.any():  # a seeded restart would have emptied the log
                self._restart(over, np.full(over.sum(), KEEP_RANDOM))

    def _account(self, step: CoreStep) -> np.ndarray:
        """Add a step to returns, lengths and lives; returns life_lost [N]."""
        self._returns += step.reward
        self._lengths += 1
        # `> 0`: some games show zero lives for a few frames before they are over (Baselines)
        life_lost = (step.lives < self._lives) & (step.lives > 0)
        self._lives = step.lives.astype(np.int64)
        return life_lost & ~(step.terminated | step.truncated)

    def _draw_seeds(self, mask: np.ndarray) -> None:
        for i in np.flatnonzero(mask):
            self._seeds[i] = episode_seed(self._seed, int(i), int(self._segments[i]))
            self._segments[i] += 1
            self._logged[i] = 0

    def _restart(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        self._obs, lives = self.core.reset(mask, seeds)
        self._returns[mask] = 0.0
        self._lengths[mask] = 0
        self._lives[mask] = lives[mask]
