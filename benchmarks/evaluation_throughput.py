"""Evaluation throughput against the bare emulator, interleaved in one process.

    python benchmarks/evaluation_throughput.py --policy der

One round measures the bare `AtariVectorEnv` (random actions, nothing looks at the frames), then a
whole evaluation: seeding, policy, bookkeeping, the idle end. Steps count if they belong to a
returned episode. The figure is the median over rounds of the ratio of the two rates; beside it
stands the same ratio of processor time, which other load on the machine does not move.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from envs import PROTOCOLS, ProtocolConfig, Task
from evaluation.evaluator import EvalGame, Evaluator

RESULT = Path(__file__).parent / "results" / "evaluation_throughput.json"


class RandomPolicy:
    """Uniform actions: what evaluation costs without a network."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)

    def __call__(self, obs: np.ndarray, game: EvalGame) -> np.ndarray:
        return self._rng.choice(np.flatnonzero(game.action_mask), len(obs))


class ConvPolicy:
    """Greedy in an untrained network of the "data-efficient" size (van Hasselt et al. 2019)."""

    def __init__(self, seed: int, num_actions: int = 18):
        generator = torch.Generator().manual_seed(seed)
        self._net = torch.nn.Sequential(
            torch.nn.Conv2d(4, 32, 5, stride=5),
            torch.nn.ReLU(),
            torch.nn.Conv2d(32, 64, 5, stride=5),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(576, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, num_actions),
        )
        with torch.no_grad():
            for parameter in self._net.parameters():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))

    @torch.inference_mode()
    def __call__(self, obs: np.ndarray, game: EvalGame) -> np.ndarray:
        q = self._net(torch.from_numpy(obs).float() / 255)
        q[:, ~torch.from_numpy(game.action_mask)] = -torch.inf
        return q.argmax(1).numpy()


POLICIES = {"random": RandomPolicy, "der": ConvPolicy}


class Rate(NamedTuple):
    """Agent steps and the seconds they took, on the clock and on all processors."""

    steps: int
    wall: float
    cpu: float

    @property
    def per_s(self) -> float:
        return self.steps / self.wall


def timed(work: Callable[[], int]) -> Rate:
    wall, cpu = time.perf_counter(), time.process_time()
    steps = work()
    return Rate(steps, time.perf_counter() - wall, time.process_time() - cpu)


def bare(env: AtariVectorEnv, steps: int, rng: np.random.Generator) -> int:
    """Play the emulator class alone, which restarts its games by itself."""
    actions = rng.integers(0, 18, (steps // env.num_envs, env.num_envs))
    for row in actions:
        env.step(row)
    return actions.size


def measure(
    args: argparse.Namespace, game: str, protocol: ProtocolConfig, policy_name: str
) -> dict:
    env = AtariVectorEnv(
        game,
        args.num_envs,
        num_threads=args.num_threads,
        repeat_action_probability=protocol.sticky,
        max_num_frames_per_episode=protocol.max_frames,
        full_action_space=True,
        noop_max=protocol.noop_max + 1,
        use_fire_reset=False,
        reward_clipping=False,
    )
    env.reset(seed=args.seed)
    evaluator = Evaluator(
        [Task(game, 1)],
        protocol,
        episodes=args.episodes,
        num_envs=args.num_envs,
        seed=args.seed,
        max_steps=args.max_steps,
        epsilon=args.epsilon,
        full_actions=True,
    )
    rng = np.random.default_rng(args.seed)

    def evaluate() -> int:
        policy = POLICIES[policy_name](args.seed)
        return int(evaluator.evaluate(policy, game).lengths.sum())

    evaluate()  # opens the emulators
    ratios, cpu_ratios, evaluations, alone = [], [], [], []
    for _ in range(args.rounds):
        before = timed(lambda: bare(env, args.bare_steps, rng))
        run = timed(evaluate)
        after = timed(lambda: bare(env, args.bare_steps, rng))
        both = Rate(*(x + y for x, y in zip(before, after)))
        ratios.append(run.per_s / both.per_s)
        cpu_ratios.append((both.cpu / both.steps) / (run.cpu / run.steps))
        evaluations.append(run)
        alone.append(both.per_s)
    evaluator.close()
    env.close()
    return {
        "game": game,
        "policy": policy_name,
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_ratio": round(float(np.median(cpu_ratios)), 3),
        "evaluation_steps_per_s": round(float(np.median([r.per_s for r in evaluations]))),
        "bare_steps_per_s": round(float(np.median(alone))),
        "steps_per_evaluation": evaluations[0].steps,
    }


def machine() -> dict:
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["pong", "krull", "boxing"])
    parser.add_argument("--policy", choices=[*POLICIES, "all"], default="all")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="atari100k")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--num-envs", type=int, default=10)
    parser.add_argument("--num-threads", type=int, default=os.cpu_count(), help="bare emulator's")
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare-steps", type=int, default=6000, help="agent steps, twice a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", action="store_true", help="note that other work was running")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the emulators have the other cores
    protocol = PROTOCOLS[args.protocol]()
    results = []
    for policy in POLICIES if args.policy == "all" else [args.policy]:
        for game in args.games:
            results.append(measure(args, game, protocol, policy))
            print(json.dumps(results[-1]), flush=True)
    report = {
        "what": "evaluation throughput against the bare emulator (agent steps/s, ratio of rates)",
        "command": " ".join(["python", "benchmarks/evaluation_throughput.py", *sys.argv[1:]]),
        "protocol": args.protocol,
        "episodes": args.episodes,
        "num_envs": args.num_envs,
        "bare_num_threads": args.num_threads,
        "rounds": args.rounds,
        "max_steps": args.max_steps,
        "epsilon": args.epsilon,
        "seed": args.seed,
        "versions": {name: version(name) for name in ("ale-py", "torch", "numpy", "gymnasium")},
        "python": platform.python_version(),
        "machine": machine(),
        "results": results,
        "note": "other work shared the machine" if args.shared else "idle machine",
        "median_ratio": {
            policy: round(float(np.median([r["ratio"] for r in rows])), 3)
            for policy in POLICIES
            if (rows := [r for r in results if r["policy"] == policy])
        },
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
