"""Replay of 1e5 transitions: time of a batch, memory, and how long a checkpoint stalls training.

    python benchmarks/replay.py [folder]      # where to try checkpoints, default: benchmarks/

One thread. The buffer is filled with random frames from 8 streams with ends and lost lives; draws
of the different kinds take turns. For comparison the same number of random frames is copied out
by numpy.take, which is what the memory allows at best. The checkpoint holds, beside the replay,
32 MB of tensors in place of a network and its optimiser.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from memory import ReplayBuffer  # noqa: E402
from training.checkpoint import CheckpointStore  # noqa: E402
from training.folder import machine, versions  # noqa: E402

CAPACITY, ENVS, BATCH, N_STEP, ROUNDS = 100_000, 8, 32, 10, 400
NEW_STEPS = 4_000  # agent steps between two checkpoints
TENSOR_BYTES = 32 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Stream:
    """Observations of 8 games, made at almost no cost: each frame is a slice of random bytes."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.noise = self.rng.integers(256, size=1 << 20, dtype=np.uint8)
        self.obs = np.zeros((ENVS, 4, 84, 84), np.uint8)
        self.first = np.ones(ENVS, bool)
        self._draw()

    def _draw(self) -> None:
        for e, at in enumerate(self.rng.integers(len(self.noise) - 7056, size=ENVS)):
            self.obs[e, 3] = self.noise[at : at + 7056].reshape(84, 84)

    def feed(self, replay: ReplayBuffer, steps: int) -> float:
        """Add this many agent steps; returns seconds spent in `add`."""
        seconds, rng = 0.0, self.rng
        for _ in range(steps // ENVS):
            over, lost = rng.random(ENVS) < 0.002, rng.random(ENVS) < 0.005
            action, reward = rng.integers(18, size=ENVS), rng.normal(size=ENVS)
            begin = time.perf_counter()
            replay.add(self.obs, action, reward, over | lost, over & False, self.first, 0)
            seconds += time.perf_counter() - begin
            self.obs[:, :3] = self.obs[:, 1:].copy()
            self.obs[over, :3] = 0
            self.first = over
            self._draw()
        return seconds


def time_draws(uniform: ReplayBuffer, prioritised: ReplayBuffer) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(1)
    frames, out = uniform._frames.array, np.empty((BATCH * 8, 84 * 84), np.uint8)

    def draw(replay: ReplayBuffer, shift: int) -> None:
        replay.sample(BATCH, N_STEP, rng, beta=0.4, shift=shift)

    def update() -> None:
        batch = prioritised.sample(BATCH, N_STEP, rng, beta=0.4, shift=4)
        prioritised.update_priorities(batch.indices, batch.weights)

    kinds = {
        "uniform": lambda: draw(uniform, 0),
        "uniform_shift_4": lambda: draw(uniform, 4),
        "prioritised": lambda: draw(prioritised, 0),
        "prioritised_shift_4_and_update": update,
        "sequences_of_5": lambda: uniform.sample_sequences(BATCH, 5, rng),
        "numpy_take_of_as_many_frames": lambda: np.take(
            frames, rng.integers(len(frames) - 1, size=len(out)), axis=0, out=out, mode="clip"
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(ROUNDS + 20):
        for name, kind in kinds.items():
            begin = time.perf_counter()
            kind()
            if round_ >= 20:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {
        name: {
            "median": round(statistics.median(t), 4),
            "fastest": round(min(t), 4),
            "p95": round(float(np.percentile(t, 95)), 4),
        }
        for name, t in times.items()
    }


def time_checkpoints(replay: ReplayBuffer, stream: Stream, where: Path) -> dict:
    tensors = {"network": torch.zeros(TENSOR_BYTES // 4)}

    def save(store: CheckpointStore, step: int) -> float:
        begin = time.perf_counter()
        store.save(step, {"agent": tensors, "replay": replay.state_dict()})
        return time.perf_counter() - begin

    with tempfile.TemporaryDirectory(dir=where) as folder:
        store = CheckpointStore(Path(folder), keep=2)
        first = save(store, 0)
        later = []
        for step in range(1, 8):
            stream.feed(replay, NEW_STEPS)
            later.append(save(store, step))
        fresh = CheckpointStore(Path(folder), keep=2)
        begin = time.perf_counter()
        state = fresh.load()
        other = ReplayBuffer(CAPACITY, ENVS, N_STEP)
        other.load_state_dict(state["replay"])
        load = time.perf_counter() - begin
        equal = np.array_equal(other._frames.array, replay._frames.array)
    return {
        "new_agent_steps": NEW_STEPS,
        "first_seconds": round(first, 3),
        "later_seconds": [round(t, 3) for t in later],
        "later_seconds_median": round(statistics.median(later), 3),
        "load_seconds": round(load, 3),
        "loaded_frames_equal": bool(equal),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "benchmarks")
    where = parser.parse_args().folder
    torch.set_num_threads(1)
    stream, warm = Stream(), ReplayBuffer(1_000, ENVS, N_STEP)
    stream.feed(warm, 800)  # compiles
    before = resident_bytes()
    uniform = ReplayBuffer(CAPACITY, ENVS, N_STEP)
    empty = resident_bytes() - before
    stream.first[:] = True
    add_seconds = stream.feed(uniform, CAPACITY + 10_000)
    full = resident_bytes() - before
    prioritised = ReplayBuffer(CAPACITY, ENVS, N_STEP, prioritised=True)
    state = uniform.state_dict() | {"config": prioritised._config()}
    leaves = np.zeros(len(prioritised._ring.tree) // 2)
    leaves[state["ready"]] = np.random.default_rng(2).exponential(size=len(state["ready"]))
    prioritised.load_state_dict(state | {"leaves": leaves})
    draws = time_draws(uniform, prioritised)
    del prioritised, state
    result = {
        "command": "python benchmarks/replay.py",
        "what": "replay of 1e5 transitions from 8 streams, batch 32, n = 10, one thread",
        "transitions": len(uniform),
        "sample_ms": draws,
        "add_us_per_agent_step": round(1e6 * add_seconds / (CAPACITY + 10_000), 2),
        "memory_bytes": {"empty": empty, "full": full},
        "checkpoint": time_checkpoints(uniform, stream, where),
        "load_average_1_min": round(os.getloadavg()[0], 1),
        "versions": versions(),
        "machine": machine(),
    }
    path = ROOT / "benchmarks" / "results" / "replay.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
