"""A replay that stores whole stacks and keeps lists of everything: slow, and obviously right."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Item(NamedTuple):
    obs: np.ndarray
    action: int
    reward: float
    terminated: bool
    task: int


class Stream:
    """One environment between a reset and the end that the buffer saw."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.end: np.ndarray | None = None  # observation after the last item, where it is known
        self.over = False


class ModelReplay:
    """Streams per environment; `windows(n)` lists everything that may be drawn, unless evicted."""

    def __init__(self, num_envs: int, n_max: int) -> None:
        self.n_max = n_max
        self.streams: list[list[Stream]] = [[] for _ in range(num_envs)]

    def _running(self, e: int) -> Stream | None:
        streams = self.streams[e]
        return streams[-1] if streams and not streams[-1].over else None

    def add(self, obs, action, reward, terminated, truncated, first, task, final_obs) -> None:
        for e in range(len(action)):
            stream = self._running(e)
            if stream is not None and first[e]:
                self._break_off(stream)
                stream = None
            if stream is None:
                stream = Stream()
                self.streams[e].append(stream)
            stream.items.append(
                Item(obs[e].copy(), int(action[e]), float(reward[e]), bool(terminated[e]), task)
            )
            if truncated[e]:
                stream.end, stream.over = final_obs[e].copy(), True

    @staticmethod
    def _break_off(stream: Stream) -> None:
        """Ended by a reset: an unseen outcome makes the last item a mere observation."""
        if not stream.items[-1].terminated:
            stream.end = stream.items.pop().obs
        stream.over = True

    def cut(self, obs, first) -> None:
        for e in range(len(self.streams)):
            stream = self._running(e)
            if stream is None:
                continue
            if first[e]:
                self._break_off(stream)
            else:
                stream.end, stream.over = obs[e].copy(), True

    def windows(self, n: int) -> list[dict[str, Any]]:
        """What `sample(n_step=n)` may give, in order of arrival within each environment."""
        found = []
        for e, streams in enumerate(self.streams):
            for stream in streams:
                observations = [item.obs for item in stream.items]
                if stream.end is not None:
                    observations.append(stream.end)
                for i in range(len(stream.items)):
                    if not stream.over and i + self.n_max >= len(stream.items):
                        break  # incomplete
                    found.append({"env": e} | self._window(stream.items, observations, i, n))
        return found

    @staticmethod
    def _window(items: list[Item], observations: list[np.ndarray], i: int, n: int) -> dict:
        rewards, k, terminated = np.zeros(n, np.float32), 0, False
        for item in items[i : i + n]:
            rewards[k] = item.reward
            k += 1
            if item.terminated:
                terminated = True
                break
        return {
            "obs_tm1": items[i].obs,
            "action": items[i].action,
            "rewards": rewards,
            "steps": k,
            "terminated": terminated,
            "obs_t": observations[min(i + k, len(observations) - 1)],
            "task": items[i].task,
        }
