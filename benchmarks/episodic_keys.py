"""Keys of real Atari frames for `benchmarks/episodic.py`.

    frames [N,4,84,84] uint8 -> conv (random, or a trained encoder) [N,L] -> PCA [N,D] -> unit

With a random encoder the keys are written down as such in the benchmark's JSON. PCA without
whitening stands in for the learned key layer: it keeps the directions in which the frames
differ, where a random projection would leave all keys close to one common mean.

The stored keys come from all environments but the last of each game; queries come from the last
one, that is from other episodes, so that no query has its own neighbouring frames in the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from torch import Tensor, nn

GAMES = ("ms_pacman", "frostbite", "qbert", "krull")
ENVS = 16  # per game; the last one gives the queries
HOLD = 4  # an action is held for this many agent steps on average, to get about
QUERIES = 2048


class KeySet(NamedTuple):
    """Distinct keys in the order of experience (games in turn), with what was done there."""

    keys: np.ndarray  # [N,D] float32, unit length
    actions: np.ndarray  # [N] int64, of the full action set (18)
    games: np.ndarray  # [N] int64
    queries: np.ndarray  # [Q,D] float32, from other episodes
    source: str


def random_conv(seed: int) -> nn.Module:
    """The data-efficient DQN torso (two convolutions), random weights, 576 outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(4, 32, 5, stride=5), nn.ReLU(),
            nn.Conv2d(32, 64, 5, stride=5), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
    return net.eval()


@torch.no_grad()
def play(game: str, steps: int, encode: Callable[[Tensor], Tensor], width: int, seed: int):
    """Codes and actions of `steps` vector steps: ([S,E,width] float32, [S,E] int64).

    `encode` turns uint8 frames [B,4,84,84] into codes; frames are never kept.
    """
    env = AtariVectorEnv(
        game, ENVS, num_threads=1, repeat_action_probability=0.25, full_action_space=True,
        noop_max=30, use_fire_reset=False, reward_clipping=False,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    action = rng.integers(18, size=ENVS)
    codes = np.zeros((steps, ENVS, width), np.float32)
    actions = np.zeros((steps, ENVS), np.int64)
    for step in range(steps):
        action = np.where(rng.random(ENVS) < 1 / HOLD, rng.integers(18, size=ENVS), action)
        codes[step] = encode(torch.from_numpy(obs)).numpy()
        actions[step] = action
        obs, *_ = env.step(action)
    env.close()
    return codes, actions


def fit_projection(latents: np.ndarray, dim: int) -> tuple[Tensor, Tensor]:
    """Mean [L] and the `dim` strongest principal axes [L,D] of latents [M,L]."""
    mean = latents.mean(0)
    _, axes = np.linalg.eigh(np.cov((latents - mean).T))  # ascending
    return torch.from_numpy(mean), torch.from_numpy(axes[:, ::-1][:, :dim].astype(np.float32))


def collect(count: int, dim: int, seed: int, encode=None, source: str | None = None) -> KeySet:
    """`count` distinct keys of `dim` dimensions plus held-out queries.

    `encode` maps uint8 frames [B,4,84,84] to latents [B,L]; None means the random convolution.
    """
    if encode is None:
        net = random_conv(seed)
        encode = lambda obs: net(obs.float() / 255)  # noqa: E731
        source = "random conv torso (576 units), PCA to D; random play with held actions"
    with torch.no_grad():
        width = encode(torch.zeros(1, 4, 84, 84, dtype=torch.uint8)).shape[1]
    sample = [play(g, 500, encode, width, seed + 99)[0].reshape(-1, width) for g in GAMES]
    mean, axes = fit_projection(np.concatenate(sample), dim)
    project = lambda obs: nn.functional.normalize((encode(obs) - mean) @ axes, dim=1)  # noqa: E731

    return gather(count, dim, seed, project, source or "given encoder")


def gather(count: int, dim: int, seed: int, project, source: str, start: KeySet | None = None):
    """Play rounds until `count` distinct keys are there (random play repeats states)."""
    have, turn = start, 0 if start is None else 1
    while have is None or len(have.keys) < count:
        missing = count - (0 if have is None else len(have.keys))
        # a seventh more than needed, since identical states are dropped
        steps = int(missing * 1.15 / (len(GAMES) * (ENVS - 1))) + QUERIES // len(GAMES)
        codes = np.zeros((steps, len(GAMES), ENVS, dim), np.float32)
        actions = np.zeros((steps, len(GAMES), ENVS), np.int64)
        for i, game in enumerate(GAMES):
            codes[:, i], actions[:, i] = play(
                game, steps, project, dim, seed + 10 * i + 1000 * turn
            )
        games = np.broadcast_to(np.arange(len(GAMES))[None, :, None], actions.shape)
        new = [codes[:, :, :-1].reshape(-1, dim)]
        new += [x[:, :, :-1].reshape(-1) for x in (actions, games)]
        if have is None:
            queries = codes[:, :, -1].reshape(-1, dim)
            pick = np.random.default_rng(seed).choice(len(queries), QUERIES, replace=False)
            queries = queries[pick]
        else:
            queries = have.queries
            new = [np.concatenate([old, x]) for old, x in zip(have[:3], new)]
        # identical frames give identical bytes, so a set of hashes finds them
        _, first = np.unique([hash(key.tobytes()) for key in new[0]], return_index=True)
        keep = np.sort(first)[:count]
        have, turn = KeySet(*(x[keep] for x in new), queries, source), turn + 1
    return have


def cached(path: Path, count: int, dim: int, seed: int) -> KeySet:
    """The key set in `path` (.npz), collected and written there if it is missing or too small."""
    if path.exists():
        with np.load(path) as data:
            if data["keys"].shape[0] >= count and data["keys"].shape[1] == dim:
                return KeySet(*(data[name] for name in KeySet._fields[:-1]), str(data["source"]))
    keys = collect(count, dim, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **keys._asdict())
    return keys
