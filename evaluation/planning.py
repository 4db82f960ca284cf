"""Does planning beat reacting? The same trained agent plays the same episodes both ways.

    python evaluate.py run=runs/x [planner=reactive,beam,gumbel,shuffled,oracle] [episodes=30]
        [depth=1,2,3] [simulations=2,8,16] [width=4] [branch=4] [share=1] [gain=0] [memory=true]
        [games=..] [oracle_depth=5] [oracle_width=18] [oracle_branch=1] [oracle_gain=0.3]
        [oracle_episodes=10]

Variants: `reactive`; `beam` at each depth; `gumbel` with each number of simulations; and three
controls: depth 0, which must choose exactly as `reactive`; `shuffled`, a beam whose model is told
another action than the one it judges; `oracle`, a beam whose model is the emulator itself. Equal
seeds: episode i starts alike for all.

The oracle searches in its own way, by the keys `oracle_*`: width >= A and branch = 1 make its beam
a rollout, every action followed by the agent's own greedy policy (Tesauro & Galperin 1996).
Rollouts compare real rewards, of which a model without error has `depth` steps, while a narrow and
shallow beam mostly compares the agent's values; and a bar, `gain`, keeps the noise of neighbouring
values from overriding. Written into the run's folder: report/planning.json and .png,
report/thought_<game>.png, a section of report/report.html; TensorBoard scalars under `planning/`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.losses import masked_argmax
from agents.planners import PlannerConfig, PlanResult, search
from agents.world_model import ModelStep
from envs import make_action_set
from envs.roms import CATCH
from envs.scores import hns
from errors import UserError, require
from evaluation.backends import paired
from evaluation.evaluator import EvalGame, EvalResult, Evaluator
from evaluation.lockstep import Moment, play, play_settings
from evaluation.page import write_whole
from evaluation.statistics import aggregate, iqm_difference, probability_of_improvement

KEYS = ("run", "step", "planner", "games", "episodes", "depth", "simulations", "width", "branch",
        "considered", "share", "gain", "memory", "oracle_depth", "oracle_width", "oracle_branch",
        "oracle_gain", "oracle_episodes", "seed")  # fmt: skip
KINDS = ("reactive", "beam", "gumbel", "shuffled", "oracle")
REAL = ("reactive", "oracle")  # what needs no world model
# Of the oracle's beam. On RoadRunner (seed 112, 20k steps) these lift 3,800 to 9,900 and override
# one choice in ten; depth 2, width 4, branch 4, gain 0 overrides nearly all and loses. [measured]
ORACLE = PlannerConfig(name="beam", depth=5, width=18, branch=1, gain=0.3)
PROBE_EPISODES, PROBE_STEPS = 6, 400  # of the reactive policy, for the model's errors
HORIZON = 5  # steps over which the model's errors are measured


@dataclass(frozen=True)
class Variant:
    """One way to choose actions."""

    name: str
    planner: PlannerConfig  # name=none: reactive
    model: str = "learned"  # learned | shuffled | oracle


@dataclass
class Tally:
    """What is counted while a variant plays a game."""

    rows: int = 0
    overridden: int = 0
    seconds: float = 0.0


class ShuffledModel:
    """The model, told the next allowed action instead of the one that is asked about."""

    def __init__(self, model: Any, mask: Tensor) -> None:
        self.model = model
        allowed = mask.nonzero()[:, 0]
        self.other = torch.arange(len(mask), device=mask.device)
        self.other[allowed] = allowed.roll(-1)

    def step(self, latent: Tensor, action: Tensor) -> ModelStep:
        return self.model.step(latent, self.other[action])


@dataclass
class Contest:
    agent: Agent
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)

    @torch.no_grad()
    def decide(self, variant: Variant, obs: np.ndarray, game: int) -> tuple[Tensor, PlanResult]:
        """The agent's own values [n, A] and what the variant makes of them; the tree is of the
        first row's label."""
        labels = self.agent.labels(obs, game)
        q, found = self._decide(variant, obs, int(labels[0]))
        for label in np.unique(labels[labels != labels[0]]):
            rows = torch.from_numpy(labels == label).to(q.device)
            own, other = self._decide(variant, obs, int(label))
            q = torch.where(rows[:, None], own, q)
            found = found._replace(
                q=torch.where(rows[:, None], other.q, found.q),
                action=torch.where(rows, other.action, found.action),
            )
        return q, found

    def _decide(self, variant: Variant, obs: np.ndarray, game: int) -> tuple[Tensor, PlanResult]:
        """In what the agent calls `game`."""
        agent, config = self.agent, variant.planner
        mask = agent.masks[game]
        q = agent.label_values(obs, game)
        if config.name == "none":
            return q, PlanResult(q, masked_argmax(q, mask.expand_as(q)), None)
        model = agent.model
        if variant.model == "shuffled":
            model = ShuffledModel(model, mask)
        found = search(
            config,
            agent.latent,
            q,
            mask.expand_as(q),
            model,
            lambda latent: agent.values(latent, game, config.memory),
            agent.learner.gamma(),
        )
        return q, found

    def policy(self, variant: Variant):
        """For `Evaluator`. Rows of finished slots are counted too: they are few."""

        def choose(obs: np.ndarray, game: EvalGame) -> np.ndarray:
            begin = time.perf_counter()
            q, found = self.decide(variant, obs, game.index)
            tally = self.tallies.setdefault((variant.name, game.name), Tally())
            tally.seconds += time.perf_counter() - begin
            tally.rows += len(obs)
            mask = self.agent.masks[game.index].expand_as(q)
            tally.overridden += int((masked_argmax(q, mask) != found.action).sum())
            return found.action.cpu().numpy()

        return choose


def variants(
    kinds: Sequence[str],
    base: PlannerConfig,
    depths: Sequence[int],
    simulations: Sequence[int],
    oracle: PlannerConfig = ORACLE,
) -> list[Variant]:
    """All that is played, `reactive` first."""
    out = [Variant("reactive", replace(base, name="none"))]
    beam, middle = replace(base, name="beam"), depths[len(depths) // 2]
    if "beam" in kinds:
        out.append(Variant("beam_depth0", replace(beam, depth=0)))
        out += [Variant(f"beam_depth{d}", replace(beam, depth=d)) for d in depths]
    if "gumbel" in kinds:
        gumbel = replace(base, name="gumbel")
        out += [Variant(f"gumbel_{n}", replace(gumbel, simulations=n)) for n in simulations]
    if "shuffled" in kinds:
        out.append(Variant(f"shuffled_depth{middle}", replace(beam, depth=middle), "shuffled"))
    if "oracle" in kinds:
        out.append(Variant(f"oracle_depth{oracle.depth}", oracle, "oracle"))
    return out


def compare_planners(
    run: Any,
    chosen: Sequence[Variant],
    games: Sequence[str],
    episodes: int,
    oracle_episodes: int,
    seed: int | None = None,
) -> dict:
    """The whole comparison as plain data. run: a `training.loading.LoadedRun`."""
    agent = run.agent
    if agent.config.noisy:
        agent.acting_network.quiet()
    contest = Contest(agent)
    settings = run.evaluator_settings(episodes=episodes)
    settings["num_envs"] = min(8, episodes)
    if seed is not None:
        settings["seed"] = seed
    evaluator = Evaluator(**settings)
    results: dict[str, dict[str, EvalResult]] = {}
    try:
        for variant in chosen:
            if variant.model != "oracle":
                results[variant.name] = evaluator.evaluate_all(contest.policy(variant), games)
                print(f"played: {variant.name}", flush=True)
    finally:
        evaluator.close()
    for variant in chosen:
        if variant.model == "oracle":
            results[variant.name] = {
                game: _oracle(contest, variant, run, game, oracle_episodes, settings["seed"])
                for game in games
            }
            print(f"played: {variant.name}", flush=True)
    report: dict[str, Any] = {
        "run": str(run.path),
        "step": run.step,
        "episodes": episodes,
        "oracle_episodes": oracle_episodes,
        "seed": run.config.seed,
        "eval_seed": settings["seed"],
        "variants": {v.name: {"model": v.model} | _settings(v.planner) for v in chosen},
        "games": {},
    }
    courses = {}
    for game in games:
        own = {name: by_game[game] for name, by_game in results.items()}
        courses[game] = _probe(contest, run, game, settings["seed"] + 1)
        report["games"][game] = {
            "variants": {n: _row(contest, n, game, own) for n in own},
            "model_errors": model_errors(agent, run.sequence.games.index(game), courses[game]),
        }
    report["overall"] = overall(report["games"], [v.name for v in chosen if v.model != "oracle"])
    report["equal_time"] = _equal_time(report["games"])
    return report | {"courses": courses, "contest": contest}


def _settings(config: PlannerConfig) -> dict:
    keys = {
        "none": (),
        "beam": ("depth", "width", "branch", "share", "gain"),
        "gumbel": ("simulations", "considered", "prior_temperature", "share", "gain"),
    }
    return {"planner": config.name} | {k: getattr(config, k) for k in keys[config.name]}


def _oracle(
    contest: Contest, variant: Variant, run: Any, game: str, episodes: int, seed: int
) -> EvalResult:
    from evaluation.oracle import OracleModel, OraclePlayer

    settings = play_settings(run, game)
    task, protocol = settings["task"], settings["protocol"]
    actions = make_action_set(task.rom, protocol, settings["full_actions"])
    index = run.sequence.games.index(game)
    model = OracleModel(task, protocol, actions)
    player = OraclePlayer(contest.agent, index, model, variant.planner)
    begin = time.perf_counter()
    result, _ = play(**settings, choose=player, episodes=episodes, seed=seed, saved_states=True)
    seconds = time.perf_counter() - begin
    contest.tallies[variant.name, game] = Tally(player.decisions, player.overridden, seconds)
    return result


def _probe(contest: Contest, run: Any, game: str, seed: int) -> list[list[Moment]]:
    """Courses of reactive episodes, cut after PROBE_STEPS."""
    settings = play_settings(run, game)
    settings["max_steps"] = min(settings["max_steps"], PROBE_STEPS)
    index = run.sequence.games.index(game)
    reactive = Variant("reactive", PlannerConfig())

    def choose(obs: np.ndarray, _cores: Sequence[Any]) -> np.ndarray:
        return contest.decide(reactive, obs, index)[1].action.cpu().numpy()

    return play(**settings, choose=choose, episodes=PROBE_EPISODES, seed=seed, record=True)[1]


@torch.no_grad()
def model_errors(agent: Agent, game: int, courses: Sequence[Sequence[Moment]]) -> dict:
    """Mean absolute errors k = 1..5 steps ahead along real courses of the game with this index,
    which the agent without labels takes for the context that their screens are nearest to.

    reward: of the clipped reward, beside always saying its mean; value: of max_a q in return units,
    beside taking the present moment for the later one; both also for the shuffled model. Where
    rewards are rare, always saying 0 has the smallest absolute error of all, so
    `reward_explained` also gives the share of their variance that is foreseen: 0 for always saying
    the mean, 1 for a perfect model. Empty for an agent without a model, or with one that stopped
    learning half way.
    """
    if agent.model is None or agent.imagination.config.until:
        return {}
    context = agent.label(np.stack([m.obs for course in courses for m in course]), game)
    latents, starts = [], []
    for course in courses:
        obs = np.stack([m.obs for m in course])
        parts = []
        for i in range(0, len(obs), 256):
            agent.eval_values(obs[i : i + 256], game)
            parts.append(agent.latent)
        latents.append(torch.cat(parts))
        ended = np.array([m.ended for m in course])
        for t in range(len(course) - HORIZON):
            if not ended[t : t + HORIZON].any():
                starts.append((len(latents) - 1, t))
    if not starts:
        return {}
    offsets = np.cumsum([0, *(len(x) for x in latents)])
    every = torch.cat(latents)
    at = torch.tensor([offsets[c] + t for c, t in starts], device=every.device)
    action = torch.tensor([m.action for course in courses for m in course], device=every.device)
    reward = torch.tensor([m.reward for course in courses for m in course], device=every.device)
    reward = reward.clamp(-1, 1)
    value = agent.values(every, context).amax(1)
    models = {"learned": agent.model, "shuffled": ShuffledModel(agent.model, agent.masks[context])}
    out: dict[str, Any] = {"moments": len(starts), "reward_mean": float(reward.mean())}
    constant = [float((reward[at + k] - reward.mean()).abs().mean()) for k in range(HORIZON)]
    stays = [float((value[at + k + 1] - value[at]).abs().mean()) for k in range(HORIZON)]
    out["constant_reward"], out["present_value"] = constant, stays
    for name, model in models.items():
        latent, rewards, values, explained = every[at], [], [], []
        for k in range(HORIZON):
            step = model.step(latent, action[at + k])
            latent = step.latent
            wrong = step.reward - reward[at + k]
            rewards.append(float(wrong.abs().mean()))
            spread = float((reward[at + k] - reward.mean()).square().mean())
            explained.append(1 - float(wrong.square().mean()) / spread if spread else 0.0)
            ahead = agent.values(latent, context).amax(1)
            values.append(float((ahead - value[at + k + 1]).abs().mean()))
        out[name] = {"reward": rewards, "value": values, "reward_explained": explained}
    return out


def _row(contest: Contest, name: str, game: str, results: Mapping[str, EvalResult]) -> dict:
    result, tally = results[name], contest.tallies[name, game]
    returns = result.returns
    score = hns(game, float(returns.mean()))
    row = {
        "returns": [float(r) for r in returns],
        "mean": float(returns.mean()),
        "hns": score if np.isfinite(score) else None,
        "capped": int(result.capped.sum()),
        "override": tally.overridden / max(tally.rows, 1),
        "ms_per_decision": 1e3 * tally.seconds / max(tally.rows, 1),
    }
    if name != "reactive":
        reference = results["reactive"].returns[: len(returns)]
        row["against_reactive"] = paired(reference, returns)
        better = (returns > reference).mean() + 0.5 * (returns == reference).mean()
        row["better_episodes"] = float(better)
    return row


def overall(games: Mapping[str, dict], names: Sequence[str]) -> dict:
    """IQM of the human-normalised episodes over games, what it is above reacting's, and the
    probability of improvement.

    games: `games` of a report, also of several reports on games of their own put together.
    """
    scores = {
        name: np.stack(
            [[hns(g, r) for r in row["variants"][name]["returns"]] for g, row in games.items()], 1
        )
        for name in names
    }
    if not all(np.isfinite(s).all() for s in scores.values()):
        return {}  # a toy world without human scores
    figures = aggregate(scores)
    ours = {n: probability_of_improvement(s, scores["reactive"]) for n, s in scores.items()}
    return {
        name: {
            "iqm": list(figures[name].iqm),
            "mean": list(figures[name].mean),
            "iqm_difference": list(iqm_difference(scores[name], scores["reactive"]))
            if name != "reactive"
            else None,
            "improvement": list(ours[name]) if name != "reactive" else None,
        }
        for name in names
    }


def _equal_time(games: Mapping[str, dict]) -> dict:
    """For each game and each search with the learned model: the best that takes no longer."""
    out: dict[str, dict] = {}
    for game, row in games.items():
        rows = {
            n: v for n, v in row["variants"].items() if not n.startswith(("shuffled", "oracle"))
        }
        out[game] = {}
        for name, own in rows.items():
            budget = 1.05 * own["ms_per_decision"]
            within = [n for n, v in rows.items() if v["ms_per_decision"] <= budget]
            out[game][name] = max(within, key=lambda n: rows[n]["mean"])
    return out


def main(run: Any, options: Mapping[str, str]) -> dict:
    """`evaluate.py run=...`: compare, print, and write into the run's folder."""
    from evaluation.planning_report import board, planning_table, write_figures
    from evaluation.report import write_report

    for key in options:
        require(key in KEYS, f"'{key}' is no key of the planner comparison; use {', '.join(KEYS)}")
    # A model that stopped learning half way is of an encoder that is no longer there.
    learned = run.agent.model is not None and not run.config.world_model.until
    games = options["games"].strip("[]").split(",") if "games" in options else run.sequence.games
    for game in games:
        there = ", ".join(run.sequence.games)
        require(game in run.sequence.games, f"games={game}: this run knows {there}")
    require(len(set(games)) == len(games), f"games={options.get('games')} names one twice")
    emulated = all(run.sequence.game_task(game).rom != CATCH for game in games)
    usual = [k for k in KINDS if (learned or k in REAL) and (emulated or k != "oracle")]
    kinds = options["planner"].strip("[]").split(",") if "planner" in options else usual
    for kind in kinds:
        require(kind in KINDS, f"planner={kind}: use some of {','.join(KINDS)}")
    require(
        learned or set(kinds) <= set(REAL),
        f"{run.path} has no world model that learned to the end: train with world_model=latent, or "
        "give planner=reactive,oracle",
    )
    memory = options.get("memory", str(run.config.planner.memory)).lower()
    require(memory in ("true", "false"), f"memory={memory} must be true or false")
    base = replace(
        run.config.planner,
        name="none",
        memory=memory == "true",
        **{k: _number(options, k) for k in ("width", "branch", "considered") if k in options},
        **{k: _number(options, k, float) for k in ("share", "gain") if k in options},
    )
    oracle = replace(
        ORACLE,
        **{
            key: _number(options, f"oracle_{key}", kind)
            for key, kind in {"depth": int, "width": int, "branch": int, "gain": float}.items()
            if f"oracle_{key}" in options
        },
    )
    depths = [_number({"depth": d}, "depth") for d in options.get("depth", "1,2,3").split(",")]
    simulations = [
        _number({"simulations": n}, "simulations")
        for n in options.get("simulations", "2,8,16").split(",")
    ]
    episodes = _number({"episodes": "30"} | options, "episodes", least=1)
    fewer = {"oracle_episodes": str(min(10, episodes))}
    oracle_episodes = _number(fewer | options, "oracle_episodes", least=1)
    require(
        oracle_episodes <= episodes,
        f"oracle_episodes={oracle_episodes} must be at most episodes={episodes}, whose first ones "
        "they are compared with",
    )
    require(
        emulated or "oracle" not in kinds,
        "planner=oracle searches with an emulator, which catch has not: leave one of them out",
    )
    chosen = variants(kinds, base, depths, simulations, oracle)
    seed = _number(options, "seed") if "seed" in options else None
    report = compare_planners(run, chosen, games, episodes, oracle_episodes, seed)
    courses, contest = report.pop("courses"), report.pop("contest")
    command = shlex.join(["python", "evaluate.py", *(f"{k}={v}" for k, v in options.items())])
    report = {"command": command} | report
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    data = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_whole(folder / "planning.json", data)
    figures = write_figures(run, report, courses, contest, chosen, folder)
    board(run, report, figures)
    planning_table(report)
    page = write_report(run.path)
    names = ", ".join(f"{n}.png" for n in figures)
    print(f"written: {folder / 'planning.json'}, {names}, and a section of {page}")
    return report


def _number(options: Mapping[str, str], key: str, kind: type = int, least: int = 0) -> Any:
    try:
        value = kind(options[key])
    except ValueError:
        value = -1
    if not (least <= value < float("inf")):
        raise UserError(f"{key}={options[key]} is no number of at least {least}")
    return value
