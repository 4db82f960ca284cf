"""What learning the world model costs of training, at one update per 4 agent steps.

    python benchmarks/world_model_cost.py [--rounds 30]

For each encoder three agents, without and with `world_model=latent`, as it comes and learning in
every update, take turns on a game of their own, a block of vector steps each (4 environments: act,
emulators, learn, observe), after their replay has been filled by random play. Processor time of all
threads, median over the blocks; the ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from training.build import build_agent, make_training_env
from training.config import load_config
from training.step import vector_step
from training.threads import configure_threads

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "none": (),
    "latent": ("world_model=latent",),
    "always": ("world_model=latent", "world_model.every=1"),
}
GAME, BLOCK, WARM = "krull", 25, 500  # vector steps


class Player:
    """One agent with emulators of its own."""

    def __init__(self, encoder: str, world_model: tuple[str, ...]) -> None:
        config = load_config(
            [
                "experiment=atari100k",
                f"sequence.games=[{GAME}]",
                f"encoder={encoder}",
                *world_model,
                "agent.updates_per_step=0.25",
                "device=cpu",
            ]
        )
        self.agent = build_agent(config, torch.device("cpu"))
        self.env = make_training_env(config, config.sequence.tasks()[0], 0)
        self.env.reset()
        self.agent.begin_task(0)

    def play(self, steps: int) -> float:
        """Seconds of processor time of these vector steps."""
        begin = time.process_time()
        for _ in range(steps):
            vector_step(self.agent, self.env)
        return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    configure_threads(1)
    result = {
        "command": "python benchmarks/world_model_cost.py",
        "what": "ms of processor time a vector step of 4 agent steps with one update, median",
        "game": GAME,
        "rounds": args.rounds,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "encoders": {},
    }
    for encoder in ("spiking", "conv"):
        players = {name: Player(encoder, overrides) for name, overrides in VARIANTS.items()}
        times: dict[str, list[float]] = {name: [] for name in players}
        for player in players.values():
            player.play(WARM)
        for _ in range(args.rounds):
            for name, player in players.items():
                times[name].append(player.play(BLOCK) / BLOCK * 1e3)
        row = {name: round(float(np.median(t)), 3) for name, t in times.items()}
        row["ratio"] = round(row["latent"] / row["none"], 3)
        row["ratio_always"] = round(row["always"] / row["none"], 3)
        result["encoders"][encoder] = row
        print(encoder, row, flush=True)
    path = ROOT / "benchmarks" / "results" / "world_model_cost.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def machine() -> str:
    out = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":", 1)[1].strip() for line in out.splitlines() if "Model name" in line]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}"


if __name__ == "__main__":
    main()
