"""A uniform sample of everything ever seen, in the bytes of a ring (Vitter 1985, algorithm R).

What is kept or dropped as a whole is a segment: up to L consecutive transitions of one stream,
with the 4 + L frames they need. The i-th finished segment replaces one of the S kept ones with
probability S / i, so that every transition of the whole run has the same chance of being here,
however many games came after it. Always admitting the newest would forget exponentially.

Windows end with their segment at the latest; they bootstrap from its last observation.

N environments, S segments, L transitions a segment, P pixels a frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from errors import UserError
from memory.batches import Batch, SequenceBatch
from memory.blocks import BlockArray
from memory.gather import copy_stack
from memory.pool import ArrayPool
from memory.ring import STACK

LENGTH = 32  # transitions a segment: frames cost 1/8 more than stored once, windows are rarely cut
FIELDS = (("action", np.int32), ("reward", np.float32), ("terminated", np.uint8))


@njit(cache=True)
def gather_stacks(frames, slots, width, shifts, out):
    """The stacks that end at rows `slots` [B] of `frames`, shifted by `shifts` [B, 2]."""
    rows = np.empty(STACK, np.int64)
    for b in range(len(slots)):
        for f in range(STACK):
            rows[f] = slots[b] - STACK + 1 + f
        copy_stack(frames, rows, out[b], width, shifts[b, 0], shifts[b, 1])


def shift_frames(frames: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """frames [B, F, H, W], all of a row moved by moves [B, 2], the edge repeated."""
    height, width = frames.shape[2:]
    y = np.clip(np.arange(height) + moves[:, :1], 0, height - 1)  # [B, H]
    x = np.clip(np.arange(width) + moves[:, 1:], 0, width - 1)  # [B, W]
    rows = np.arange(len(frames))[:, None, None, None]
    step = np.arange(frames.shape[1])[:, None, None]
    return frames[rows, step, y[:, None, :, None], x[:, None, None, :]]


class ReservoirReplay:
    """A uniform sample, in segments, of all transitions; the interface of `ReplayBuffer`.

    Args:
        capacity: transitions that a `ReplayBuffer` of the same bytes would hold.
        num_envs: N.
        n_step_max: longest window that will be asked for.
        seed: integer; admission has a generator of its own.
        frame_shape: height and width of a frame in pixels.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        n_step_max: int,
        seed: int = 0,
        frame_shape: tuple[int, int] = (84, 84),
        length: int = LENGTH,
    ) -> None:
        rows = length + STACK
        segments = (capacity + capacity // 16) // rows
        if segments < 1:
            raise UserError(
                f"agent.replay_capacity leaves a reservoir of {capacity} transitions, which holds "
                f"no segment of {length}: raise it"
            )
        self.capacity, self.num_envs, self.n_step_max = capacity, num_envs, n_step_max
        self.frame_shape, self.length, self.segments = tuple(frame_shape), length, segments
        pixels = int(np.prod(frame_shape))
        self._frames = BlockArray.zeros((segments * rows, pixels), np.uint8)
        self._rows = rows
        self._data = {k: np.zeros((segments, length), t) for k, t in FIELDS}
        self._task = np.zeros(segments, np.int16)
        self._size = np.zeros(segments, np.int64)  # transitions of each kept segment
        self._ends = np.zeros(segments, np.int64)  # their running sum
        self.seen = 0  # finished segments so far
        self.rng = np.random.default_rng(seed)
        # What each stream is about to finish.
        self._open_frames = np.zeros((num_envs, rows, pixels), np.uint8)
        self._open = {k: np.zeros((num_envs, length), t) for k, t in FIELDS}
        self._open_size = np.zeros(num_envs, np.int64)
        self._open_task = np.zeros(num_envs, np.int64)
        self._pool = ArrayPool()

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return int(self._ends[-1])

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
        """Append one transition of each environment; arguments as in `ReplayBuffer.add`, and
        trusted: that a stack continues its stream is not looked at."""
        flat = obs_tm1.reshape(self.num_envs, STACK, -1)
        for e in range(self.num_envs):
            size = self._open_size[e]
            if size and first[e]:
                self._break(e)
            elif size:
                self._open_frames[e, STACK + size - 1] = flat[e, -1]  # what the last step led to
                if size == self.length or self._open_task[e] != task:
                    self._finish(e)
            size = self._open_size[e]
            if size == 0:
                self._open_frames[e, :STACK] = flat[e]
                self._open_task[e] = task
            self._open["action"][e, size] = action[e]
            self._open["reward"][e, size] = reward[e]
            self._open["terminated"][e, size] = terminated[e]
            self._open_size[e] = size + 1
            if truncated[e]:
                if final_obs is None:
                    raise ValueError("truncated without final_obs: nothing to bootstrap from")
                self._open_frames[e, STACK + size] = final_obs[e, -1].reshape(-1)
                self._finish(e)

    def cut(self, obs: np.ndarray) -> None:
        """The streams stop here (the task changes): running segments end with obs
        [N, 4, 84, 84]."""
        for e in range(self.num_envs):
            size = self._open_size[e]
            if not size:
                continue
            last = self._open_frames[e, size : size + STACK - 1]
            if (obs[e, :-1].reshape(STACK - 1, -1) == last).all():
                self._open_frames[e, STACK + size - 1] = obs[e, -1].reshape(-1)
                self._finish(e)
            else:
                self._break(e)

    def relabel(self, steps: int, task: int) -> None:
        """As `ReplayBuffer.relabel`, for segments that are no older; the others stay whole, and
        end where the next transition has another label."""
        self._open_task[self._open_size <= steps] = task

    def _break(self, e: int) -> None:
        """Nobody saw what the last action led to: unless that was an end, it is dropped."""
        size = self._open_size[e]
        if self._open["terminated"][e, size - 1]:
            self._open_frames[e, STACK + size - 1] = self._open_frames[e, STACK + size - 2]
        else:
            self._open_size[e] = size - 1
        if self._open_size[e]:
            self._finish(e)

    def _finish(self, e: int) -> None:
        """Algorithm R on the segment that stream e has finished."""
        size, self._open_size[e] = int(self._open_size[e]), 0
        place = self.seen if self.seen < self.segments else int(self.rng.integers(self.seen + 1))
        self.seen += 1
        if place >= self.segments:
            return
        row = place * self._rows
        count = size + STACK
        self._frames.array[row : row + count] = self._open_frames[e, :count]
        self._frames.touch(row, row + count)
        for key, kept in self._data.items():
            kept[place, :size] = self._open[key][e, :size]
        self._task[place], self._size[place] = self._open_task[e], size
        np.cumsum(self._size, out=self._ends)

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
        """Draw uniformly and with replacement; arguments as in `ReplayBuffer.sample`."""
        if len(self) == 0:
            raise ValueError("nothing to draw: no segment is complete yet")
        drawn = rng.integers(len(self), size=batch_size)
        segment = np.searchsorted(self._ends, drawn, side="right")
        size = self._size[segment]
        at = drawn - (self._ends[segment] - size)  # position in the segment
        steps = np.minimum(n_step, size - at)
        index = at[:, None] + np.arange(n_step)  # [B, n]
        inside = np.arange(n_step) < steps[:, None]
        index = np.minimum(index, self.length - 1)
        ended = self._data["terminated"][segment[:, None], index].astype(bool) & inside
        terminated = ended.any(1)
        steps = np.where(terminated, ended.argmax(1) + 1, steps)
        counts = np.arange(n_step) < steps[:, None]
        rewards = np.where(counts, self._data["reward"][segment[:, None], index], np.float32(0))
        row = segment * self._rows + STACK - 1 + at
        return Batch(
            self._stacks(row, rng, shift),
            self._data["action"][segment, at].astype(np.int64),
            rewards,
            steps,
            terminated,
            self._stacks(row + steps, rng, shift),
            self._task[segment].astype(np.int64),
            np.full(batch_size, -1, np.int64),  # transitions here have no names
            np.ones(batch_size, np.float32),
        )

    def sample_sequences(
        self, batch_size: int, length: int, rng: np.random.Generator, *, shift: int = 0
    ) -> SequenceBatch:
        """As `ReplayBuffer.sample_sequences`; a sequence also stops with its segment."""
        if len(self) == 0:
            raise ValueError("nothing to draw: no segment is complete yet")
        drawn = rng.integers(len(self), size=batch_size)
        segment = np.searchsorted(self._ends, drawn, side="right")
        size = self._size[segment]
        at = drawn - (self._ends[segment] - size)
        index = np.minimum(at[:, None] + np.arange(length), self.length - 1)  # [B, K]
        inside = at[:, None] + np.arange(length) < size[:, None]
        ended = self._data["terminated"][segment[:, None], index].astype(bool) & inside
        steps = np.where(ended.any(1), ended.argmax(1) + 1, inside.sum(1))
        counts = np.arange(length) < steps[:, None]
        step = np.arange(length + STACK)
        rows = segment[:, None] * self._rows + at[:, None] + np.minimum(step, steps[:, None] + 3)
        frames = self._frames.array[rows].reshape(batch_size, -1, *self.frame_shape)
        if shift:
            frames = shift_frames(frames, rng.integers(-shift, shift + 1, size=(batch_size, 2)))
        return SequenceBatch(
            frames,
            np.where(counts, self._data["action"][segment[:, None], index], 0).astype(np.int64),
            np.where(counts, self._data["reward"][segment[:, None], index], np.float32(0)),
            ended & counts,
            steps.astype(np.int64),
            self._task[segment].astype(np.int64),
            np.full(batch_size, -1, np.int64),
        )

    def _stacks(self, rows: np.ndarray, rng: np.random.Generator, shift: int) -> np.ndarray:
        count = len(rows)
        out = self._pool.take((count, STACK, *self.frame_shape))
        moves = np.zeros((count, 2), np.int64)
        if shift:
            moves = rng.integers(-shift, shift + 1, size=(count, 2))
        flat = out.reshape(count, STACK, -1)
        gather_stacks(self._frames.array, rows, self.frame_shape[1], moves, flat)
        return out

    def nbytes(self) -> int:
        """Bytes of the frames, which are nearly all there is."""
        return self._frames.array.nbytes

    # -- state ----------------------------------------------------------------------------------
    def _config(self) -> dict[str, Any]:
        keys = ("capacity", "num_envs", "n_step_max", "length")
        return {k: getattr(self, k) for k in keys} | {"frame_shape": list(self.frame_shape)}

    def state_dict(self) -> dict[str, Any]:
        """The frames in it are the buffer's own memory: save or load it before the next `add`."""
        return {
            "config": self._config(),
            "frames": self._frames,
            "data": {k: v.copy() for k, v in self._data.items()},
            "task": self._task.copy(),
            "size": self._size.copy(),
            "seen": self.seen,
            "rng": self.rng.bit_generator.state,
            "open_frames": self._open_frames.copy(),
            "open": {k: v.copy() for k, v in self._open.items()},
            "open_size": self._open_size.copy(),
            "open_task": self._open_task.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError if the state is that of a buffer of other sizes."""
        if state.get("config") != self._config():
            raise UserError(
                f"checkpoint: its replay has {state.get('config')}, the configuration asks for "
                f"{self._config()}; go on with the settings the run was started with"
            )
        self._frames = state["frames"].claim()
        for key, _ in FIELDS:
            self._data[key][:] = state["data"][key]
            self._open[key][:] = state["open"][key]
        self._task[:], self._size[:] = state["task"], state["size"]
        np.cumsum(self._size, out=self._ends)
        self.seen = state["seen"]
        self.rng.bit_generator.state = state["rng"]
        self._open_frames[:] = state["open_frames"]
        self._open_size[:], self._open_task[:] = state["open_size"], state["open_task"]
