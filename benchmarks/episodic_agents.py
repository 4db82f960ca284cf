"""MFEC, NEC and the mixed agent at 100k agent steps, beside `reactive`.

    python benchmarks/episodic_agents.py train --jobs 2    # runs/episodic/<game>-<agent>-s<seed>
    python benchmarks/episodic_agents.py collect           # benchmarks/results/episodic_agents.json
    python benchmarks/episodic_agents.py without           # trained with memory, judged without

The commands may be given on different machines, and training goes on where it was stopped: what was
recorded elsewhere stays recorded, and runs of `reactive` are also taken from atari100k.json
(`constant_target`: all agents here have a target network of constant speed). The score of a run is
the mean of its last evaluation. `without` plays the same episodes with the same weights by the
learned values alone, for each recorded run of agent=episodic found here: what the memory is worth
where it decides, apart from what it did to the training. All agents have the same encoder
(`--encoder`), the same protocol and the same budget.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.runs import train_all, whole  # noqa: E402 - benchmarks/ is no package
from evaluation.page import write_whole  # noqa: E402 - benchmarks/ is no package

RUNS = Path("runs") / "episodic"
RESULT = ROOT / "benchmarks" / "results" / "episodic_agents.json"
# agent -> games that it is judged on
PLAN = {
    "mfec": ("ms_pacman", "frostbite", "qbert"),
    "nec": ("ms_pacman", "frostbite", "qbert"),
    "nec_often": ("ms_pacman", "qbert"),  # as many updates as `reactive`; Frostbite out of reach
    "episodic": ("ms_pacman", "road_runner", "krull", "boxing"),
    "reactive": ("ms_pacman", "frostbite", "qbert", "road_runner", "krull", "boxing"),
}
OFTEN = ("agent=nec", "agent.updates_per_step=1")
KEPT = ("memory/weight", "memory/confidence_taken", "memory/error_fast", "memory/error_slow",
        "memory/state_hit_rate", "memory/index_recall", "memory/size", "memory/stale")  # fmt: skip


def train(args: argparse.Namespace) -> None:
    """Start every run that is not finished, `--jobs` at a time; the quick ones first."""

    def overrides(game: str, agent: str, seed: int) -> list[str]:
        return [
            "experiment=atari100k",
            f"sequence.games=[{game}]",
            *(OFTEN if agent == "nec_often" else (f"agent={agent}",)),
            f"encoder={args.encoder}",
            "agent.target_tau_end=0",  # as `constant_target` in atari100k.json
            f"seed={seed}",
            "display=plain",
            *args.overrides,
        ]

    every = [
        (game, agent, seed)
        for seed in args.seeds
        for agent in args.agents
        for game in args.games or PLAN[agent]
    ]
    train_all([(RUNS / "{}-{}-s{}".format(*run), overrides(*run)) for run in every], args.jobs)


def read_run(folder: Path) -> dict | None:
    """What a finished run says; None if it is not finished, or of another length."""
    from envs.scores import hns

    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    if not whole(lines):
        return None
    evals = [x for x in lines if x["kind"] == "eval"]
    trained = [x for x in lines if x["kind"] == "train"]
    manifest = json.loads((folder / "manifest.json").read_text())
    game, agent, seed = folder.name.split("-")
    score = float(np.mean(evals[-1]["returns"]))
    return {
        "game": game,
        "agent": agent,
        "seed": int(seed[1:]),
        "score": score,
        "hns": hns(game, score),
        "episodes": len(evals[-1]["returns"]),
        "standard_error": float(
            np.std(evals[-1]["returns"], ddof=1) / len(evals[-1]["returns"]) ** 0.5
        ),
        "curve": [[x["step"], float(np.mean(x["returns"]))] for x in evals],
        "steps": evals[-1]["step"],
        "agent_steps_per_s": float(np.median([x["agent_steps_per_s"] for x in trained])),
        "memory": {k: trained[-1][k] for k in KEPT if k in trained[-1]},
        **{k: manifest[k] for k in ("command", "device", "machine", "versions", "commit")},
    }


def without(args: argparse.Namespace) -> None:
    """Judge every run of agent=episodic once more with its memory silent."""
    import torch

    from agents.agent import Agent
    from agents.losses import masked_argmax
    from evaluation.evaluator import Evaluator
    from training.loading import load_run

    result = json.loads(RESULT.read_text())
    for row in result["runs"]:
        folder = ROOT / RUNS / f"{row['game']}-{row['agent']}-s{row['seed']}"
        if row["agent"] != "episodic" or "without_memory" in row or not folder.exists():
            continue
        agent = (run := load_run(folder)).agent

        @torch.no_grad()
        def learned_alone(obs: np.ndarray, game, agent=agent) -> np.ndarray:
            q = Agent.q_values(agent, obs, game.index, agent.acting_network)
            return masked_argmax(q, agent.masks[game.index].expand_as(q)).numpy()

        evaluator = Evaluator(**run.evaluator_settings(episodes=row["episodes"]))
        returns = evaluator.evaluate(learned_alone, row["game"]).returns
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        evals = [x for x in map(json.loads, lines) if x["kind"] == "eval"]
        gain = np.array(evals[-1]["returns"]) - returns
        row["without_memory"] = {
            "score": float(returns.mean()),
            "gain_of_memory": float(gain.mean()),
            "standard_error": float(gain.std(ddof=1) / len(gain) ** 0.5),
        }
        print(row["game"], row["score"], json.dumps(row["without_memory"]), flush=True)
        write_whole(RESULT, json.dumps(result, indent=1) + "\n")


def recorded(path: Path) -> list[dict]:
    return json.loads(path.read_text())["runs"] if path.exists() else []


def of_reactive(encoder: str) -> list[dict]:
    """Runs of `reactive` in atari100k.json, as rows of this table."""
    from envs.scores import hns

    return [
        {k: v for k, v in run.items() if k not in ("encoder", "variant")}
        | {"agent": "reactive", "hns": hns(run["game"], run["score"])}
        for run in recorded(RESULT.with_name("atari100k.json"))
        if (run["encoder"], run["variant"]) == (encoder, "constant_target")
    ]


def collect(args: argparse.Namespace) -> None:
    """Add every finished run to the JSON."""
    runs = []
    for folder in sorted(p.parent for p in (ROOT / RUNS).glob("*/metrics.jsonl")):
        run = read_run(folder)
        if run is None:
            print(f"{folder.name}: not trained and judged at 100k steps, left out")
        else:
            runs.append(run)
    for run in [*of_reactive(args.encoder), *recorded(RESULT)]:
        same = [r for r in runs if all(run[k] == r[k] for k in ("game", "agent", "seed"))]
        if not same:
            runs.append(run)
        elif "without_memory" in run and run["commit"] == same[0]["commit"]:
            same[0]["without_memory"] = run["without_memory"]
    runs.sort(key=lambda r: (r["game"], r["agent"], r["seed"]))
    table: dict[str, dict] = {}
    for run in runs:
        cell = table.setdefault(run["game"], {}).setdefault(run["agent"], {"seeds": []})
        cell["seeds"].append(run["score"])
    for row in table.values():
        for cell in row.values():
            cell["mean"] = float(np.mean(cell["seeds"]))

    def mean_hns(agent: str, game: str) -> float:
        return float(np.mean([r["hns"] for r in runs if (r["agent"], r["game"]) == (agent, game)]))

    medians = {
        agent: float(np.median([mean_hns(agent, game) for game in PLAN["nec"]]))
        for agent in PLAN
        if all(agent in table.get(game, {}) for game in PLAN["nec"])
    }
    result = {
        "command": "python benchmarks/episodic_agents.py train && "
        "python benchmarks/episodic_agents.py collect && "
        "python benchmarks/episodic_agents.py without",
        "what": "return at the run's last evaluation, single game, same encoder for all agents",
        "table": table,
        "median_hns": medians,
        "median_games": sorted(PLAN["nec"]),
        "nec_published_median_hns_at_250k_agent_steps": 0.167,  # Pritzel 2017, table 1, 57 games
        "runs": runs,
    }
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    for game, row in table.items():
        print(game, json.dumps(row))
    print("median HNS", json.dumps(medians))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("train", "collect", "without"))
    parser.add_argument("--agents", nargs="+", default=tuple(PLAN), choices=tuple(PLAN))
    parser.add_argument("--games", nargs="+", default=None, help="instead of each agent's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--encoder", default="spiking", choices=("spiking", "conv"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--overrides", nargs="*", default=(), help="further overrides of train.py")
    args = parser.parse_args()
    {"train": train, "collect": collect, "without": without}[args.action](args)


if __name__ == "__main__":
    main()
