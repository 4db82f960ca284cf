"""Cost of the spiking encoder against its ReLU twin, on frames of three real games.

    python benchmarks/encoder.py            # writes benchmarks/results/encoder.json

encoder_amd.json is the same from another processor and from before encoder.changes, kept under
that name.

One thread, batch 32, another batch at each repetition (a processor learns a repeated one by heart).
All forms of a size take turns within a run; the figures are medians of processor time, which for
one thread equals time on the clock unless other processes take the core away. Columns:

    forward   without gradient
    encoder   forward and backward
    step      encoder, linear head of 18 outputs, loss, backward, Adam
    double_q  the same and two more forward passes without gradient: what double Q-learning does
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numba
import numpy as np
import torch
import torch.nn.functional as F
from ale_py.vector_env import AtariVectorEnv

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agents.encoders import EncoderConfig, make_encoder  # noqa: E402
from agents.encoders.config import SIZES  # noqa: E402
from training.threads import configure_threads  # noqa: E402

GAMES = ("krull", "road_runner", "boxing")
BATCH, BATCHES, ACTIONS = 32, 24, 18
REPEATS = {"der": 96, "fine": 64, "nature": 24, "impala": 5}
WARM_UP = 2
FORMS = {
    "spiking": {"kind": "spiking"},
    "conv": {"kind": "conv"},
    "spiking, changes": {"kind": "spiking", "changes": True},
    "spiking, graded": {"kind": "spiking", "graded": True},
    "spiking, plain torch": {"kind": "spiking", "fused": False},
    "conv, plain torch": {"kind": "conv", "fused": False},
}


def play(game: str, count: int) -> torch.Tensor:
    """Frames [count, 4, 84, 84] of random play, four agent steps apart."""
    env = AtariVectorEnv(game, num_envs=4, num_threads=1, reward_clipping=False)
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    frames = []
    for step in range(4 * (count // 4 + 10)):
        obs = env.step(rng.integers(0, env.single_action_space.n, 4))[0]
        if step >= 40 and step % 4 == 0:
            frames.append(obs.copy())
    env.close()
    return torch.from_numpy(np.concatenate(frames)[:count])


class Form:
    """One encoder with a head and an optimiser, and the times it took."""

    def __init__(self, size: str, values: dict) -> None:
        rng = torch.Generator().manual_seed(0)
        self.encoder = make_encoder(EncoderConfig(size=size, **values), rng)
        self.head = torch.nn.Linear(self.encoder.latent_dim, ACTIONS)
        params = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.Adam(params, lr=1e-5, fused=True)
        self.times: dict[str, list[float]] = {}

    def timed(self, name: str, work, obs) -> None:
        begin = time.process_time()
        work(obs)
        self.times.setdefault(name, []).append(1e3 * (time.process_time() - begin))

    def forward(self, obs) -> None:
        with torch.no_grad():
            self.encoder(obs)

    def both(self, obs) -> None:
        self.optimiser.zero_grad()
        self.encoder(obs).latent.sum().backward()

    def step(self, obs) -> None:
        self.optimiser.zero_grad()
        encoding = self.encoder(obs)
        values = self.head(encoding.latent)
        loss = F.smooth_l1_loss(values, torch.ones_like(values))
        if encoding.rates.requires_grad:
            loss = loss + 1e-3 * ((encoding.rates - 0.08) ** 2).sum()
        loss.backward()
        self.optimiser.step()

    def double_q(self, obs) -> None:
        self.forward(obs)
        self.forward(obs)
        self.step(obs)


def measure(size: str, batches: list[torch.Tensor]) -> dict:
    forms = {name: Form(size, values) for name, values in FORMS.items()}
    columns = {"forward": "forward", "encoder": "both", "step": "step", "double_q": "double_q"}
    repeats = REPEATS[size]
    for i in range(-WARM_UP, repeats):
        obs = batches[i % len(batches)]
        for name, form in forms.items():
            if "plain" in name and i >= max(3, repeats // 6):
                continue
            for column, work in columns.items():
                form.timed(column, getattr(form, work), obs)
    result = {
        name: {
            column: round(statistics.median(times[WARM_UP:]), 3)
            for column, times in form.times.items()
        }
        for name, form in forms.items()
    }
    pairs = [("spiking", "conv"), ("spiking, changes", "spiking"), ("spiking, graded", "spiking")]
    for one, other in pairs:
        result[f"ratio {one} / {other}"] = {
            column: round(result[one][column] / result[other][column], 3) for column in columns
        }
    return result


def rates(size: str, frames: dict[str, torch.Tensor]) -> dict:
    """Spikes per neuron per time step at the start, by game and layer."""
    encoder = make_encoder(EncoderConfig(size=size), torch.Generator().manual_seed(0))
    result = {}
    with torch.no_grad():
        for game, obs in frames.items():
            values = encoder(obs[:64]).rates.tolist()
            result[game] = {n: round(v, 4) for n, v in zip(encoder.layer_names, values)}
    return result


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", help=f"of {', '.join(SIZES)}; only all are recorded")
    sizes = parser.parse_args().sizes
    if unknown := set(sizes) - set(SIZES):
        parser.error(f"unknown size {', '.join(sorted(unknown))}: use {', '.join(SIZES)}")
    configure_threads(1)
    count = -(-BATCH * BATCHES // len(GAMES))
    frames = {game: play(game, count) for game in GAMES}
    pool = torch.cat(list(frames.values()))
    order = np.random.default_rng(1).permutation(len(pool))
    batches = [pool[order[i * BATCH : (i + 1) * BATCH]].contiguous() for i in range(BATCHES)]
    report = {
        "command": "python benchmarks/encoder.py",
        "unit": "ms of processor time, median, batch 32, one thread",
        "games": list(GAMES),
        "machine": processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numba": numba.__version__,
            "numpy": np.__version__,
        },
        "sizes": {},
        "initial_rates": {},
    }
    for size in sizes or SIZES:
        report["sizes"][size] = measure(size, batches)
        report["initial_rates"][size] = rates(size, frames)
        print(size, json.dumps(report["sizes"][size], indent=1), flush=True)
    if not sizes:
        target = ROOT / "benchmarks" / "results" / "encoder.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
