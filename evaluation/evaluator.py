"""Evaluation on exactly the same episodes every time, with emulators and policy side by side.

Each slot is one emulator with a thread of its own. Slots form two groups; while the policy looks
at one group's observations, the emulators of the other work. Episode i of a game always has the
same seed, whoever plays it and whatever happened before, so two evaluations are paired. Which
slot plays it is fixed as well (i modulo the number of slots): short episodes are not counted
more often than long ones, and no timing reaches the results.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs import ProtocolConfig, Task, make_action_set, make_core
from envs.actions import ActionSet
from envs.core import OBS_SHAPE
from envs.seeding import counter_uniform, episode_seed
from errors import UserError, require

_EXPLORE_STREAM, _CHOICE_STREAM = 11, 12
_FIRST = np.ones(1, dtype=bool)


@dataclass(frozen=True)
class EvalGame:
    """What a policy is told about the game it plays."""

    name: str
    index: int  # position in the evaluator's list
    num_actions: int
    action_mask: np.ndarray  # bool [num_actions]


class EvalResult(NamedTuple):
    """All episodes of one evaluation of one game, in the order of their seeds."""

    returns: np.ndarray  # float64 [episodes], raw
    lengths: np.ndarray  # int64 [episodes], agent steps
    capped: np.ndarray  # bool [episodes], cut off by a step cap instead of over


Policy = Callable[[np.ndarray, EvalGame], np.ndarray]
"""policy(obs uint8 [N, 4, 84, 84], game) -> outputs int [N]. `obs` is only lent for the call, N is
constant for a game's group of slots, and rows may belong to slots that have finished."""

Watch = Callable[[np.ndarray, EvalGame], None]
"""watch(obs uint8 [n, 4, 84, 84], game): the observations that are really decided on, each once."""


class Evaluator:
    """Plays complete episodes of several games with a policy that is handed in.

    It has no state that an evaluation changes, so there is nothing to save: emulators are seeded
    anew for each episode (about 85 ms in ale-py, done beside the other slots' play) and are kept
    open between evaluations, one per slot and game.

    Args:
        games: tasks to evaluate; their names must differ.
        protocol: rules of play. Life loss never ends an evaluation episode.
        episodes: complete episodes per game and evaluation.
        num_envs: slots, emulators that run at the same time.
        seed: evaluation's own seed.
        max_steps: agent steps after which an episode is cut off and counted as it stands, None
            for the protocol's frame cap alone. A cap below the protocol's is not the published
            protocol: returns of games that outlast it are lower bounds.
        epsilon: probability of a uniformly random allowed action, 0 for none.
        full_actions: as in `make_vector_env`; True for games of a sequence.
        seed_workers: emulators that are seeded at the same time.
    """

    def __init__(
        self,
        games: Sequence[Task],
        protocol: ProtocolConfig,
        *,
        episodes: int = 10,
        num_envs: int = 8,
        seed: int = 0,
        max_steps: int | None = None,
        epsilon: float = 0.0,
        full_actions: bool | None = None,
        seed_workers: int = 2,
    ):
        require(episodes >= 1, f"eval.episodes={episodes}: at least 1 is needed")
        require(num_envs >= 1, f"eval.num_envs={num_envs}: at least 1 is needed")
        require(
            max_steps is None or max_steps >= 1, f"eval.max_steps={max_steps}: at least 1 is needed"
        )
        require(
            0.0 <= epsilon <= 1.0, f"eval.epsilon={epsilon}: a probability from 0 to 1 is needed"
        )
        self._tasks = {task.name: task for task in games}
        if len(self._tasks) < len(games):
            raise UserError("sequence.games: a game is listed twice for evaluation")
        self._protocol = protocol
        self._episodes = episodes
        self._num_slots = min(num_envs, episodes)
        self._seed = seed
        self._max_steps = min(max_steps or protocol.max_steps, protocol.max_steps)
        self._epsilon = epsilon
        self._actions = {
            task.name: make_action_set(task.rom, protocol, full_actions) for task in games
        }
        self._games = {
            name: EvalGame(name, index, actions.num_actions, actions.mask)
            for index, (name, actions) in enumerate(self._actions.items())
        }
        self._groups: dict[str, list[_Group]] = {}
        self._executor = ThreadPoolExecutor(seed_workers, thread_name_prefix="seed-emulator")

    @property
    def games(self) -> tuple[EvalGame, ...]:
        return tuple(self._games.values())

    def evaluate(self, policy: Policy, game: str) -> EvalResult:
        """Play all episodes of `game` (a task's name)."""
        return self.evaluate_all(policy, [game])[game]

    def evaluate_all(
        self, policy: Policy, games: Iterable[str] | None = None, watch: Watch | None = None
    ) -> dict[str, EvalResult]:
        """Play all episodes of several games (None: all), starting one where another runs out.

        watch: told of every decision of every episode, before the emulators step.

        The results are those of `evaluate` game by game; only idle time at the end is saved.
        """
        names = list(self._games if games is None else games)
        results = {
            name: EvalResult(
                np.zeros(self._episodes), np.zeros(self._episodes, dtype=np.int64),
                np.zeros(self._episodes, dtype=bool),
            )
            for name in names
        }  # fmt: skip
        waiting = [(name, group) for name in names for group in self._open(name)]
        playing: list[tuple[str, _Group]] = []
        try:
            while waiting or playing:
                busy = sum(group.unfinished for _, group in playing)
                while waiting and busy + waiting[0][1].size <= self._num_slots:
                    name, group = waiting.pop(0)
                    group.begin(results[name])
                    playing.append((name, group))
                    busy += group.size
                moved = False
                for name, group in playing:
                    moved |= group.turn(policy, self._games[name], watch)
                playing = [(name, group) for name, group in playing if group.unfinished]
                if not moved and playing:
                    pending = [f for _, group in playing for f in group.pending()]
                    wait(pending, return_when=FIRST_COMPLETED)
        except BaseException:
            self._close_cores()  # emulators may be in the middle of a step
            raise
        return results

    def close(self) -> None:
        """Free all emulators and threads."""
        self._close_cores()
        self._executor.shutdown()

    def _close_cores(self) -> None:
        for groups in self._groups.values():
            for group in groups:
                group.close()
        self._groups.clear()

    def _open(self, name: str) -> list["_Group"]:
        if name not in self._groups:
            game_key = zlib.crc32(name.encode())
            seeds = np.array([episode_seed(self._seed, game_key, i) for i in range(self._episodes)])
            halves = np.array_split(np.arange(self._num_slots), min(2, self._num_slots))
            self._groups[name] = [
                _Group(self, self._tasks[name], self._actions[name], slots, seeds)
                for slots in halves
            ]
        return self._groups[name]


class _Group:
    """Slots of one game that step together: receive, choose, send."""

    def __init__(
        self,
        owner: Evaluator,
        task: Task,
        actions: ActionSet,
        slots: np.ndarray,
        seeds: np.ndarray,
    ):
        self._executor = owner._executor
        self._max_steps = owner._max_steps
        self._epsilon = owner._epsilon
        self._actions = actions
        self._allowed = np.flatnonzero(actions.mask)
        self._slots = slots
        self._stride = owner._num_slots
        self._seeds = seeds
        self.size = len(slots)
        self._cores = [make_core(task, owner._protocol, num_envs=1) for _ in slots]
        self._obs = np.zeros((self.size, *OBS_SHAPE), dtype=np.uint8)
        self._episode = slots.copy()  # index of the running episode, per slot
        self._returns = np.zeros(self.size)
        self._lengths = np.zeros(self.size, dtype=np.int64)
        self._stepping = np.zeros(self.size, dtype=bool)
        self._resets: list[Future | None] = [None] * self.size
        self._results: EvalResult | None = None

    @property
    def unfinished(self) -> int:
        """Slots that still have an episode to play."""
        return int((self._episode < len(self._seeds)).sum()) if self._results is not None else 0

    def pending(self) -> list[Future]:
        return [future for future in self._resets if future is not None]

    def begin(self, results: EvalResult) -> None:
        self._results = results
        self._episode = self._slots.copy()
        for j in range(self.size):
            self._start_episode(j)

    def turn(self, policy: Policy, game: EvalGame, watch: Watch | None) -> bool:
        """Take in what the emulators did, let the policy choose, send; False if none is ready."""
        for j in np.flatnonzero(self._stepping):
            self._receive(j)
        for j, future in enumerate(self._resets):
            if future is not None and future.done():
                self._obs[j] = future.result()[0][0]
                self._resets[j] = None
                self._stepping[j] = True
        if not self._stepping.any():
            return False
        chosen = self._explore(np.asarray(policy(self._obs, game)))
        ready = np.flatnonzero(self._stepping)
        if watch is not None:
            watch(self._obs[ready], game)
        for j, action in zip(ready, self._actions.translate(chosen[ready])):
            self._cores[j].send(np.array([action]))
        return True

    def close(self) -> None:
        wait(self.pending())
        for core in self._cores:
            core.close()

    def _receive(self, j: int) -> None:
        step = self._cores[j].recv()
        self._returns[j] += step.reward[0]
        self._lengths[j] += 1
        over = bool(step.terminated[0])
        if not over and self._lengths[j] < self._max_steps:
            self._obs[j] = step.obs[0]
            return
        i = self._episode[j]
        self._results.returns[i] = self._returns[j]
        self._results.lengths[i] = self._lengths[j]
        self._results.capped[i] = not over
        self._stepping[j] = False
        self._episode[j] += self._stride
        if self._episode[j] < len(self._seeds):
            self._start_episode(j)

    def _start_episode(self, j: int) -> None:
        self._returns[j] = 0.0
        self._lengths[j] = 0
        seed = self._seeds[self._episode[j] : self._episode[j] + 1]
        self._resets[j] = self._executor.submit(self._cores[j].reset, _FIRST, seed)

    def _explore(self, actions: np.ndarray) -> np.ndarray:
        if self._epsilon == 0.0:
            return actions
        seeds = self._seeds[np.minimum(self._episode, len(self._seeds) - 1)]
        explore = counter_uniform(seeds, self._lengths, _EXPLORE_STREAM) < self._epsilon
        if not explore.any():
            return actions
        choice = counter_uniform(seeds, self._lengths, _CHOICE_STREAM) * len(self._allowed)
        return np.where(explore, self._allowed[choice.astype(np.int64)], actions)
