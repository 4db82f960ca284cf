"""Loads a trained run from its folder: configuration, agent, and an evaluator of its games.

    run = load_run("runs/x")
    evaluator = Evaluator(**run.evaluator_settings(episodes=20))

Nothing in the folder is changed.

    networks, step = networks_of(config)   # what config.start_from names, for a new run's agent
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.agent import Agent
from envs import TaskSequence
from errors import UserError, require
from training.build import actions, build_agent, named_seeds, shared_outputs
from training.checkpoint import CheckpointStore
from training.config import RunConfig, differences, is_one_of, read_config, to_yaml

# What a network's weights mean goes by these.
NETWORK_KEYS = (
    *(f"encoder.{key}" for key in ("kind", "size", "width", "k_wta")),
    *(f"agent.{key}" for key in ("hidden", "dueling", "noisy", "normalise")),
    *(f"agent.{key}" for key in ("atoms", "v_min", "v_max")),
)


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
    path, config = _found("run", path)
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


def networks_of(config: RunConfig) -> tuple[dict[str, Any], int]:
    """The networks of the run that `start_from` names, for the agent of a new run: the one that
    learns, its target, and the world model where both have one; and the step of its checkpoint.
    What that run remembers, replays, protects and has scheduled stays with it.

    Raises:
        UserError: no run there, no checkpoint that can be read, or networks of another kind.
    """
    path, store = source_of(config)
    state = store.load(skip="replay")
    try:
        return state["agent"]["learner"], int(state["progress"]["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"start_from={path}: its checkpoint does not fit this program ({error}): use the "
            "version that trained it"
        ) from error


def source_of(config: RunConfig) -> tuple[Path, CheckpointStore]:
    """The folder that `start_from` names and its checkpoints, once it is sure that its networks are
    of the kind asked for.

    Raises:
        UserError: no run there, no checkpoint, or networks of another kind.
    """
    assert config.start_from is not None
    path, theirs = _found("start_from", config.start_from)
    mfec = "mfec" in (config.memory.controller, theirs.memory.controller)
    require(not mfec, f"start_from={path}: memory.controller=mfec has no network that is learned")
    keys = [*NETWORK_KEYS]
    if "nec" in (config.memory.controller, theirs.memory.controller):
        keys += ["memory.controller", "memory.key_dim"]
    if config.world_model.enabled and theirs.world_model.enabled:
        keys += ["world_model.hidden"]
    others = [
        line
        for line in differences(to_yaml(config), to_yaml(theirs))
        if is_one_of(line.partition("=")[0], keys)
    ]
    require(not others, f"start_from={path} has other networks: {'; '.join(others)}")
    ours, its = actions(config), actions(theirs)
    require(
        ours == its,
        f"start_from={path} chooses among {' '.join(its)}, this run among {' '.join(ours)}: train "
        "both with protocol.actions=full",
    )
    store = CheckpointStore(path / "checkpoints", theirs.checkpoint.keep)
    require(store.latest() is not None, f"start_from={path} has no checkpoint: train it first")
    return path, store


def _found(key: str, given: Path | str) -> tuple[Path, RunConfig]:
    """The folder of a run that `key` names, bare names in runs/ as in train.py, and its
    configuration."""
    path = Path(given)
    if len(path.parts) == 1 and not (path / "config.yaml").is_file():
        path = Path("runs") / path
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{key}={given}: no run there ({file} is missing); train one first")
    return path, read_config(file)
