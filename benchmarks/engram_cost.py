"""What agent=engram adds to training beside agent=reactive, at the default update ratio.

    python benchmarks/engram_cost.py [--rounds 12]

Two agents take turns on a game of their own, a block of vector steps each (4 environments: act,
emulators, learn, observe), in their second game, so that there is an old one to keep. Processor
time of all threads, median over the blocks; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from world_model_cost import ROOT, machine

from training.build import build_agent, make_training_env
from training.config import load_config
from training.step import vector_step
from training.threads import configure_threads

GAMES = ("krull", "road_runner")
BLOCK, WARM = 25, 450  # vector steps


class Player:
    """One agent with emulators of its own, which goes through both games."""

    def __init__(self, agent: str) -> None:
        config = load_config(
            [
                "experiment=atari100k",
                f"sequence.games=[{','.join(GAMES)}]",
                f"agent={agent}",
                "agent.replay_capacity=20000",
                "device=cpu",
            ]
        )
        self.config, self.agent = config, build_agent(config, torch.device("cpu"))

    def begin(self, game: int) -> None:
        if game:
            self.agent.end_task(self.env.observations)
            self.env.close()
        self.env = make_training_env(self.config, self.config.sequence.tasks()[game], game)
        self.env.reset()
        self.agent.begin_task(game)

    def play(self, steps: int) -> float:
        """Seconds of processor time of these vector steps."""
        begin = time.process_time()
        for _ in range(steps):
            vector_step(self.agent, self.env)
        return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    configure_threads(1)
    players = {name: Player(name) for name in ("reactive", "engram")}
    times: dict[str, list[float]] = {name: [] for name in players}
    for player in players.values():
        player.begin(0)
        player.play(WARM)
        player.begin(1)
        player.play(BLOCK)
    for _ in range(args.rounds):
        for name, player in players.items():
            times[name].append(player.play(BLOCK) / BLOCK * 1e3)
    result = {
        "command": f"python benchmarks/engram_cost.py --rounds {args.rounds}",
        "what": "ms of processor time a vector step of 4 agent steps with 4 updates, median",
        "games": GAMES,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "ms": {name: round(float(np.median(t)), 3) for name, t in times.items()},
    }
    result["ratio"] = round(result["ms"]["engram"] / result["ms"]["reactive"], 3)
    print(result["ms"], result["ratio"])
    path = Path(ROOT) / "benchmarks" / "results" / "engram_cost.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
