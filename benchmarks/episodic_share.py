"""What the episodic memory costs of a training step of agent=episodic.

    python benchmarks/episodic_share.py [--entries 100000] [--rounds 40]

Two agents, `reactive` and `episodic`, take turns on the same recorded frames of a game: a vector
step of each in every round (act, learn, observe; no emulator), in processor time of one thread,
after the memory has been filled. The filling is real keys, moved a little each so that they are
all different. The share is (episodic - reactive) / episodic of the medians, and, as a second view,
the time spent inside the memory's own calls.
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

from agents.agent import Transition
from envs import make_vector_env, parse_task
from training.build import build_agent
from training.config import load_config
from training.threads import configure_threads

ROOT = Path(__file__).resolve().parent.parent
GAME, RECORDED = "ms_pacman", 300
clock = time.process_time


def record(config) -> list[Transition]:
    """Random play."""
    env = make_vector_env(parse_task(GAME, 1), config.protocol, 4, 0, full_actions=False)
    env.reset()
    rng, out = np.random.default_rng(0), []
    for _ in range(RECORDED):
        obs, first = env.observations, env.episode_starts
        actions = rng.integers(env.num_actions, size=4)
        _, reward, terminated, truncated, info = env.step(actions)
        out.append(
            Transition(obs, actions, reward, terminated, truncated, first, info["final_obs"])
        )
    env.close()
    return out


def fill(agent, entries: int, tape: list[Transition]) -> None:
    """Entries made of the tape's keys, shaken by a hundredth of their length."""
    keys = np.concatenate([agent.keys_of(t.obs_tm1) for t in tape[100:]])
    rng = np.random.default_rng(1)
    for start in range(0, entries, 1000):
        k = keys[rng.integers(len(keys), size=1000)]
        k = k + rng.normal(scale=0.1 / k.shape[1] ** 0.5, size=k.shape)
        k = (k / np.linalg.norm(k, axis=1, keepdims=True)).astype(np.float32)
        agent.memory.write(
            k, rng.integers(agent.masks.shape[1], size=1000), rng.normal(size=1000),
            np.arange(start, start + 1000), 0,
        )  # fmt: skip


def timed(owner, name: str, total: dict) -> None:
    """Add the time spent in a method to total["inside"]."""
    inner = getattr(owner, name)

    def run(*args, **kwargs):
        begin = clock()
        try:
            return inner(*args, **kwargs)
        finally:
            total["inside"] += clock() - begin

    setattr(owner, name, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--encoder", default="spiking", choices=("spiking", "conv"))
    args = parser.parse_args()
    configure_threads(1)
    common = [f"sequence.games=[{GAME}]", f"encoder={args.encoder}", "agent.learn_start=32",
              "agent.epsilon_start=0.01", "agent.replay_capacity=2000", "device=cpu"]  # fmt: skip
    configs = {
        "reactive": load_config(["agent=reactive", *common]),
        "episodic": load_config(
            [
                "agent=episodic",
                *common,
                f"memory.capacity={args.entries + 10_000}",
                "memory.horizon=10",
            ]
        ),
    }
    tape = record(configs["reactive"])
    agents = {n: build_agent(c, torch.device("cpu")) for n, c in configs.items()}
    times: dict[str, list[float]] = {n: [] for n in agents}
    spent = {"inside": 0.0}
    for agent in agents.values():
        agent.begin_task(0)
    fill(agents["episodic"], args.entries, tape)
    warm = 60  # compilation; and most of what replay holds has an entry, whose key is refreshed
    for i in range(warm + args.rounds):
        if i == warm:
            for name in ("read", "write", "stale", "moments", "reembed", "tune"):
                timed(agents["episodic"].memory, name, spent)
        for name, agent in agents.items():
            begin = clock()
            agent.act(tape[i].obs_tm1)
            agent.learn()
            agent.observe(tape[i])
            if i >= warm:
                times[name].append(clock() - begin)
    median = {n: float(np.median(t)) * 1e3 for n, t in times.items()}
    result = {
        "command": f"python benchmarks/episodic_share.py --entries {args.entries} "
        f"--rounds {args.rounds} --encoder {args.encoder}",
        "what": "milliseconds of processor time of a vector step (4 agent steps, 4 updates)",
        "entries": args.entries,
        "median_ms": median,
        "share": 1 - median["reactive"] / median["episodic"],
        "share_of_means": 1 - sum(times["reactive"]) / sum(times["episodic"]),
        "inside_memory_share": spent["inside"] / sum(times["episodic"]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
        ).stdout.strip(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
    }
    path = ROOT / "benchmarks" / "results" / "episodic_share.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
