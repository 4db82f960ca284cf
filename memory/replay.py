"""Replay of transitions, frames stored once, n-step windows cut out when they are drawn.

    replay.add(obs_tm1, action, reward, terminated, truncated, first, task, final_obs)
    batch = replay.sample(32, n_step=10, rng)
    replay.update_priorities(batch.indices, td_errors)     # prioritised only
    replay.cut(obs)                                        # before another task

N environments, B items of a batch, n rewards of a window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from errors import UserError
from memory.batches import Batch, SequenceBatch
from memory.blocks import BlockArray
from memory.gather import follow, gather_sequences, gather_windows, stack_slots
from memory.pool import ArrayPool
from memory.ring import PUSHED, READY, SLOT, STACK, add_step, cut_streams, first_break, make_ring
from memory.sum_tree import find_leaves, rebuild, set_leaves


class ReplayBuffer:
    """The last `capacity` transitions of N environments.

    Args:
        capacity: transitions. There is room for 1/16 more slots, for observations that are no
            transitions (ends of episodes and the like). Where episodes are so short that this
            does not do, somewhat fewer transitions fit.
        num_envs: N.
        n_step_max: longest window that will be asked for. A transition can be drawn once so many
            later observations are known, or the end of its stream.
        prioritised: draw in proportion to priority^alpha (Schaul et al. 2016, proportional
            variant) instead of uniformly.
        alpha: exponent of the priority.
        priority_epsilon: added to |td error|, so that nothing is never seen again.
        frame_shape: height and width of a frame in pixels.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        n_step_max: int,
        prioritised: bool = False,
        alpha: float = 0.5,
        priority_epsilon: float = 1e-6,
        frame_shape: tuple[int, int] = (84, 84),
    ) -> None:
        if num_envs < 1 or n_step_max < 1:
            raise ValueError(f"num_envs={num_envs} and n_step_max={n_step_max} must be positive")
        least = 2 * num_envs * (n_step_max + 1)
        if capacity < least:
            raise ValueError(
                f"capacity={capacity} is too small for {num_envs} streams with windows of "
                f"{n_step_max}: at least {least}"
            )
        self.capacity, self.num_envs, self.n_step_max = capacity, num_envs, n_step_max
        self.prioritised, self.alpha, self.epsilon = prioritised, alpha, priority_epsilon
        self.frame_shape = tuple(frame_shape)
        # A vector step takes up to five slots a stream; waiting transitions are never overwritten.
        size = capacity + capacity // 16 + 5 * num_envs * (n_step_max + STACK)
        pixels = int(np.prod(frame_shape))
        self._frames = BlockArray.zeros((size + 1, pixels), np.uint8)
        self._ring = make_ring(self._frames.array, num_envs, n_step_max, prioritised)
        self._pool = ArrayPool()

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return int(self._ring.counts[READY])

    # -- writing --------------------------------------------------------------------------------
    def add(
        self,
        obs_tm1: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        first: np.ndarray,
        task: int,
        final_obs: np.ndarray | None = None,
    ) -> None:
        """Append one transition of each environment.

        Args:
            obs_tm1: uint8 [N, 4, 84, 84], what the action was chosen for.
            action: int [N].
            reward: float [N], raw.
            terminated: bool [N]. The stream may go on (a lost life): then `first` stays False.
            truncated: bool [N]. The stream ends; windows bootstrap from final_obs.
            first: bool [N]: obs_tm1 opens an episode and does not continue the stack.
            task: index of the task.
            final_obs: uint8 [N, 4, 84, 84], rows valid where truncated; None if nowhere.

        Raises:
            ValueError: an observation does not continue its stream, and `first` does not say so;
                a truncation without final_obs; wrong shapes.
        """
        n, stack = self.num_envs, (self.num_envs, STACK, *self.frame_shape)
        obs_tm1 = _checked("obs_tm1", obs_tm1, np.uint8, stack)
        truncated = _checked("truncated", truncated, np.bool_, (n,))
        first = _checked("first", first, np.bool_, (n,))
        if not truncated.any():
            final_obs = None
        elif final_obs is None:
            raise ValueError("truncated without final_obs: nothing to bootstrap from")
        else:
            final_obs = _checked("final_obs", final_obs, np.uint8, stack).reshape(n, STACK, -1)
        flat = obs_tm1.reshape(n, STACK, -1)
        broken = first_break(self._ring, flat, first)
        if broken >= 0:
            raise ValueError(
                f"obs_tm1[{broken}] does not continue the stack of environment {broken}; "
                "`first` marks observations after a reset"
            )
        begin = int(self._ring.counts[PUSHED])
        add_step(
            self._ring,
            self.capacity,
            flat,
            _checked("action", action, np.int64, (n,)),
            _checked("reward", reward, np.float32, (n,)),
            _checked("terminated", terminated, np.bool_, (n,)),
            truncated,
            first,
            int(task),
            flat if final_obs is None else final_obs,
        )
        self._touch(begin)

    def cut(self, obs: np.ndarray) -> None:
        """The streams stop here (the task changes): running episodes bootstrap from obs
        [N, 4, 84, 84], and what is added next opens new streams."""
        obs = _checked("obs", obs, np.uint8, (self.num_envs, STACK, *self.frame_shape))
        begin = int(self._ring.counts[PUSHED])
        cut_streams(self._ring, obs.reshape(self.num_envs, STACK, -1))
        self._touch(begin)

    def relabel(self, steps: int, task: int) -> None:
        """The last `steps` transitions of each running stream were of this task after all."""
        slots = self._ring.slots
        for slot in self._ring.last:
            for _ in range(steps):
                if slot < 0 or not slots[slot]["held"]:
                    break
                slots[slot]["task"] = task
                slot = slots[slot]["prev"]

    def _touch(self, begin: int) -> None:
        size, end = len(self._ring.ready), int(self._ring.counts[PUSHED])
        start, stop = begin % size, begin % size + end - begin
        self._frames.touch(start, min(stop, size))
        self._frames.touch(0, stop - size)

    # -- reading --------------------------------------------------------------------------------
    def sample(
        self,
        batch_size: int,
        n_step: int,
        rng: np.random.Generator,
        *,
        beta: float = 1.0,
        shift: int = 0,
    ) -> Batch:
        """Draw with replacement from all transitions whose window is complete.

        Args:
            batch_size: B.
            n_step: n, at most n_step_max.
            rng: the only source of randomness.
            beta: exponent of the importance weights w = (len * P)^-beta, divided by the batch's
                greatest. Without priorities all weights are 1.
            shift: each stack is moved by its own (dy, dx), uniform in [-shift, shift], the edge
                pixels repeated (DrQ's augmentation); obs_tm1 and obs_t independently.

        The arrays belong to the caller for as long as he holds them.
        """
        self._check("n_step", n_step, shift)
        chosen, weights = self._draw(batch_size, rng, beta)
        shape = (batch_size, STACK, *self.frame_shape)
        batch = Batch(
            self._pool.take(shape),
            np.empty(batch_size, np.int64),
            np.zeros((batch_size, n_step), np.float32),
            np.empty(batch_size, np.int64),
            np.empty(batch_size, np.bool_),
            self._pool.take(shape),
            np.empty(batch_size, np.int64),
            self._names(chosen),
            weights,
        )
        gather_windows(
            self._ring,
            chosen,
            self.frame_shape[1],
            _shifts(rng, shift, (batch_size, 4)),
            batch.obs_tm1.reshape(batch_size, STACK, -1),
            batch.action_tm1,
            batch.rewards,
            batch.steps,
            batch.terminated,
            batch.obs_t.reshape(batch_size, STACK, -1),
            batch.task,
        )
        return batch

    def sample_sequences(
        self, batch_size: int, length: int, rng: np.random.Generator, *, shift: int = 0
    ) -> SequenceBatch:
        """Draw, uniformly and with replacement, K = `length` consecutive steps from one stream
        each, K + 1 observations; K at most n_step_max. A sequence stops at a termination or with
        its stream. With `shift` all frames of a sequence are moved alike."""
        self._check("length", length, shift)
        chosen, _ = self._draw(batch_size, rng, None)
        batch = SequenceBatch(
            self._pool.take((batch_size, length + STACK, *self.frame_shape)),
            np.zeros((batch_size, length), np.int64),
            np.zeros((batch_size, length), np.float32),
            np.zeros((batch_size, length), np.bool_),
            np.empty(batch_size, np.int64),
            np.empty(batch_size, np.int64),
            self._names(chosen),
        )
        gather_sequences(
            self._ring,
            chosen,
            self.frame_shape[1],
            _shifts(rng, shift, (batch_size, 2)),
            batch.frames.reshape(batch_size, length + STACK, -1),
            *batch[1:4],
            batch.steps,
            batch.task,
        )
        return batch

    def newest(self) -> np.ndarray:
        """Names int64 [N] of the transitions that `add` stored last; -1 where a stream ended."""
        last = self._ring.last
        return np.where(last >= 0, self._names(last), -1)

    @property
    def slots(self) -> int:
        """Names that differ by less than this are in different places (name % slots)."""
        return len(self._ring.ready)

    def names_after(self, names: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Names int64 [B] of the observations `steps` [B] after the transitions `names` [B], all
        of them stored."""
        slots = (np.asarray(names) % self.slots).astype(np.int32)
        follow(self._ring, slots, np.asarray(steps, np.int64))
        return self._names(slots)

    def observations(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What was seen before the transitions `names` int64 [M].

        Returns (obs uint8 [K, 4, 84, 84] of those that are still there, there bool [M]).
        """
        ring, size = self._ring, self.slots
        names = np.asarray(names, np.int64)
        there = (names >= 0) & (names >= ring.counts[PUSHED] - size)
        there &= names < ring.counts[PUSHED]
        there &= ring.slots["held"][names % size] == 1
        stacks = stack_slots(ring, (names[there] % size).astype(np.int32))
        return ring.frames[stacks].reshape(-1, STACK, *self.frame_shape), there

    def _check(self, name: str, steps: int, shift: int) -> None:
        if not 1 <= steps <= self.n_step_max:
            raise ValueError(f"{name}={steps} is not within 1 to n_step_max={self.n_step_max}")
        if not 0 <= shift < min(self.frame_shape):
            raise ValueError(f"shift={shift} does not fit frames of {self.frame_shape}")
        if len(self) == 0:
            raise ValueError("nothing to draw: no window is complete yet")

    def _draw(
        self, count: int, rng: np.random.Generator, beta: float | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots int32 [B] and importance weights float32 [B]; beta None: uniform in any case."""
        ring = self._ring
        if beta is None or not self.prioritised:
            chosen = ring.ready[rng.integers(len(self), size=count)]
            return chosen, np.ones(count, np.float32)
        # One draw from each of `count` equal parts of the total (Schaul et al., appendix B.2.1).
        masses = (np.arange(count) + rng.random(count)) * (ring.tree[1] / count)
        chosen = np.empty(count, np.int32)
        find_leaves(ring.tree, masses, chosen)
        leaves = ring.tree[len(ring.tree) // 2 + chosen]
        return chosen, ((leaves / leaves.min()) ** -beta).astype(np.float32)

    def update_priorities(self, indices: np.ndarray, td_errors: np.ndarray) -> None:
        """The priority of the transitions named by indices [B] is |td_errors| [B] + epsilon from
        now on; those that have been overwritten since they were drawn are passed over.

        Raises ValueError without priorities, or if an error is not finite.
        """
        if not self.prioritised:
            raise ValueError("update_priorities() of a buffer with prioritised=False")
        ring, size = self._ring, len(self._ring.ready)
        leaves = (np.abs(np.asarray(td_errors, np.float64)) + self.epsilon) ** self.alpha
        indices = np.asarray(indices, np.int64)
        if leaves.shape != indices.shape or not np.isfinite(leaves).all():
            raise ValueError("td_errors are as many as indices, and finite")
        slots = indices % size
        there = (indices >= ring.counts[PUSHED] - size) & (ring.place[slots] >= 0)
        set_leaves(ring.tree, slots[there], leaves[there])
        ring.top[0] = max(ring.top[0], leaves[there].max(initial=0.0))

    def _names(self, slots: np.ndarray) -> np.ndarray:
        """Names [B] of the transitions that now are in these slots: the count of slots ever
        pushed before theirs."""
        newest = self._ring.counts[PUSHED] - 1
        return newest - (newest - slots) % len(self._ring.ready)

    # -- state ----------------------------------------------------------------------------------
    def _config(self) -> dict[str, Any]:
        return {
            "capacity": self.capacity,
            "num_envs": self.num_envs,
            "n_step_max": self.n_step_max,
            "prioritised": self.prioritised,
            "frame_shape": list(self.frame_shape),
        }

    def state_dict(self) -> dict[str, Any]:
        """The frames in it are the buffer's own memory: save or load it before the next `add`."""
        ring = self._ring
        return {
            "config": self._config(),
            "frames": self._frames,
            "slots": ring.slots.view(np.uint8).copy(),
            "ready": ring.ready[: len(self)].copy(),
            "last": ring.last.copy(),
            "waiting": ring.waiting.copy(),
            "waits": ring.waits.copy(),
            "counts": ring.counts.copy(),
            "leaves": ring.tree[len(ring.tree) // 2 :].copy(),
            "top": ring.top.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError if the state is that of a buffer of other sizes."""
        if state["config"] != self._config():
            raise UserError(
                f"checkpoint: its replay has {state['config']}, the configuration asks for "
                f"{self._config()}; go on with the settings the run was started with"
            )
        self._frames = state["frames"].claim()
        ring = self._ring._replace(frames=self._frames.array)
        ring.slots[:] = np.asarray(state["slots"]).view(SLOT)
        ready = np.asarray(state["ready"])
        ring.ready[: len(ready)] = ready
        ring.place[:] = -1
        ring.place[ready] = np.arange(len(ready), dtype=np.int32)
        for name in ("last", "waiting", "waits", "counts", "top"):
            getattr(ring, name)[...] = state[name]
        ring.tree[len(ring.tree) // 2 :] = state["leaves"]
        rebuild(ring.tree)
        self._ring = ring


def _shifts(rng: np.random.Generator, shift: int, shape: tuple[int, int]) -> np.ndarray:
    """Offsets in [-shift, shift]; without a shift nothing is drawn."""
    return rng.integers(-shift, shift + 1, size=shape) if shift else np.zeros(shape, np.int64)


def _checked(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """C-contiguous and writable, since the kernels are compiled for such arrays only."""
    array = np.require(value, dtype, ["C", "W"])
    if array.shape != shape:
        raise ValueError(f"{name} has shape {list(array.shape)}, not {list(shape)}")
    return array
