"""Planning: milliseconds a decision, and what it is worth on trained agents.

    python benchmarks/planning.py times                      # results/planning_times.json
    python benchmarks/planning.py collect RUN [RUN ...]      # results/planning.json, planning.png

`times`: 8 environments of 18 actions, one batch of decisions, the search alone (the encoder has
run), median of many. `collect` copies what `python evaluate.py run=RUN` has found; a RUN may also
be a report that was kept under another name, RUN/report/X.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from agents.planners import PlannerConfig, search
from evaluation.planning import overall
from training.build import build_agent
from training.config import load_config
from training.threads import configure_threads

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = 8
SEARCHES = {
    "beam, depth 3, width 4": PlannerConfig("beam", depth=3, width=4),
    "beam, depth 2, width 4": PlannerConfig("beam", depth=2, width=4),
    "gumbel, 16 simulations": PlannerConfig("gumbel", simulations=16),
    "gumbel, 8 simulations": PlannerConfig("gumbel", simulations=8),
}


def times(args: argparse.Namespace) -> None:
    config = load_config(
        [
            "experiment=quickstart",
            "agent=reactive",
            "world_model=latent",
            "protocol.actions=full",
            "device=cpu",
        ]
    )
    agent = build_agent(config, torch.device("cpu"))
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (ENVIRONMENTS, 4, 84, 84), dtype=np.uint8)
    with torch.no_grad():
        q = agent.eval_values(obs, 0)
        root, mask = agent.latent, agent.masks[0].expand_as(q)
        rows = {}
        for threads in (1, 2):
            configure_threads(threads)
            for name, planner in SEARCHES.items():
                spent = []
                for _ in range(args.rounds):
                    begin = time.perf_counter()
                    search(planner, root, q, mask, agent.model, lambda x: agent.values(x, 0), 0.99)
                    spent.append(time.perf_counter() - begin)
                rows.setdefault(name, {})[f"{threads} threads"] = {
                    "median_ms": round(float(np.median(spent)) * 1e3, 2),
                    "p95_ms": round(float(np.percentile(spent, 95)) * 1e3, 2),
                }
                print(threads, name, rows[name][f"{threads} threads"], flush=True)
    result = {
        "command": "python benchmarks/planning.py times",
        "what": "ms of one batch of decisions, 8 environments, 18 actions, search alone",
        "latent": root.shape[1],
        "actions": q.shape[1],
        "searches": rows,
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    (RESULTS / "planning_times.json").write_text(json.dumps(result, indent=1) + "\n")


def collect(args: argparse.Namespace) -> None:
    runs, evaluations = [], []
    for path in args.runs:
        given = path if path.suffix == ".json" else path / "report" / "planning.json"
        folder, report = given.parent.parent, json.loads(given.read_text())
        manifest = json.loads((folder / "manifest.json").read_text())
        report["training"] = {
            k: manifest[k] for k in ("command", "commit", "versions", "machine") if k in manifest
        }
        runs.append(report)
        evaluations.append(report["command"])
        if given.name != "planning.json":  # the next evaluation would write over it
            evaluations.append(f"cp {given.with_name('planning.json')} {given}")
        if args.name == "planning":
            shutil.copy(folder / "report" / "planning.png", RESULTS / "planning.png")
        thought = sorted((folder / "report").glob("thought_*.png"))
        if thought and args.name == "planning":
            shutil.copy(thought[0], ROOT / "docs" / "thought.png")
    named = "" if args.name == "planning" else f" --name {args.name}"
    commands = [
        *(r["training"].get("command", "python train.py") for r in runs),
        *evaluations,
        f"python benchmarks/planning.py collect {' '.join(map(str, args.runs))}{named}",
    ]
    result = {
        "command": " && ".join(dict.fromkeys(commands)),
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "runs": runs,
        "overall": over_games(runs),
    }
    (RESULTS / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")


def over_games(runs: list[dict]) -> list[dict]:
    """Figures over games for reports of one evaluation, each on an agent of one game."""
    alike: dict[str, list[dict]] = {}
    for run in runs:  # the oracle plays other numbers of episodes, and not in every report
        variants = {n: v for n, v in run["variants"].items() if v["model"] != "oracle"}
        key = json.dumps([variants, run["seed"]], sort_keys=True)
        alike.setdefault(key, []).append(run)
    out = []
    for key, reports in alike.items():
        if len(reports) > 1:
            games = {game: row for run in reports for game, row in run["games"].items()}
            variants, seed = json.loads(key)
            names = [n for n in reports[0]["variants"] if n in variants]
            out.append({"seed": seed, "games": list(games), "variants": variants,
                        "overall": overall(games, names)})  # fmt: skip
    return out


def cpu() -> str:
    out = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":", 1)[1].strip() for line in out.splitlines() if "Model name" in line]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    timing = actions.add_parser("times")
    timing.add_argument("--rounds", type=int, default=100)
    collecting = actions.add_parser("collect")
    collecting.add_argument("runs", nargs="+", type=Path)
    collecting.add_argument("--name", default="planning", help="of the JSON file")
    args = parser.parse_args()
    times(args) if args.action == "times" else collect(args)


if __name__ == "__main__":
    main()
