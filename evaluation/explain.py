"""What an agent was reminded of while it played: a page for whole episodes.

    python evaluate.py run=runs/x explain=true [game=krull] [episodes=1] [moments=24]
        [max_steps=2000] [step=24000]

The episodes are the first of the run's own evaluations, seed for seed, played as those are: by
`Agent.eval_policy`, its planner included, with the random actions of `agent.eval_epsilon`, up to
`max_steps` agent steps. The page shows the learned and the remembered value of every action taken,
how much the memory was trusted, the return that really followed, and for moments spread over the
episode the frame beside the frames it was compared with.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from agents.episodic.figure import Recall, draw_recall
from agents.episodic.remember import RememberingAgent
from agents.episodic.trails import n_step_return
from errors import require
from evaluation import lockstep
from evaluation.page import STYLE, write_whole
from evaluation.style import DPI, dress, look, new_figure

ROWS = 6  # recalls in one picture


@dataclass(frozen=True)
class Played:
    """One episode of L steps."""

    game: str
    recalls: list[Recall]  # L
    rewards: np.ndarray  # [L] as the agent's returns count them
    ended: np.ndarray  # bool [L]: returns end there: the game was over or, in training, a life
    score: float  # raw return
    capped: bool
    actions: list[str]  # names of the agent's outputs


def play(agent: RememberingAgent, index: int, **settings: Any) -> list[Played]:
    """Episodes of the game with this index, each action with what it was compared with.

    settings: of `lockstep.play`, but for the policy. The agent's state is left as it was.
    """

    def choose(obs: np.ndarray, _cores: Sequence[Any]) -> np.ndarray:
        return agent.eval_policy(obs, index)

    result, courses = lockstep.play(**settings, choose=choose, record=True)
    task, names = settings["task"], lockstep.action_names(settings)
    played = []
    for i, course in enumerate(courses):
        recalls: list[Recall] = []
        for moment in course:
            obs, action = moment.obs[None], np.array([moment.action])
            recalls += agent.recalls(obs, agent.label(obs, index), actions=action)
        rewards = agent.reward(np.array([m.reward for m in course], np.float32))
        ended = np.array([m.ended for m in course], bool)
        score, capped = float(result.returns[i]), bool(result.capped[i])
        played.append(Played(task.name, recalls, rewards, ended, score, capped, names))
    return played


def timeline(episode: Played, gamma: float, horizon: int) -> Any:
    """Values and confidence over an episode, with the return that followed."""
    figure = new_figure(4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = np.arange(len(episode.recalls))
    returns = followed(episode.rewards, episode.ended, gamma, horizon)
    upper.plot(steps, [r.slow for r in episode.recalls], label="learned", **look(0))
    upper.plot(steps, [r.fast for r in episode.recalls], label="remembered", **look(1))
    upper.plot(steps, returns, label="what followed", color="#777777", lw=0.8)
    upper.legend(frameon=False, ncols=3)
    lower.plot(steps, [r.confidence for r in episode.recalls], **look(2))
    lower.set_ylim(0, 1)
    dress(upper, f"{episode.game}: value of the action taken")
    dress(lower, "confidence of the memory", xlabel="agent steps")
    return figure


def followed(rewards: np.ndarray, ended: np.ndarray, gamma: float, horizon: int) -> np.ndarray:
    """Discounted returns [L] of `horizon` steps (0: of all) up to the next end: what the memory
    stores, but for the value it bootstraps from."""
    returns, stop = np.zeros(len(rewards)), len(rewards)
    for t in range(len(rewards) - 1, -1, -1):
        stop = t + 1 if ended[t] else stop
        window = rewards[t : min(stop, t + horizon) if horizon else stop]
        returns[t] = n_step_return(window, gamma, bootstrap=0.0)
    return returns


def page(episodes: list[Played], names: list[str], agent: RememberingAgent, moments: int) -> str:
    """The HTML page, pictures embedded."""
    c = agent.memory_config
    parts = []
    for episode in episodes:
        count = len(episode.recalls)
        end = "stopped" if episode.capped else "over"
        parts.append(f"<h2>{escape(episode.game)}</h2><p>Return {episode.score:g}, {end} after "
                     f"{count} agent steps.</p>")  # fmt: skip
        parts.append(_image(timeline(episode, agent.gamma(), c.horizon)))
        shown = np.unique(np.linspace(0, count - 1, min(moments, count)).astype(int))
        for start in range(0, len(shown), ROWS):
            rows = shown[start : start + ROWS]
            parts.append(f"<p class=faint>Steps {', '.join(map(str, rows))}</p>")
            recalls = [episode.recalls[i] for i in rows]
            parts.append(_image(draw_recall(recalls, names, actions=episode.actions)))
    sizes = ", ".join(f"{names[t]} {len(agent.memory.slots_of(t)):,}" for t in range(len(names)))
    return (
        f"<!doctype html><meta charset=utf-8><title>What it remembered</title><style>{STYLE}"
        f"</style><h1>What it remembered</h1><p class=faint>{len(agent.memory):,} entries "
        f"({escape(sizes)}), {c.neighbours} neighbours, controller {c.controller}. Left: the "
        "present frame. Beside it: the nearest stored moments of the action taken, with the "
        f"return that followed them, their weight, squared distance and age.</p>{''.join(parts)}"
    )


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def main(run: Any, options: dict[str, str]) -> Path:
    """Play and write report/explain.html in the run's folder."""
    agent, games = run.agent, list(run.sequence.games)
    usual = {"episodes": 1, "moments": 24, "max_steps": 2_000}
    wanted, numbers = lockstep.asked(run, options, "explain", usual)
    require(
        isinstance(agent, RememberingAgent),
        f"run={run.path}: this agent has no episodic memory; train one with agent=episodic, nec "
        "or mfec",
    )
    if agent.config.noisy:
        agent.acting_network.quiet()
    played = []
    for game, settings in wanted.items():
        played += play(agent, games.index(game), **settings)
    for episode in played:
        print(f"{episode.game}: return {episode.score:g} in {len(episode.recalls)} agent steps")
    target = run.path / "report" / "explain.html"
    target.parent.mkdir(exist_ok=True)
    write_whole(target, page(played, agent.task_names(games), agent, numbers["moments"]))
    print(f"page: {target}")
    return target
