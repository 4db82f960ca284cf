"""One vector step of agent and environment: what training and the benchmarks of it repeat."""

from __future__ import annotations

from typing import Any

from agents.agent import Agent, Transition


def vector_step(agent: Agent, env: Any) -> dict[str, Any]:
    """The agent acts, learns while the emulators run, and is told what came of it; returns the
    info of the step (envs/vector.py)."""
    obs_tm1, first = env.observations, env.episode_starts
    actions = agent.act(obs_tm1)
    env.send(actions)
    agent.learn()
    _, reward, terminated, truncated, info = env.recv()
    agent.observe(
        Transition(obs_tm1, actions, reward, terminated, truncated, first, info["final_obs"])
    )
    return info
