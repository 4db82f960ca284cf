"""Training throughput against Stable-Baselines3's DQN, both in the same run, in turn.

    python benchmarks/throughput.py            # needs: pip install -e '.[bench]'

Same game, same protocol, batch 32, one update per 4 agent steps, 8 environments, 2 cores. Each side
is a process of its own; only the stretch after learning has begun is timed. SB3 trains its Nature
CNN, Engram `reactive` with the spiking encoder and with its ReLU twin.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GAME, ENVS, WARM_UP, STEPS, ROUNDS = "pong", 8, 2_000, 2_000, 3


def run_sb3() -> float:
    """Agent steps/s of SB3's DQN."""
    import time

    import ale_py
    import gymnasium
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    torch.set_num_threads(2)
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=ENVS, seed=0), 4)

    class Clock(BaseCallback):
        begin = 0.0

        def _on_step(self) -> bool:
            if self.begin == 0.0 and self.num_timesteps >= WARM_UP:
                self.begin, self.at = time.perf_counter(), self.num_timesteps
            return True

    clock = Clock()
    model = DQN(
        "CnnPolicy",
        env,
        buffer_size=10_000,
        learning_starts=1_000,
        batch_size=32,
        train_freq=1,
        gradient_steps=ENVS // 4,
        target_update_interval=1_000,
        optimize_memory_usage=False,
    )
    model.learn(WARM_UP + STEPS, callback=clock)
    return (clock.num_timesteps - clock.at) / (time.perf_counter() - clock.begin)


def run_engram(encoder: str) -> float:
    """Agent steps/s of `reactive`."""
    import time

    sys.path.insert(0, str(ROOT))
    from training.build import build_agent, choose_device, make_training_env
    from training.config import load_config
    from training.step import vector_step
    from training.threads import configure_threads

    config = load_config(
        [
            f"sequence.games=[{GAME}]",
            f"encoder={encoder}",
            "device=cpu",
            "agent.updates_per_step=0.25",
            f"agent.num_envs={ENVS}",
            "agent.learn_start=1000",
            "agent.replay_capacity=10000",
            "protocol.actions=full",
        ]
    )
    configure_threads(config.device.learner_threads)
    agent = build_agent(config, choose_device("cpu"))
    env = make_training_env(config, config.sequence.tasks()[0], 0)
    env.reset()
    agent.begin_task(0)
    begin = at = 0.0
    while agent.steps < WARM_UP + STEPS:
        if begin == 0.0 and agent.steps >= WARM_UP:
            begin, at = time.perf_counter(), agent.steps
        vector_step(agent, env)
    return (agent.steps - at) / (time.perf_counter() - begin)


SIDES = {
    "sb3_dqn_nature": run_sb3,
    "engram_spiking": lambda: run_engram("spiking"),
    "engram_conv": lambda: run_engram("conv"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", nargs="?", choices=SIDES, help="one of them, printed")
    side = parser.parse_args().side
    if side is not None:
        print(json.dumps(SIDES[side]()))
        return
    sys.path.insert(0, str(ROOT))
    from training.folder import machine, versions

    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side in SIDES:
            out = subprocess.run(
                [sys.executable, __file__, side], capture_output=True, text=True, check=True
            )
            rates[side].append(json.loads(out.stdout.splitlines()[-1]))
            print(f"{side}: {rates[side][-1]:.0f} agent steps/s", flush=True)
    median = {side: statistics.median(r) for side, r in rates.items()}
    ratios = {
        side: statistics.median(a / b for a, b in zip(r, rates["sb3_dqn_nature"]))
        for side, r in rates.items()
    }
    from importlib import metadata

    result = {
        "command": "python benchmarks/throughput.py",
        "what": "training throughput in agent steps/s, batch 32, one update per 4 agent steps",
        "game": GAME,
        "num_envs": ENVS,
        "timed_agent_steps": STEPS,
        "rounds": rates,
        "median_agent_steps_per_s": median,
        "ratio_to_sb3": ratios,
        "versions": versions() | {"stable-baselines3": metadata.version("stable-baselines3")},
        "machine": machine(),
    }
    path = ROOT / "benchmarks" / "results" / "throughput.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: spiking {ratios['engram_spiking']:.2f}x SB3")


if __name__ == "__main__":
    main()
