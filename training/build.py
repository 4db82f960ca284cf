"""Puts the parts of training together from a configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agents.agent import Agent
from agents.continual import ContinualConfig
from agents.episodic import make_agent
from envs import Task, make_action_set, make_vector_env
from errors import UserError
from training.config import RunConfig


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one. Raises UserError when CUDA is asked for in vain."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: this PyTorch sees no CUDA device; use device=cpu")
    return torch.device(name)


def named_seeds(seed: int) -> dict[str, int]:
    """One seed, split into independent named ones."""
    names = ("agent", "env", "eval")
    children = np.random.SeedSequence(seed).spawn(len(names))
    return {n: int(c.generate_state(1)[0]) for n, c in zip(names, children)}


def shared_outputs(config: RunConfig) -> bool:
    """A sequence shares 18 outputs; a single game has those of its protocol's action set."""
    return len(config.sequence.games) > 1 or config.protocol.actions == "full"


def actions(config: RunConfig) -> list[str]:
    """Names of the actions that the agent's network has a value for, in its order."""
    task = config.sequence.tasks()[0]
    return make_action_set(task.rom, config.protocol, shared_outputs(config)).names


def make_training_env(config: RunConfig, task: Task, visit: int) -> Any:
    """The environment of the visit with this index; its seeds are its own."""
    seed = np.random.SeedSequence([named_seeds(config.seed)["env"], visit]).generate_state(1)[0]
    return make_vector_env(
        task,
        config.protocol,
        config.agent.num_envs,
        int(seed),
        num_threads=config.device.emulator_threads,
        full_actions=shared_outputs(config),
    )


def build_agent(
    config: RunConfig, device: torch.device, networks: dict[str, Any] | None = None
) -> Agent:
    """The agent, with as many outputs as the sequence needs; `networks`: those it begins with."""
    tasks = config.sequence.tasks()
    masks = [
        make_action_set(tasks.game_task(game).rom, config.protocol, shared_outputs(config)).mask
        for game in tasks.games
    ]
    if config.task_labels != "oracle":  # contexts; all masks are the same (RunConfig)
        many = len(tasks) if config.task_labels == "boundaries" else config.change.contexts
        masks = [masks[0]] * max(many, len(masks))  # judgement goes through them by game
    try:
        return _agent_of(config, np.stack(masks), tasks.total_steps, device, networks)
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # What torch and numpy say of sizes that no machine holds, and of those beyond 64 bits.
        known = "alloc", "Overflow", "aximum allowed dimension", "too big", "too large"
        if not isinstance(error, MemoryError | OverflowError) and not any(
            words in str(error) for words in known
        ):
            raise
        sizes = [("agent", "replay_capacity"), ("agent", "hidden")]
        sizes += [("encoder", "width")] * (config.encoder.width > 1)
        if config.memory.controller != "none":
            sizes += [("memory", "capacity"), ("memory", "key_dim")]
        sizes += [("world_model", "hidden")] * config.world_model.enabled
        said = [f"{group}.{key}={getattr(getattr(config, group), key)}" for group, key in sizes]
        raise UserError(
            f"{', '.join(said[:-1])} and {said[-1]} do not fit into this machine's memory: lower "
            "them"
        ) from error


def _agent_of(
    config: RunConfig,
    masks: np.ndarray,
    total_steps: int,
    device: torch.device,
    networks: dict[str, Any] | None,
) -> Agent:
    return make_agent(
        config.memory,
        config.agent,
        config.encoder,
        masks,
        total_steps=total_steps,
        seed=named_seeds(config.seed)["agent"],
        device=device,
        cuda_graph=config.device.cuda_graph
        and device.type == "cuda"
        and not config.planner.reanalyse,  # how many rows differs from batch to batch
        backend=config.backend,
        continual=ContinualConfig(tuple(config.consolidation), config.stiffness, config.replay),
        world_model=config.world_model,
        planner=config.planner,
        task_labels=config.task_labels,
        change=config.change,
        plasticity=config.plasticity,
        networks=networks,
    )
