"""What a GPU gives: training throughput of the agents on it, beside the CPU of its machine.

    python benchmarks/gpu.py                    # needs a CUDA device; some minutes
    python benchmarks/gpu.py --devices cpu --out try.json      # a try without one

Each agent has players of its own: one on the CPU, one on the GPU with the
update as a CUDA graph (`graph`, the default), some also with every update launched kernel by
kernel (`eager`). They take turns on a game of their own (act, emulators, learn, observe) after
their replay was filled by random play: agent steps/s, median over the rounds, at the agent's own
update ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from training.build import build_agent, make_training_env
from training.config import load_config
from training.folder import machine, versions
from training.step import vector_step
from training.threads import configure_threads

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
GAME, FILL, WARM = "krull", 2_000, 12  # agent steps, vector steps
AGENTS: dict[str, tuple[str, ...]] = {
    "reactive, spiking": ("agent=reactive",),
    "reactive, conv": ("agent=reactive", "encoder=conv"),
    "reactive, conv, nature": ("agent=reactive", "encoder=conv", "encoder.size=nature"),
    "reactive, conv, impala": ("agent=reactive", "encoder=conv", "encoder.size=impala"),
    "reactive, spiking, impala": ("agent=reactive", "encoder.size=impala"),
    "reactive, spiking, world model": ("agent=reactive", "world_model=latent"),
    "engram, spiking": ("agent=engram",),
    "nec, spiking": ("agent=nec",),
}
EAGER = ("reactive, spiking", "reactive, conv", "reactive, conv, impala", "engram, spiking")


class Player:
    """One agent with emulators of its own."""

    def __init__(self, words: tuple[str, ...], device: str, graph: bool) -> None:
        self.config = load_config(
            [
                "experiment=atari100k",
                f"sequence.games=[{GAME}]",
                "agent.replay_capacity=10000",
                "agent.learn_start=1600",
                *words,
                f"device={device}",
                f"device.cuda_graph={str(graph).lower()}",
            ]
        )
        self.agent = build_agent(self.config, torch.device(device))
        self.env = make_training_env(self.config, self.config.sequence.tasks()[0], 0)
        self.env.reset()
        self.agent.begin_task(0)
        learn, self.agent.learn = self.agent.learn, lambda: None
        while self.agent.steps < FILL:
            self.step()
        self.agent.learn = learn
        # What filling would have owed is not caught up with.
        due, owed = self.agent.updates_due, self.agent.updates_due()
        self.agent.updates_due = lambda: due() - owed
        for _ in range(WARM if device == "cuda" else 1):  # past the capture of each graph
            self.step()

    def step(self) -> None:
        vector_step(self.agent, self.env)

    def rate(self, seconds: float) -> float:
        """Agent steps/s over at least this time."""
        begin, at = time.perf_counter(), self.agent.steps
        while time.perf_counter() - begin < seconds:
            self.step()
        if self.agent.device.type == "cuda":
            torch.cuda.synchronize()
        return (self.agent.steps - at) / (time.perf_counter() - begin)


def modes(devices: list[str]) -> dict[str, tuple[str, bool]]:
    found = {"cpu": ("cpu", False), "eager": ("cuda", False), "graph": ("cuda", True)}
    return {name: mode for name, mode in found.items() if mode[0] in devices}


def compare(
    words: tuple[str, ...], args: argparse.Namespace, left_out: str | None = None
) -> dict[str, float]:
    players = {
        name: Player(words, *mode) for name, mode in modes(args.devices).items() if name != left_out
    }
    rates: dict[str, list[float]] = {name: [] for name in players}
    for _ in range(args.rounds):
        for name, player in players.items():
            rates[name].append(player.rate(args.seconds))
    row = {name: round(float(np.median(r)), 1) for name, r in rates.items()}
    for other in ("cpu", "eager"):
        if other in row and "graph" in row:
            row[f"graph_over_{other}"] = round(row["graph"] / row[other], 2)
    return row | {"updates_per_step": players[next(iter(players))].config.agent.updates_per_step}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if "cuda" in args.devices and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no CUDA device; --devices cpu tries the benchmark without one")
    configure_threads(1)
    result = {
        "command": "python benchmarks/gpu.py",
        "what": "agent steps/s in training, single game, one learner and one emulator thread",
        "game": GAME,
        "machine": machine(),
        "versions": versions(),
        "agents": {},
    }
    for name, words in AGENTS.items():
        result["agents"][name] = compare(words, args, None if name in EAGER else "eager")
        print(name, result["agents"][name], flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
