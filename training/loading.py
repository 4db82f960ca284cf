"""Loads a trained run from its folder: configuration, agent, and an evaluator of its games.

    run = load_run("runs/x")
    evaluator = Evaluator(**run.evaluator_settings(episodes=20))

Nothing in the folder is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.agent import Agent
from envs import TaskSequence
from errors import UserError
from training.build import build_agent, named_seeds, shared_outputs
from training.checkpoint import CheckpointStore
from training.config import RunConfig, read_config


@dataclass(frozen=True)
class LoadedRun:
    """A run as its checkpoint left it; the agent's replay is empty unless asked for."""

    path: Path
    step: int  # agent steps at the checkpoint
    config: RunConfig
    sequence: TaskSequence
    agent: Agent

    def evaluator_settings(self, **changes: Any) -> dict[str, Any]:
        """Arguments of `evaluation.evaluator.Evaluator`; `changes` replace single ones."""
        config = self.config
        settings = {
            "games": [self.sequence.game_task(game) for game in self.sequence.games],
            "protocol": config.protocol,
            "episodes": config.eval.final_episodes or config.eval.episodes,
            "num_envs": config.eval.num_envs,
            "seed": named_seeds(config.seed)["eval"],
            "max_steps": config.eval.max_steps,
            "epsilon": config.agent.eval_epsilon,
            "full_actions": shared_outputs(config),
        }
        return settings | changes


def load_run(
    path: Path | str, step: int | None = None, device: str = "cpu", with_replay: bool = False
) -> LoadedRun:
    """The run in folder `path` at checkpoint `step`, by default the newest.

    `with_replay`: its agent gets the replay too, whose frames show what is remembered.

    Raises:
        UserError: no run there, no such checkpoint, a damaged one, one of another version.
    """
    given, path = path, Path(path)
    if len(path.parts) == 1 and not (path / "config.yaml").is_file():
        path = Path("runs") / path  # as train.py takes a bare name
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"run={given}: no run there ({file} is missing); train one first")
    config = read_config(file)
    store = CheckpointStore(path / "checkpoints", config.checkpoint.keep)
    state = store.load(step, skip=None if with_replay else "replay")
    agent = build_agent(config, torch.device(device))
    try:
        agent.load_state_dict(state["agent"])
        agent.load_memory_state(state.get("memory"))
        if with_replay:
            agent.replay.load_state_dict(state["replay"])
        reached = int(state["progress"]["step"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: its checkpoint does not fit this program ({error}): use the version that "
            "trained it"
        ) from error
    return LoadedRun(path, reached, config, config.sequence.tasks(), agent)
