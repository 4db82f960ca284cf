"""Episodes of one game played side by side by a policy that may look at the emulators.

The evaluator's episodes (evaluation/evaluator.py), seed for seed, without its threads: for what
needs the emulators' saved states, or the course of whole episodes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs import ProtocolConfig, Task, make_action_set
from envs.factory import make_core
from envs.seeding import counter_uniform, episode_seed
from errors import require
from evaluation.evaluator import _CHOICE_STREAM, _EXPLORE_STREAM, EvalResult

FIRST = np.ones(1, bool)


class Moment(NamedTuple):
    """One decision of one episode."""

    obs: np.ndarray  # uint8 [4, 84, 84]
    action: int
    reward: float  # raw
    ended: bool  # the game was over, or a life was lost where that ends a training episode


Choose = Callable[[np.ndarray, Sequence[Any]], np.ndarray]
"""choose(obs uint8 [n, 4, 84, 84], emulator cores [n]) -> outputs int [n]."""


def play(
    task: Task,
    protocol: ProtocolConfig,
    choose: Choose,
    *,
    episodes: int,
    seed: int,
    max_steps: int,
    epsilon: float = 0.0,
    full_actions: bool | None = None,
    saved_states: bool = False,
    record: bool = False,
) -> tuple[EvalResult, list[list[Moment]]]:
    """Play `episodes` of `task`; arguments as those of `Evaluator`.

    saved_states: the cores are `SingleCore`s, whose emulators can be saved and brought back.
    record: also return the course of each episode.
    """
    actions = make_action_set(task.rom, protocol, full_actions)
    allowed = np.flatnonzero(actions.mask)
    max_steps = min(max_steps, protocol.max_steps)
    key = zlib.crc32(task.name.encode())
    seeds = np.array([episode_seed(seed, key, i) for i in range(episodes)])
    cores = [make_core(task, protocol, 1, single=saved_states) for _ in range(episodes)]
    began = [core.reset(FIRST, seeds[i : i + 1]) for i, core in enumerate(cores)]
    obs = np.stack([o[0] for o, _ in began])
    lives = np.array([n[0] for _, n in began])
    result = EvalResult(np.zeros(episodes), np.zeros(episodes, np.int64), np.zeros(episodes, bool))
    course: list[list[Moment]] = [[] for _ in range(episodes)]
    running = np.arange(episodes)
    while len(running):
        chosen = np.asarray(choose(obs[running], [cores[i] for i in running]))
        now, length = seeds[running], result.lengths[running]
        explore = counter_uniform(now, length, _EXPLORE_STREAM) < epsilon
        choice = counter_uniform(now, length, _CHOICE_STREAM) * len(allowed)
        chosen = np.where(explore, allowed[choice.astype(np.int64)], chosen)
        for i, output, sent in zip(running, chosen, actions.translate(chosen)):
            cores[i].send(np.array([sent]))
            step = cores[i].recv()
            over = bool(step.terminated[0])
            lost = protocol.life_loss_terminal and 0 < step.lives[0] < lives[i]
            if record:
                moment = Moment(obs[i].copy(), int(output), float(step.reward[0]), over or lost)
                course[i].append(moment)
            result.returns[i] += step.reward[0]
            result.lengths[i] += 1
            result.capped[i] = not over and result.lengths[i] >= max_steps
            obs[i], lives[i] = step.obs[0], step.lives[0]
            if over or result.capped[i]:
                running = running[running != i]
    for core in cores:
        core.close()
    return result, course


def play_settings(run: Any, game: str) -> dict[str, Any]:
    """Arguments of `lockstep.play` under which a game is evaluated, but for episodes and seed."""
    settings = run.evaluator_settings()
    return {
        "task": run.sequence.game_task(game),
        "protocol": settings["protocol"],
        "max_steps": settings["max_steps"],
        "epsilon": settings["epsilon"],
        "full_actions": settings["full_actions"],
    }


def action_names(settings: Mapping[str, Any]) -> list[str]:
    """What the agent's outputs are called in the game that is played with these `play_settings`."""
    rom, full = settings["task"].rom, settings.get("full_actions")
    return make_action_set(rom, settings["protocol"], full).names


def asked(
    run: Any, options: Mapping[str, str], word: str, numbers: Mapping[str, int]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """What `evaluate.py run=... WORD=true` is asked to play: for each game the arguments of `play`,
    those of the run's first evaluation episodes, and `numbers` (episodes and max_steps among them)
    with what `options` say in their place.

    Raises:
        UserError: an option that there is not, a game the run has not, a number too low.
    """
    keys = ("run", "step", word, "game", *numbers)
    for key in options:
        require(key in keys, f"'{key}' is no key of {word}=true; use {', '.join(keys)}")
    require(options[word] == "true", f"{word}={options[word]}: use {word}=true, or leave it out")
    games = run.sequence.games
    chosen = [options["game"]] if "game" in options else list(games)
    for game in chosen:
        require(game in games, f"game={game} is not one of the run's: {', '.join(games)}")
    given = {}
    for name, default in numbers.items():
        text = options.get(name, str(default))
        least = 0 if name == "seed" else 1
        right = text.isdecimal() and int(text) >= least
        require(right, f"{name}={text} must be a whole number of at least {least}")
        given[name] = int(text)
    seed, found = run.evaluator_settings()["seed"], {}
    for game in chosen:
        settings = play_settings(run, game)
        most = min(settings["max_steps"], given["max_steps"])
        found[game] = settings | {"max_steps": most, "episodes": given["episodes"], "seed": seed}
    return found, given
