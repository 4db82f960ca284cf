"""What consolidation costs: a whole training step with it against the same step without.

    python benchmarks/consolidation_cost.py        # benchmarks/results/consolidation_cost.json

All agents stand side by side in one process, on the same random batches, and take their steps in
turn, so that whatever else the machine does meets all of them. Times are processor time of this
process; the ratio is the median over rounds of (step with / step without) of the same round.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CASES = {
    "none": "",
    "online_ewc": "online_ewc",
    "ewc": "ewc",
    "si": "si",
    "mas": "mas",
    "l2": "l2",
    "online_ewc and si": "online_ewc,si",
    "all five": "online_ewc,ewc,si,mas,l2",
}
STEPS = 5  # of one agent in its turn


def main() -> None:
    import torch

    from training.build import build_agent
    from training.config import load_config
    from training.folder import machine, versions
    from training.threads import configure_threads

    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--rounds", type=int, default=40)
    rounds = args.parse_args().rounds
    configure_threads(1)
    agents = {}
    for name, methods in CASES.items():
        overrides = ["agent=reactive", "device=cpu", "stiffness.samples=16"]
        config = load_config([*overrides, f"consolidation=[{methods}]"])
        agents[name] = build_agent(config, torch.device("cpu"))
        fill(agents[name])
    for agent in agents.values():
        for _ in range(5):
            agent._update()
        agent.continual.end_task()  # from here on there is a penalty
    seconds = {name: [] for name in agents}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(agents)):
            agents[name]._update()  # its arrays come back into the caches, as in training
            begin = time.process_time()
            for _ in range(STEPS):
                agents[name]._update()
            seconds[name].append((time.process_time() - begin) / STEPS)
    plain = np.array(seconds["none"])
    rows = {
        name: {
            "step_ms": 1e3 * float(np.median(times)),
            "ratio": float(np.median(np.array(times) / plain)),
            "bytes": agents[name].continual.consolidation.nbytes() if name != "none" else 0,
        }
        for name, times in seconds.items()
    }
    result = {
        "command": f"python benchmarks/consolidation_cost.py --rounds {rounds}",
        "what": "processor time of a learner update of agent=reactive, batch 32, with sampling,"
        " one thread",
        "rows": rows,
        "weights": sum(p.numel() for p in agents["none"].network.parameters()),
        "machine": machine(),
        "versions": versions(),
    }
    path = ROOT / "benchmarks" / "results" / "consolidation_cost.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{name:20s} {row['step_ms']:6.2f} ms  {row['ratio']:.3f}x")


def fill(agent) -> None:
    """A few hundred transitions of drifting noise, something for the encoder to spike on."""
    from agents.agent import Transition

    rng, n = np.random.default_rng(1), agent.config.num_envs
    frames = (rng.random((n, 4, 84, 84)) ** 4 * 255).astype(np.uint8)
    for t in range(200):
        agent.observe(
            Transition(
                frames.copy(),
                rng.integers(6, size=n),
                rng.integers(2, size=n).astype(np.float32),
                np.zeros(n, bool),
                np.zeros(n, bool),
                np.full(n, t == 0),
                None,
            )
        )
        frames = np.concatenate([frames[:, 1:], np.roll(frames[:, -1:], 1, axis=3)], axis=1)


if __name__ == "__main__":
    main()
