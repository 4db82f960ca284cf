"""Peak memory of `experiment=laptop`, measured on a run whose replay becomes full.

    python benchmarks/laptop_memory.py

The run makes few updates and ends soon after the replay of 1e5 transitions is full and every game
has been evaluated and checkpointed. A second run, with a small replay, makes one update a step as
`laptop` does: what its memory grows by once that replay is full would come on top.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OVERRIDES = [
    "experiment=laptop",
    "sequence.steps_per_task=36000",
    "sequence.cycles=1",
    "agent.updates_per_step=0.02",
    "eval.every=36000",
    "display=off",
    "device=cpu",
]


# Full after 5,000 transitions; the growth is read from the second half.
GROWTH = [
    "experiment=laptop",
    "sequence.games=[krull]",
    "sequence.steps_per_task=14000",
    "sequence.cycles=1",
    "agent.replay_capacity=5000",
    "memory.capacity=5000",
    "eval.every=14000",
    "display=off",
    "device=cpu",
]


def lines_of(overrides: list[str]) -> list[dict]:
    """The lines about training that a run with these overrides writes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"run={run}"]
        subprocess.run(command, cwd=ROOT, check=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from training.folder import machine, versions

    growing = lines_of(GROWTH)
    half, end = growing[len(growing) // 2], growing[-1]
    grown = end["peak_memory_mb"] - half["peak_memory_mb"]
    train = lines_of(OVERRIDES)
    result = {
        "command": "python benchmarks/laptop_memory.py",
        "what": "largest resident size of the training process, replay of 1e5 transitions full; "
        "growth: of the same agent with a small replay, from half of the run to its end",
        "overrides": OVERRIDES,
        "overrides_of_growth": GROWTH,
        "peak_memory_mb": max(line["peak_memory_mb"] for line in train),
        "transitions_in_replay": train[-1]["agent/replay"],
        "growth_mb_per_100k_steps": round(grown / (end["step"] - half["step"]) * 1e5, 1),
        "machine": machine(),
        "versions": versions(),
    }
    path = ROOT / "benchmarks" / "results" / "laptop_memory.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, result["peak_memory_mb"], result["growth_mb_per_100k_steps"])


if __name__ == "__main__":
    main()
