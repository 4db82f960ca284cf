"""Planning: milliseconds a decision, and what it is worth on trained agents.

    python benchmarks/planning.py times                      # results/planning_times.json
    python benchmarks/planning.py collect RUN [RUN ...]      # results/planning.json, planning.png
    python benchmarks/planning.py teach RUN                  # RUN-taught

`times`: 8 environments of 18 actions, one batch of decisions, the search alone (the encoder has
run), median of many. `collect` copies what `python evaluate.py run=RUN` has found; a RUN may also
be a report that was kept under another name, RUN/report/X.json. `teach` goes on with the world
model of a finished run, on its own replay, by all its losses and by that of
`world_model.advantage`; the network stays as it is, so that both runs react alike.
"""

from __future__ import annotations

import argparse
import dataclasses
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

from agents.agent import Agent
from agents.planners import PlannerConfig, search
from agents.world_model import Unroll
from benchmarks.recording import called
from evaluation.planning import overall
from training.build import build_agent
from training.checkpoint import CheckpointStore
from training.config import load_config
from training.loading import load_run
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
            k: manifest[k]
            for k in ("command", "commit", "versions", "machine", "taught")
            if k in manifest
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


def teach(args: argparse.Namespace) -> None:
    configure_threads(args.threads)
    run = load_run(args.run, with_replay=True)
    agent, network = run.agent, run.agent.acting_network
    model, game = agent.model, run.sequence.games[0]
    if model is None:
        raise SystemExit(f"{args.run}: it has no world model; train it with world_model=latent")
    network.requires_grad_(False)
    every = 2 * agent.config.batch_size * model.config.targets
    model.config = dataclasses.replace(model.config, advantage=1.0, advantage_rows=every)
    mask = agent.masks[0].expand(agent.config.batch_size, -1)
    gamma, rng = torch.tensor(agent.learner.gamma()), np.random.default_rng(args.seed)
    optimiser = torch.optim.AdamW(model.parameters(), agent.config.learning_rate, eps=1.5e-4)
    begin, measured = time.perf_counter(), []
    for update in range(args.updates + 1):
        batch, unroll = agent.imagination.sample(agent.config.n_step_end, rng)
        real = Unroll(*map(torch.from_numpy, unroll))
        latent = network.encoder(torch.from_numpy(batch.obs_tm1)).latent
        if update % max(args.updates // 6, 1) == 0:
            measured.append({"update": update, **difference(agent, rng)})
            print(game, measured[-1], f"{time.perf_counter() - begin:.0f} s", flush=True)
        parts = model.loss(network, network, latent, real, mask, gamma)
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
    folder = args.run.with_name(f"{args.run.name}-taught")
    folder.mkdir(exist_ok=True)
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(args.run / name, folder / name)
    manifest = json.loads((args.run / "manifest.json").read_text())
    manifest["command"] += f" && {called()}"
    manifest["taught"] = measured
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    state = CheckpointStore(args.run / "checkpoints", keep=1).load(run.step, skip="replay")
    state["agent"] = agent.state_dict()
    CheckpointStore(folder / "checkpoints", keep=1).save(run.step, state)


@torch.no_grad()
def difference(agent: Agent, rng: np.random.Generator) -> dict[str, float]:
    """How far one-step values and q tell actions apart alike, on moments of replay."""
    batch = agent.replay.sample(512, 1, rng)
    network, there = agent.acting_network, agent.masks[0]
    latent = network.encoder(torch.from_numpy(batch.obs_tm1)).latent
    gamma = torch.tensor(agent.learner.gamma())
    made = agent.model.backed_up(network, latent, there.expand(512, -1), gamma)[:, there]
    q = network.q_values(network.head(latent))[:, there]
    made, q = made - made.mean(1, keepdim=True), q - q.mean(1, keepdim=True)
    return {
        "correlation": round(torch.cosine_similarity(made, q).mean().item(), 3),
        "same_best_action": round((made.argmax(1) == q.argmax(1)).float().mean().item(), 3),
    }


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
    teaching = actions.add_parser("teach")
    teaching.add_argument("run", type=Path)
    teaching.add_argument("--updates", type=int, default=3_000)
    teaching.add_argument("--seed", type=int, default=7)
    teaching.add_argument("--threads", type=int, default=1)
    collecting = actions.add_parser("collect")
    collecting.add_argument("runs", nargs="+", type=Path)
    collecting.add_argument("--name", default="planning", help="of the JSON file")
    args = parser.parse_args()
    {"times": times, "collect": collect, "teach": teach}[args.action](args)


if __name__ == "__main__":
    main()
