"""Peak memory of `experiment=laptop`, measured on a run whose replay becomes full.

    python benchmarks/laptop_memory.py

Memory does not depend on how many updates are made, so the run makes few of them and ends soon
after the replay of 1e5 transitions is full and every game has been evaluated and checkpointed.
"""

from __future__ import annotations

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


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from training.folder import machine, versions

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "train.py"), *OVERRIDES, f"run={run}"]
        subprocess.run(command, cwd=ROOT, check=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    result = {
        "command": "python benchmarks/laptop_memory.py",
        "what": "largest resident size of the training process, replay of 1e5 transitions full",
        "overrides": OVERRIDES,
        "peak_memory_mb": max(line["peak_memory_mb"] for line in train),
        "transitions_in_replay": train[-1]["agent/replay"],
        "machine": machine(),
        "versions": versions(),
    }
    path = ROOT / "benchmarks" / "results" / "laptop_memory.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, result["peak_memory_mb"])


if __name__ == "__main__":
    main()
